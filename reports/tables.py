"""The tables of a report: the paper's tables 1 to 3 with our rows, and what lies behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.averaging import ANOMALY_ACCURACY, AVERAGE, COLUMNS, NORMAL_ACCURACY
from harness.inspection import Inspection, inspect
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION, SUBTASK_KEYS
from reports.notes import context, footnotes, row_context
from reports.published import blocks
from reports.ranking import ranks
from reports.subject import LEVEL, Entry, Subject
from reports.table import Cell, Column, Mark, Table, number, subtask_columns

EMIT = "emit"
#: The paper's tables 2 and 3: name, title, what they leave out of EMIT, and which scores they show.
ABLATIONS = (
    (
        "ablation-training",
        "Ablation of the training: accuracy (%) by subtask",
        ("emit-wo-stage1", "emit-wo-stage2", "emit-wo-text"),
        SUBTASK_KEYS,
    ),
    (
        "ablation-inputs",
        "Ablation of soft prompt (SP) and contrastive embeddings (CE): accuracy (%)",
        ("emit-wo-sp-ce", "emit-wo-sp"),
        (ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION),
    ),
)
COMPARISON = "comparison"
#: Names of the paper's tables, as far as a report has them.
PAPER_TABLES = (COMPARISON, *(name for name, *_ in ABLATIONS))
TABLE_NAMES = (*PAPER_TABLES, "inspection", "outcomes", "work")
DATASETS = "datasets-"  #: how the names of the other tables begin
_MODEL = Column("model", "Model", numeric=False)
_SCALE = Column("scale", "Scale", numeric=False)
_RANKS: dict[int, Mark] = {1: "best", 2: "second"}


def tables_of(subject: Subject, published: Sequence[str] = ()) -> tuple[Table, ...]:
    """All tables of a report, the comparison first.

    Args:
        subject: what it is about.
        published: sources of reported numbers that stand beside (:mod:`reports.published`).
    """
    notes, brief = footnotes(subject), context(subject)
    found = [*_paper_tables(subject, published, notes)]
    found += [by_dataset(subject, entry, notes) for entry in subject.entries]
    found += [table for table in (inspection(subject, brief), outcomes(subject, brief)) if table]
    work = work_done(subject.entries, brief)
    told = row_context(subject)
    return tuple(replace(table, context=told) for table in (*found, *((work,) if work else ())))


def _paper_tables(subject: Subject, published: Sequence[str], notes: Sequence[str]) -> Iterator[Table]:
    """Tables 1 to 3: an ablation stands in its own table where EMIT is there to compare it with."""
    by_model = {entry.model: entry for entry in subject.entries}
    ablations = []
    if EMIT in by_model and len(by_model) == len(subject.entries):
        for name, title, models, columns in ABLATIONS:
            rows = tuple(by_model[model] for model in models if model in by_model)
            if rows:
                ablations.append((name, title, (*rows, by_model[EMIT]), columns))
    elsewhere = {entry.id for _, _, rows, _ in ablations for entry in rows if entry.model != EMIT}
    main = [entry for entry in subject.entries if entry.id not in elsewhere]
    if len(main) > 1 or not ablations:
        title = "Accuracy (%) by subtask"
        yield _scores(subject, COMPARISON, title, main, subject.base, SUBTASK_KEYS, notes, published)
    for name, title, rows, columns in ablations:
        yield _scores(subject, name, title, rows, by_model[EMIT], columns, notes, published)


def _scores(
    subject: Subject,
    name: str,
    title: str,
    entries: Sequence[Entry],
    base: Entry,
    subtasks: Sequence[str],
    notes: Sequence[str],
    published: Sequence[str],
) -> Table:
    """One row an entry, one column a subtask; the average where all seven are shown."""
    shown = (*subtasks, AVERAGE) if subtasks == SUBTASK_KEYS else tuple(subtasks)
    columns = [column for column in subtask_columns() if column.key in shown]
    columns += [Column(AVERAGE, "Average")] if AVERAGE in shown else []
    marks = _marks(subject, entries, base, shown)
    rows = []
    for entry in entries:
        estimates = subject.estimates[entry.id].rows[AVERAGE]
        cells = []
        for column in columns:
            found = estimates[column.key]
            plain = number(None if found is None else found.value)
            interval = None if found is None else (found.low, found.high)
            cells.append(Cell(plain.text, plain.value, interval, marks[entry.id, column.key]))
        rows.append((Cell(entry.title), Cell(entry.scale), *cells))
    legend: dict[Mark, str] = {
        "best": "best of its column or not told apart from it (95 % interval of the paired difference); "
        "nothing is marked where no difference can be told",
        "second": "second best, likewise, where one alone is best",
        "dagger": f"differs from {base.title} (paired permutation test, Holm over the subtasks, "
        f"p at most {LEVEL:g})",
    }
    return Table(
        name,
        title,
        (_MODEL, _SCALE, *columns),
        tuple(rows),
        tuple(notes),
        legend,
        blocks(name, published),
        ranged=AVERAGE,
    )


def _marks(
    subject: Subject, entries: Sequence[Entry], base: Entry, shown: Sequence[str]
) -> dict[tuple[str, str], frozenset[Mark]]:
    """Entry and column -> the marks of the cell."""
    found: dict[tuple[str, str], set[Mark]] = {(e.id, c): set() for e in entries for c in shown}
    if len(entries) < 2 or not subject.comparable:
        return {key: frozenset() for key in found}
    places = [subject.place(entry.id) for entry in entries]
    for column in shown:
        if subject.panel.clusters_of(column) == 1:
            continue  # one image tells no model from another
        at = COLUMNS.index(column)
        values = np.array([_value(subject, entry, column) for entry in entries])
        draws = subject.replicates[:, places, -1, at]
        for entry, rank in zip(entries, ranks(values, draws, freedom=subject.panel.freedom), strict=True):
            found[entry.id, column] |= {_RANKS[rank]} if rank else set()
    for entry in entries:
        if entry.id == base.id:
            continue
        for test in subject.against(base.id)[entry.id].tests:
            if test.metric in shown and test.p_adjusted <= LEVEL:
                found[entry.id, test.metric].add("dagger")
    return {key: frozenset(marks) for key, marks in found.items()}


def _value(subject: Subject, entry: Entry, column: str) -> float:
    found = subject.estimates[entry.id].rows[AVERAGE][column]
    return float("nan") if found is None else found.value


def by_dataset(subject: Subject, entry: Entry, notes: Sequence[str] = ()) -> Table:
    """One model's accuracy per dataset, with the accuracies on normal and on anomalous images."""
    columns = (
        Column("dataset", "Dataset", numeric=False),
        *subtask_columns(),
        Column(AVERAGE, "Average"),
        Column(NORMAL_ACCURACY, "Normal", "Images"),
        Column(ANOMALY_ACCURACY, "Anomalous", "Images"),
    )
    rows = []
    for name, row in subject.estimates[entry.id].rows.items():
        cells = [Cell("Average" if name == AVERAGE else name)]
        for column in columns[1:]:
            found = row[column.key]
            plain = number(None if found is None else found.value)
            cells.append(plain if found is None else Cell(plain.text, plain.value, (found.low, found.high)))
        rows.append(tuple(cells))
    title = f"{entry.title}: accuracy (%) by dataset"
    return Table(
        f"{DATASETS}{file_name(entry.id)}", title, columns, tuple(rows), tuple(notes), ranged=AVERAGE
    )


