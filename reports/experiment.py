"""An experiment's tables from its result files: the paper's tables with their spread over seeds; claims."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from harness.averaging import AVERAGE
from harness.errors import BadInput
from harness.experiments import ArmResult, Experiment
from harness.replication import (
    STRATA,
    Replicated,
    SeedDifference,
    Spread,
    holm_adjusted,
    median_seed,
    stratum_of,
)
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION, SUBTASK_KEYS
from reports.notes import WORLDS
from reports.table import DASH, Cell, Column, Table, number, subtask_columns

#: The paper's tables by arm; arms of other names stand in the first one.
_ABLATIONS = {
    "ablation-training": (
        "Table 2: ablation of the training, accuracy (%), mean and s.d. over seeds",
        ("emit-wo-stage1", "emit-wo-stage2", "emit-wo-text", "emit"),
        (*SUBTASK_KEYS, AVERAGE),
    ),
    "ablation-inputs": (
        "Table 3: ablation of soft prompt (SP) and contrastive embeddings (CE), accuracy (%)",
        ("emit-wo-sp-ce", "emit-wo-sp", "emit"),
        (ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION),
    ),
}
_MAIN = "Table 1: accuracy (%) by subtask, mean and s.d. over seeds"
_MARKED = re.compile(r"<!-- table: ([a-z-]+) -->.*?<!-- end -->", re.DOTALL)
_ARM = Column("arm", "Arm", numeric=False)
_SEEDS = Column("seeds", "Seeds")


def experiment_tables(experiment: Experiment) -> tuple[Table, ...]:
    """All tables of an experiment, as far as it has come.

    Raises:
        BadInput: no arm has a result, or arms answered other questions.
    """
    run = [arm for arm in experiment.arms if arm.answers]
    if not run:
        raise BadInput(f"{experiment.folder}: no arm has a result yet; run the experiment first")
    untrained = [arm["id"] for arm in experiment.design["arms"] if not arm.get("recipe")]
    found = Replicated({arm.id: arm.answers for arm in run}, fixed=untrained)
    notes = tuple(_notes(experiment, found))
    elsewhere = {arm for _, arms, _ in _ABLATIONS.values() for arm in arms if arm != "emit"}
    main = [arm for arm in run if arm.id not in elsewhere]
    tables = [_spread_table("comparison", _MAIN, main, (*SUBTASK_KEYS, AVERAGE), found, notes)]
    for name, (title, arms, metrics) in _ABLATIONS.items():
        rows = [arm for wanted in arms for arm in run if arm.id == wanted]
        if len(rows) > 1:
            tables.append(_spread_table(name, title, rows, metrics, found, notes))
    tables += [table for table in (_claims(experiment, found, notes), _by_seed(run, found, notes)) if table]
    if experiment.chances is not None:
        tables += _strata(experiment, run, found, notes)
    return tuple(tables)


def _notes(experiment: Experiment, found: Replicated) -> Iterator[str]:
    design = experiment.design
    benchmark, protocol = design["benchmark"], design["protocol"]
    yield WORLDS.get(benchmark["world"], benchmark["world"])
    yield (
        f"Benchmark {benchmark['name']} (sha256 {benchmark['digest'][:16]}), {len(found.panel.questions):,} "
        f"questions on {len(found.panel.dataset):,} images; protocol {protocol['name']} ({protocol['mode']}, "
        f"{protocol['shots']}-shot), sha256 {protocol['digest'][:16]}; scoring rule {found.panel.rule}."
    )
    short = [
        f"{a.title} {len(a.answers)} of {a.planned}" for a in experiment.arms if len(a.answers) < a.planned
    ]
    if short:
        yield f"Not finished: {', '.join(short)} seeds."


def _spread_table(
    name: str,
    title: str,
    arms: Sequence[ArmResult],
    metrics: Sequence[str],
    found: Replicated,
    notes: Sequence[str],
) -> Table:
    columns = [column for column in subtask_columns() if column.key in metrics]
    columns += [Column(AVERAGE, "Average")] if AVERAGE in metrics else []
    rows = [
        (
            Cell(arm.title),
            Cell(str(len(arm.answers)), len(arm.answers)),
            *(_spread_cell(found.spread(arm.id, column.key)) for column in columns),
        )
        for arm in arms
    ]
    return Table(name, title, (_ARM, _SEEDS, *columns), tuple(rows), tuple(notes))


def _spread_cell(spread: Spread) -> Cell:
    if np.isnan(spread.mean):
        return number(None)
    text = f"{spread.mean:.2f}"
    return Cell(text if spread.deviation is None else f"{text} \u00b1 {spread.deviation:.2f}", spread.mean)


def _claims(experiment: Experiment, found: Replicated, notes: Sequence[str]) -> Table | None:
    """The comparisons of the design: primary ones adjusted for each other, the others as they are."""
    titles = {arm.id: arm.title for arm in experiment.arms}
    claims = [claim for claim in experiment.design["comparisons"] if found.can_compare(*_sides(claim))]
    if not claims:
        return None
    measured = [found.difference(*_sides(claim), AVERAGE) for claim in claims]
    primary = [i for i, claim in enumerate(claims) if claim["primary"]]
    planned = sum(claim["primary"] for claim in experiment.design["comparisons"])
    adjusted = dict(zip(primary, holm_adjusted([measured[i] for i in primary], planned), strict=True))
    short = {arm.id for arm in experiment.arms if len(arm.answers) < arm.planned}
    columns = (
        Column("claim", "Claim", numeric=False),
        Column("pairs", "Seeds"),
        Column("delta", "Difference"),
        Column("interval", "95 % interval", numeric=False),
        Column("deviation", "s.d. over seeds"),
        Column("seeds", "p (seeds)"),
        Column("p", "p (seeds, images)"),
        Column("adjusted", "p (adj.)"),
        Column("verdict", "Verdict", numeric=False),
    )
    rows = []
    for i, (claim, one) in enumerate(zip(claims, measured, strict=True)):
        p = adjusted.get(i)
        rows.append(
            (
                Cell(f"{titles[claim['better']]} > {titles[claim['worse']]}"),
                *_difference_cells(one),
                number(one.p_seeds, 4),
                number(None if np.isnan(one.p_value) else one.p_value, 4),
                number(p, 4),
                Cell(_verdict(one, p) if not short & set(_sides(claim)) else "not finished"),
            )
        )
    explained = (
        "Differences of averages in points, paired by seed and question, with errors of seeds and images. "
        "Primary claims are adjusted for each other (Holm), those not run yet counted as not shown; a claim "
        "without an adjusted p is secondary: of many such, one in twenty is found where there is nothing."
    )
    return Table("claims", "What was claimed, and what was found", columns, tuple(rows), (explained, *notes))


def _difference_cells(one: SeedDifference) -> tuple[Cell, ...]:
    return (
        Cell(str(one.n), one.n),
        Cell(f"{one.delta:+.2f}", one.delta),
        Cell(_interval(one)),
        number(one.deviation),
    )


def _interval(one: SeedDifference) -> str:
    return DASH if np.isnan(one.low) else f"{one.low:+.2f} to {one.high:+.2f}"


def _sides(claim: Mapping[str, Any]) -> tuple[str, str]:
    return claim["better"], claim["worse"]


def _verdict(one: SeedDifference, adjusted: float | None, level: float = 0.05) -> str:
    """What a claim comes to; ``adjusted`` is None for a secondary one, which says so."""
    p = one.p_value if adjusted is None else adjusted
    if not p <= level:  # nor is what cannot be computed
        return "not shown"
    found = "holds" if one.delta > 0 else "the reverse holds"
    return found if adjusted is not None else f"{found} (unadjusted)"


def _by_seed(arms: Sequence[ArmResult], found: Replicated, notes: Sequence[str]) -> Table:
    """The average of every run: nothing is hidden behind a mean."""
    seeds = sorted({seed for arm in arms for seed in arm.answers})
    columns = (_ARM, *(Column(f"seed-{seed}", f"Seed {seed}") for seed in seeds), Column("median", "Median"))
    rows = []
    for arm in arms:
        values = dict(zip(found.seeds[arm.id], found.values(arm.id, AVERAGE), strict=True))
        cells = (number(float(values[seed]) if seed in values else None) for seed in seeds)
        middle = values[median_seed(values)]
        rows.append((Cell(arm.title), *cells, number(float(middle))))
    note = "The median is that of the run whose weights ship: the lower one of the two in the middle."
    return Table("seeds", "Average (%) of every run", columns, tuple(rows), (note, *notes))


def _strata(
    experiment: Experiment, arms: Sequence[ArmResult], found: Replicated, notes: Sequence[str]
) -> list[Table]:
    """Accuracy by how hard a question was before stage 2: where the mechanism must show if it is there."""
    places = stratum_of(experiment.chances or {}, found.panel.questions)
    titles = ["0", *(f"({low:g}, {high:g}]" for low, high in pairwise(STRATA))]
    columns = (
        _ARM,
        *(
            Column(f"stratum-{i}", f"{title} (n {int((places == i).sum()):,})", "Right before stage 2")
            for i, title in enumerate(titles)
        ),
    )
    rows = []
    for arm in arms:
        cells = []
        for i in range(len(titles)):
            values = found.in_stratum(arm.id, places == i)
            spread = Spread(
                float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None, len(values)
            )
            cells.append(_spread_cell(spread))
        rows.append((Cell(arm.title), *cells))
    strata: Mapping[str, Any] = experiment.design["strata"] or {}
    note = (
        f"Strata: the share of {strata.get('draws', DASH)} answers, drawn at temperature 1 from "
        f"{strata.get('arm', DASH)} with seed 0, that are right. Accuracy (%) over a stratum's "
        "questions. Luck in those draws is part of the choice: that very model is worse on the hard ones and "
        "better on the easy ones than on others like them. What says something is a difference of two arms "
        "that both began with it."
    )
    tables = [Table("strata", "Accuracy (%) by difficulty", columns, tuple(rows), (note, *notes))]
    gaps = _stratum_claims(experiment, found, places, titles, (note, *notes))
    return [*tables, gaps] if gaps else tables


def _stratum_claims(
    experiment: Experiment, found: Replicated, places: Any, titles: Sequence[str], notes: Sequence[str]
) -> Table | None:
    names = {arm.id: arm.title for arm in experiment.arms}
    columns = (
        Column("claim", "Claim", numeric=False),
        *(
            Column(f"stratum-{i}", title, "Right before stage 2", numeric=False)
            for i, title in enumerate(titles)
        ),
    )
    rows = []
    for claim in experiment.design["comparisons"]:
        better, worse = _sides(claim)
        if not found.can_compare(better, worse):
            continue
        cells = []
        for i in range(len(titles)):
            one = found.stratum_difference(better, worse, places == i)
            cells.append(Cell(f"{one.delta:+.2f} ({_interval(one)})" if one else DASH))
        rows.append((Cell(f"{names[better]} - {names[worse]}"), *cells))
    if not rows:
        return None
    return Table("strata-claims", "Differences (points) by difficulty", columns, tuple(rows), tuple(notes))


def write_experiment(
    experiment: Experiment, out: Path, renderers: Mapping[str, tuple[str, Any]]
) -> list[Path]:
    """Write every table in every format into ``out``; returns the files."""
    from harness.jsonfiles import write_text

    written = []
    for table in experiment_tables(experiment):
        for suffix, render in renderers.values():
            path = out / f"{table.name}{suffix}"
            write_text(path, render(table))
            written.append(path)
    return written


def put_into(experiment: Experiment, page: Path) -> None:
    """Renew the tables of a Markdown page: each stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises:
        BadInput: the page cannot be read, or names a table that the experiment does not have.
    """
    from harness.jsonfiles import write_text
    from reports.renderers import render_markdown

    tables = {table.name: table for table in experiment_tables(experiment)}
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{page}: it cannot be read ({error}); name a Markdown page") from error

    if not _MARKED.search(text):
        raise BadInput(f"{page}: it marks no place for a table; write <!-- table: NAME --> <!-- end -->")

    def renewed(match: re.Match[str]) -> str:
        if match[1] not in tables:
            raise BadInput(f"{page}: there is no table {match[1]!r}; use {', '.join(tables)}")
        return f"<!-- table: {match[1]} -->\n{render_markdown(tables[match[1]])}<!-- end -->"

    write_text(page, _MARKED.sub(renewed, text))
