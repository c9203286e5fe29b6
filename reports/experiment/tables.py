"""The paper's tables with their spread over seeds, and what became of each claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.averaging import AVERAGE
from harness.experiments import ArmResult
from harness.replication import SeedDifference, Spread, median_seed
from harness.sources import protocol_words
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION, SUBTASK_KEYS
from harness.text import p_value
from reports.experiment.findings import HARD, STRATUM_GROUP, STRATUM_TITLES, Findings, contrasts
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
CONTRAST = "contrast"
#: Every table that an experiment can have.
NAMES = ("comparison", *_ABLATIONS, "claims", CONTRAST, "seeds", "strata", "strata-claims", "training")
_MAIN = "Table 1: accuracy (%) by subtask, mean and s.d. over seeds"
_ARM = Column("arm", "Arm", numeric=False)
_SEEDS = Column("seeds", "Seeds")


def experiment_tables(findings: Findings, other: Findings | None = None) -> tuple[Table, ...]:
    """All tables of an experiment, as far as it has come.

    Args:
        findings: of the experiment.
        other: another one, whose differences are held against this one's.

    Raises:
        BadInput: the two cannot be held against each other.
    """
    notes = tuple(_notes(findings))
    by_id = {arm.id: arm for arm in findings.arms}
    ablated = {
        name: [by_id[arm] for arm in arms if arm in by_id] for name, (_, arms, _) in _ABLATIONS.items()
    }
    shown = {name: rows for name, rows in ablated.items() if len(rows) > 1}  # one row compares nothing
    elsewhere = {arm.id for rows in shown.values() for arm in rows} - {"emit"}
    main = [arm for arm in findings.arms if arm.id not in elsewhere]
    tables = [_spread_table("comparison", _MAIN, main, (*SUBTASK_KEYS, AVERAGE), findings, notes)]
    for name, rows in shown.items():
        title, _, metrics = _ABLATIONS[name]
        tables.append(_spread_table(name, title, rows, metrics, findings, notes))
    if findings.claims:
        tables.append(_claims(findings, notes))
    if other is not None:
        tables.append(_contrasts(findings, other))
    tables.append(_by_seed(findings, notes))
    if findings.strata is not None:
        tables += _strata(findings, notes)
    if (training := _training(findings, notes)) is not None:
        tables.append(training)
    told = _row_context(findings)
    return tuple(table if table.name == CONTRAST else replace(table, context=told) for table in tables)


def _notes(findings: Findings) -> Iterator[str]:
    benchmark, protocol = (findings.experiment.design[name] for name in ("benchmark", "protocol"))
    panel = findings.runs.panel
    yield WORLDS.get(benchmark["world"], benchmark["world"])
    yield (
        f"Benchmark {benchmark['name']} (sha256 {benchmark['digest'][:16]}), {len(panel.questions):,} "
        f"questions on {len(panel.dataset):,} images; {protocol_words(protocol)}; scoring rule {panel.rule}."
    )
    for arm in findings.arms:
        asked = next((r["protocol"] for r in arm.records.values() if "protocol" in r), protocol)
        if asked["digest"] != protocol["digest"]:
            yield f"{arm.title} is asked in its own way: {protocol_words({**protocol, **asked})}."
    if findings.unfinished:
        yield f"Not finished: {findings.unfinished} seeds."


def _row_context(findings: Findings) -> dict[str, str]:
    """What a CSV file says of every row; the protocol where all arms are asked alike."""
    benchmark, protocol = (findings.experiment.design[name] for name in ("benchmark", "protocol"))
    records = [record for arm in findings.arms for record in arm.records.values()]
    alike = all(r.get("protocol", protocol)["digest"] == protocol["digest"] for r in records)
    return {
        "World": benchmark["world"],
        "Benchmark": f"{benchmark['name']} {benchmark['digest'][:16]}",
        "Protocol": f"{protocol['name']} {protocol['digest'][:16]}" if alike else "",
        "Rule": findings.runs.panel.rule,
        "Questions": str(len(findings.runs.panel.questions)),
    }


def _spread_table(
    name: str,
    title: str,
    arms: Sequence[ArmResult],
    metrics: Sequence[str],
    findings: Findings,
    notes: Sequence[str],
) -> Table:
    columns = [column for column in subtask_columns() if column.key in metrics]
    columns += [Column(AVERAGE, "Average")] if AVERAGE in metrics else []
    rows = [
        (
            Cell(arm.title),
            Cell(str(len(arm.answers)), len(arm.answers)),
            *(_spread_cell(findings.runs.spread(arm.id, column.key)) for column in columns),
        )
        for arm in arms
    ]
    return Table(name, title, (_ARM, _SEEDS, *columns), tuple(rows), tuple(notes))


def _spread_cell(spread: Spread) -> Cell:
    if np.isnan(spread.mean):
        return number(None)
    text = f"{spread.mean:.2f}"
    shown = text if spread.deviation is None else f"{text} \u00b1 {spread.deviation:.2f}"
    return Cell(shown, spread.mean, deviation=spread.deviation)


def _claims(findings: Findings, notes: Sequence[str]) -> Table:
    columns = (
        Column("claim", "Claim", numeric=False),
        Column("pairs", "Seeds"),
        Column("delta", "Difference", short="Diff."),
        Column("interval", "95 % interval", numeric=False),
        Column("deviation", "s.d. over seeds", short="s.d."),
        Column("seeds", "p (seeds)"),
        Column("p", "p (seeds, images)", short="p (both)"),
        Column("adjusted", "p (adj.)"),
        Column("verdict", "Verdict", numeric=False),
    )
    rows = tuple(
        (
            Cell(claim.title),
            *_difference_cells(claim.found),
            *map(_p_cell, (claim.found.p_seeds, claim.found.p_value, claim.adjusted)),
            Cell(claim.verdict),
        )
        for claim in findings.claims
    )
    explained = (
        "Differences of averages in points, paired by seed and question, with errors of seeds and images: "
        "they tell what other seeds and other pictures of these products would give. Primary claims are "
        "adjusted for each other (Holm), those not finished counted as not shown; a claim without an "
        "adjusted p is secondary: its own p decides, and of many such, one in twenty is found where there is "
        "nothing. Only seeds that both arms have are compared. The p over seeds alone is a t-test's. The one "
        "over both takes part of its certainty from the many images (Satterthwaite's degrees of freedom) and "
        "can be the smaller one; at three seeds it errs up to 8 times in 100, not 5."
    )
    return Table("claims", "What was claimed, and what was found", columns, rows, (explained, *notes))


def _p_cell(p: float | None) -> Cell:
    return number(None) if p is None or np.isnan(p) else Cell(p_value(p), p)


def _difference_cells(one: SeedDifference) -> tuple[Cell, ...]:
    return (
        Cell(str(one.n), one.n),
        Cell(f"{one.delta:+.2f}", one.delta, _known(one.low, one.high)),
        Cell(_ends(one.low, one.high)),
        number(one.deviation),
    )


def _known(low: float, high: float) -> tuple[float, float] | None:
    """An interval, where there is one."""
    return None if np.isnan(low) else (low, high)


def _ends(low: float, high: float) -> str:
    return DASH if np.isnan(low) else f"{low:+.2f} to {high:+.2f}"


def _contrasts(here: Findings, there: Findings) -> Table:
    """Is what was found in one world larger than in another?"""
    names = [str(one.experiment.design["name"]) for one in (here, there)]
    columns = (
        Column("difference", "Difference", numeric=False),
        Column("here", names[0]),
        Column("there", names[1]),
        Column("contrast", f"{names[0]} minus {names[1]}"),
        Column("interval", "95 % interval", numeric=False),
        Column("p", "p"),
        Column("verdict", "Verdict", numeric=False),
    )
    rows = []
    for one in contrasts(here, there):
        delta, low, high, p = one.values
        rows.append(
            (
                Cell(_as_difference(one.here.title)),
                *(Cell(f"{claim.found.delta:+.2f}", claim.found.delta) for claim in (one.here, one.there)),
                Cell(f"{delta:+.2f}", delta, _known(low, high)),
                Cell(_ends(low, high)),
                _p_cell(p),
                Cell(one.verdict),
            )
        )
    explained = (
        "Differences of averages in points. Their contrast has the errors of both experiments, over seeds "
        "and over images; p is two-sided and not adjusted. Experiments that begin with one base share its "
        "luck: the contrast is one for that base."
    )
    return Table(
        CONTRAST,
        f"Differences in {names[0]} and in {names[1]}",
        columns,
        tuple(rows),
        (explained, *_notes(here), *_notes(there)),
    )


def _as_difference(claim: str) -> str:
    return claim.replace(" > ", " - ")


def _by_seed(findings: Findings, notes: Sequence[str]) -> Table:
    """The average of every run: nothing is hidden behind a mean."""
    arms, found = findings.arms, findings.runs
    seeds = sorted({seed for arm in arms for seed in arm.answers})
    columns = (_ARM, *(Column(f"seed-{seed}", f"Seed {seed}") for seed in seeds), Column("median", "Median"))
    rows = []
    for arm in arms:
        values = dict(zip(found.seeds[arm.id], found.values(arm.id, AVERAGE), strict=True))
        cells = (number(float(values[seed]) if seed in values else None) for seed in seeds)
        middle = values[median_seed(values)]
        rows.append((Cell(arm.title), *cells, number(float(middle))))
    note = "The median is that of the run whose weights ship: the lower one of the two in the middle."
    return Table("seeds", "Average (%) of every run", columns, tuple(rows), (note, *_makers(arms), *notes))


def _makers(arms: Sequence[ArmResult]) -> Iterator[str]:
    """Versions and threads of those runs whose records tell: where several made them, that is said."""
    machines = [record["machine"] for arm in arms for record in arm.records.values() if "machine" in record]
    for name, words in (("emit-bench", "versions of emit-bench"), ("threads", "numbers of threads")):
        found = sorted({str(machine[name]) for machine in machines if name in machine})
        if len(found) > 1:
            yield f"Runs were made by several {words}: {', '.join(found)}."


def _strata(findings: Findings, notes: Sequence[str]) -> list[Table]:
    """Accuracy by how hard a question was before stage 2: where the mechanism must show if it is there."""
    columns = (
        _ARM,
        *(
            Column(f"stratum-{i}", f"{title} (n {int(findings.within(i).sum()):,})", STRATUM_GROUP)
            for i, title in enumerate(STRATUM_TITLES)
        ),
    )
    rows = []
    for arm in findings.arms:
        values = (findings.runs.in_stratum(arm.id, findings.within(i)) for i in range(len(STRATUM_TITLES)))
        rows.append((Cell(arm.title), *(_spread_cell(Spread.of(one)) for one in values)))
    strata = findings.experiment.design.get("strata") or {}
    note = (
        f"Strata: the share of {strata.get('draws', DASH)} answers, drawn at temperature 1 from "
        f"{strata.get('arm', DASH)} with seed 0, that are right. Accuracy (%) over a stratum's "
        "questions. Luck in those draws is part of the choice: every model of stage 1 is worse on the hard "
        "ones and better on the easy ones than on others like them, and what is trained further is drawn "
        "back. What says something is a difference of two arms that both began with that stage 1."
    )
    tables = [Table("strata", "Accuracy (%) by difficulty", columns, tuple(rows), (note, *notes))]
    if findings.strata_claims:
        tables.append(_stratum_claims(findings, (note, *notes)))
    return tables


def _stratum_claims(findings: Findings, notes: Sequence[str]) -> Table:
    columns = (
        Column("claim", "Claim", numeric=False),
        *(
            Column(f"stratum-{i}", title, STRATUM_GROUP, numeric=False)
            for i, title in enumerate(STRATUM_TITLES)
        ),
        *(
            Column(f"contrast-{i}", f"{STRATUM_TITLES[i]} minus {STRATUM_TITLES[-1]}", numeric=False)
            for i in HARD
        ),
    )
    rows = []
    for claim in findings.strata_claims:
        found = (*findings.in_strata(claim), *findings.hard_minus_easy(claim))
        title = _as_difference(claim.title) + ("" if claim.finished else " (not finished)")
        rows.append((Cell(title), *map(_whole_cell, found)))
    explained = (
        "Claims between arms whose seeds began with the stage 1 of the model that drew, seed by seed; in "
        "points, with 95 % intervals over seeds and images, not adjusted. The last columns: is the "
        "difference larger where questions were hard than where they were easy? Seeds that gain there lose "
        "here, so this has an error of its own."
    )
    return Table(
        "strata-claims", "Differences (points) by difficulty", columns, tuple(rows), (explained, *notes)
    )


def _whole_cell(one: SeedDifference | None) -> Cell:
    """A difference and its interval in one cell."""
    if one is None:
        return Cell(DASH)
    shown = f"{one.delta:+.2f} ({_ends(one.low, one.high)})"
    return Cell(shown, one.delta, _known(one.low, one.high))


def _training(findings: Findings, notes: Sequence[str]) -> Table | None:
    """What GRPO had to learn from: a group whose responses are all right, or all wrong, teaches nothing."""
    rows = []
    for arm in findings.arms:
        stages = (record.get("learning", {}).get("grpo", {}) for record in arm.records.values())
        found = [shares for stage in stages if (shares := _shares(stage.get("mean", {})))]
        if found:
            means = np.mean(found, axis=0)
            cells = (number(float(value), 2 if i == len(means) - 1 else 1) for i, value in enumerate(means))
            rows.append((Cell(arm.title), Cell(str(len(found)), len(found)), *cells))
    if not rows:
        return None
    columns = (
        _ARM,
        _SEEDS,
        Column("none", "None right at first (%)"),
        Column("unsolved", "None right at last (%)"),
        Column("all", "All right at first (%)"),
        Column("constant", "Groups of one reward (%)"),
        Column("draws", "Draws a question"),
    )
    note = (
        "Of the questions of stage 2: those with no right response in the first group drawn, those with none "
        "after all draws, and those with right ones alone in the first; of the groups learnt from, those of "
        "one reward, which move nothing but the KL term; over all steps and seeds whose record tells."
    )
    return Table("training", "What stage 2 learnt from", columns, tuple(rows), (note, *notes))


def _shares(mean: Mapping[str, float]) -> tuple[float, ...]:
    """What the means of a step tell of its questions and draws; empty where they do not, or in part only.

    Percent of questions without a right response at first and at last, and with right ones alone at first;
    percent of groups of one reward; draws a question.

    >>> step = {"p0/2": 4, "p1/2": 4, "p2/2": 2, "groups": 9, "constant_groups": 2}
    >>> step |= {"draws": 17, "drawn_p0/2": 8}  # seven further draws, four of them in vain: three were solved
    >>> [round(share, 1) for share in _shares(step)]
    [40.0, 10.0, 20.0, 22.2, 1.7]
    """
    size = next((name.partition("/")[2] for name in mean if name.startswith("p0/")), "")
    if not size:
        return ()
    rights = [f"p{right}/{size}" for right in range(int(size) + 1)]
    needed = {*rights, f"drawn_p0/{size}", "draws", "groups", "constant_groups"}
    if needed - mean.keys() or not mean["groups"]:
        return ()
    questions = sum(mean[name] for name in rights)
    first, more = mean[f"p0/{size}"], mean["draws"] - questions
    solved = more - (mean[f"drawn_p0/{size}"] - first)  # drawing goes on until a response is right
    counted = (first, first - solved, mean[f"p{size}/{size}"])
    of_groups = 100 * mean["constant_groups"] / mean["groups"]
    return *(100 * count / questions for count in counted), of_groups, mean["draws"] / questions
