"""Scores with their intervals: how much a table's number would move with other images of the same kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.averaging import ANOMALY_ACCURACY, AVERAGE, COLUMNS, COUNTED, NORMAL_ACCURACY, Array, Rule, mean
from harness.panel import Cluster, Panel
from harness.records import Answer
from harness.statistics import (
    cluster_weights,
    effective_size,
    percentile_interval,
    standard_error,
    wilson,
)
from harness.subtasks import ANOMALY_DISCRIMINATION, SUBTASK_KEYS

RESAMPLES = 10_000
_HALVES = (NORMAL_ACCURACY, ANOMALY_ACCURACY)
_PLACES = {column: place for place, column in enumerate(COLUMNS)}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score in percent with its interval."""

    value: float
    low: float
    high: float
    n: int  #: questions
    clusters: int  #: images (or products) that they are about


@dataclass(frozen=True, slots=True)
class Estimates:
    """One model's table with intervals."""

    confidence: float
    rows: Mapping[str, Mapping[str, Estimate | None]]  #: dataset or ``average`` -> column -> estimate

    def as_json(self) -> dict[str, dict[str, list[float] | None]]:
        """Row -> column -> both bounds, for ``--format json``."""
        return {
            name: {column: [found.low, found.high] if found else None for column, found in row.items()}
            for name, row in self.rows.items()
        }


def estimate(
    answers: Mapping[str, Sequence[Answer]],
    rule: Rule = "official",
    *,
    cluster: Cluster = "image",
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Estimates]:
    """Scores of several models with intervals.

    A plain proportion has Wilson's interval for the effective number of questions. A mean of several has the
    percentile interval of the bootstrap over clusters (:func:`harness.statistics.cluster_weights`); where
    nothing varies (all right, or all wrong) it is the mean of its parts' intervals.

    Args:
        answers: model -> its answers; the models may have been asked different questions.
        rule: of averaging.
        cluster: what is drawn as a whole.
        resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the draws.

    Raises:
        BadInput: there are no answers, or the rule or cluster is unknown.
    """
    alike: dict[frozenset[tuple[str, int]], dict[str, Sequence[Answer]]] = {}
    for model, given in answers.items():
        alike.setdefault(frozenset((a.key, a.number) for a in given), {})[model] = given
    found: dict[str, Estimates] = {}
    for group in alike.values():
        panel = Panel(group, rule, cluster)
        found |= estimates_of(panel, bootstrap(panel, resamples, seed), confidence)
    return {model: found[model] for model in answers}


def estimates_of(panel: Panel, replicates: Array, confidence: float = 0.95) -> dict[str, Estimates]:
    """:func:`estimate` of a panel whose bootstrap is at hand already."""
    return {
        model: _of_model(panel, place, replicates[:, place], confidence)
        for place, model in enumerate(panel.models)
    }


def bootstrap(panel: Panel, resamples: int, seed: int) -> Array:
    """Resampled tables ``(resamples, M, D + 1, 10)``; all models see the same resamples."""
    weights = cluster_weights(panel.strata, resamples, np.random.default_rng(seed))
    return np.concatenate(list(panel.weighted(weights)))


def _of_model(panel: Panel, place: int, replicates: Array, confidence: float) -> Estimates:
    values = panel.percentages()[place]
    deviation = standard_error(replicates)
    bounds = np.stack(percentile_interval(replicates, confidence, panel.freedom), -1)
    asked, clusters = _sizes(panel)
    answered = _sums(panel, panel.answered[place])
    for line, column in _plain_cells(panel):
        counted = COUNTED.index(column)
        trials = answered[line, counted] if panel.rule == "official" else asked[line, counted]
        if trials:
            at = line, _PLACES[column]
            share = values[at] / 100
            effective = effective_size(share, deviation[at] / 100, int(trials), int(clusters[line, counted]))
            bounds[at] = [100 * bound for bound in wilson(share, effective, confidence)]
    _fill_constant(bounds, deviation, panel)
    rows: dict[str, dict[str, Estimate | None]] = {}
    for row, name in enumerate((*panel.datasets, AVERAGE)):
        rows[name] = {}
        for column, spot in _PLACES.items():
            present = not np.isnan(values[row, spot])
            n_questions, n_clusters = _size_of(column, asked[row], clusters[row])
            low, high = map(float, bounds[row, spot])
            found = Estimate(float(values[row, spot]), low, high, n_questions, n_clusters)
            rows[name][column] = found if present else None
    return Estimates(confidence, rows)


def _plain_cells(panel: Panel) -> list[tuple[int, str]]:
    """Row and column of every cell that is one proportion and no mean of several."""
    last = len(panel.datasets)
    rows = [*range(last), *([last] if panel.rule == "pooled" else [])]
    balanced = set() if panel.rule == "pooled" else {ANOMALY_DISCRIMINATION}
    return [(row, column) for row in rows for column in COUNTED if column not in balanced]


def _fill_constant(bounds: Array, deviation: Array, panel: Panel) -> None:
    """Means that no resample moves get the mean of their parts' bounds; one dataset is its own average."""
    last = len(panel.datasets)
    for row in range(last if panel.rule != "pooled" else last + 1):
        for column, parts in ((ANOMALY_DISCRIMINATION, _HALVES), (AVERAGE, SUBTASK_KEYS)):
            at = row, _PLACES[column]
            plain = panel.rule == "pooled" and column == ANOMALY_DISCRIMINATION
            if deviation[at] == 0 and not plain:
                bounds[at] = mean(np.transpose([bounds[row, _PLACES[part]] for part in parts]))
    if panel.rule == "pooled":
        return
    constant = deviation[last] == 0
    bounds[last, constant] = mean(np.moveaxis(bounds[:last, constant], 0, -1))
    if last == 1:
        bounds[last] = bounds[0]


def _sums(panel: Panel, counts: Array) -> Array:
    """Sums ``(D + 1, 9)`` of ``(C, 9)``, the last row over all datasets."""
    sums = panel.by_dataset(np.ones((1, len(counts))), counts)[0]
    return np.concatenate([sums, sums.sum(0, keepdims=True)])


def _sizes(panel: Panel) -> tuple[Array, Array]:
    """Questions ``(D + 1, 9)`` of every cell; clusters ``(D + 1, 10)``, the last column for any question."""
    touched = np.concatenate([panel.asked, panel.asked.sum(1, keepdims=True)], 1) > 0
    return _sums(panel, panel.asked), _sums(panel, touched.astype(float))


def _size_of(column: str, asked: Array, clusters: Array) -> tuple[int, int]:
    """Questions and clusters behind a cell; behind an average stand all of them."""
    if column == AVERAGE:
        return int(asked[: len(SUBTASK_KEYS)].sum()), int(clusters[-1])
    return int(asked[COUNTED.index(column)]), int(clusters[COUNTED.index(column)])