def file_name(text: str) -> str:
    """Text as part of a file's name.

    >>> file_name("runs/a:emit")
    'runs-a-emit'
    """
    return "".join(char if char.isalnum() or char in "._-" else "-" for char in text)


def inspection(subject: Subject, notes: Sequence[str] = ()) -> Table | None:
    """What a plant asks: misses and false alarms, where models tell how sure they are of each option."""
    measured = {entry.id: inspect(entry.answers) for entry in subject.entries}
    if not any(measured.values()):
        return None
    columns = (
        _MODEL,
        Column(NORMAL_ACCURACY, "Normal", "Accuracy (%) on"),
        Column(ANOMALY_ACCURACY, "Anomalous", "Accuracy (%) on"),
        Column("auroc", "AUROC", "Defect or not"),
        Column("overkill", "Overkill (%)", "Defect or not"),
        Column("ece", "ECE", "Calibration"),
        Column("brier", "Brier", "Calibration"),
    )
    rows = []
    for entry in subject.entries:
        halves = subject.scores[entry.id].rows[AVERAGE]
        cells = (number(halves[column.key]) for column in columns[1:3])
        rows.append((Cell(entry.title), *cells, *_inspected(measured[entry.id])))
    miss = next(found.miss_rate for found in measured.values() if found is not None)
    explained = (
        f"Overkill: share of normal images called defective when at most {100 * miss:g} % of the anomalous "
        "slip through. AUROC: chance that an anomalous image scores above a normal one. ECE (ten bins) and "
        "Brier score: of the options' probabilities over all questions, lower is better.",
    )
    return Table("inspection", "As an inspector", columns, tuple(rows), (*explained, *notes))


def _inspected(found: Inspection | None) -> tuple[Cell, ...]:
    if found is None:
        return (number(None),) * 4
    overkill = None if found.overkill is None else 100 * found.overkill
    return number(found.auroc, 3), number(overkill), number(found.ece, 3), number(found.brier, 3)


def outcomes(subject: Subject, notes: Sequence[str] = ()) -> Table:
    """How many questions of each model ended how."""
    kinds = ("answered", "unparsed", "failed")
    columns = (_MODEL, *(Column(kind, kind.capitalize()) for kind in kinds))
    rows = []
    for entry in subject.entries:
        ended = Counter(str(answer.outcome) for answer in entry.answers)
        rows.append((Cell(entry.title), *(_count(ended[kind]) for kind in kinds)))
    return Table("outcomes", "Outcomes", columns, tuple(rows), tuple(notes))


def work_done(entries: Sequence[Entry], notes: Sequence[str] = ()) -> Table | None:
    """The exact work each model did in its run, from the manifest's counters."""
    counters: dict[str, Mapping[str, float]] = {e.id: e.told.get("counters") or {} for e in entries}
    # What no model counted once would only make the table wider.
    keys = list(dict.fromkeys(key for found in counters.values() for key, count in found.items() if count))
    if not keys:
        return None
    columns = (_MODEL, *(Column(key, key.replace("_", " ").capitalize()) for key in keys))
    rows = [(Cell(e.title), *(_count(counters[e.id].get(key)) for key in keys)) for e in entries]
    counted = "Counted, not estimated, over all answers of this table."
    return Table("work", "Work done", columns, tuple(rows), (*notes, counted))


def _count(value: float | None) -> Cell:
    """Whole numbers with thousands separated, others with one decimal."""
    if value is None:
        return number(None)
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:,.1f}", value)
