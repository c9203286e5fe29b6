"""Where a model is weak: accuracy by dataset, product, kind and area of the defect, size of the image.

Every group is scored as a dataset is, by the one rule of averaging, so that the rows by dataset are those of
the tables. Intervals take questions for independent; the tables' intervals do not, and are a little wider.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.averaging import (
    ANOMALY_ACCURACY,
    AVERAGE,
    COLUMNS,
    COUNTED,
    NORMAL_ACCURACY,
    Array,
    Rule,
    averaged,
    mean,
)  # fmt: skip
from harness.scoring import columns_of
from harness.statistics import wilson
from harness.subtasks import ANOMALY_DISCRIMINATION, SUBTASK_KEYS
from reports.explorer.catalogue import NOT_ASKED, RIGHT, WRONG, Catalogue
from reports.explorer.groups import Dimension

METRICS = (AVERAGE, *SUBTASK_KEYS)
_PLACES = {name: place for place, name in enumerate(COUNTED)}


def drill(catalogue: Catalogue, dimensions: Sequence[Dimension], rule: Rule) -> list[dict[str, Any]]:
    """Scores of every entry by the groups of each dimension.

    Returns:
        For each dimension its ``key`` and ``scores``: for each of :data:`METRICS` a list over entries of a
        list over groups of ``[percent, low, high, questions]``, or None where nothing was asked.
    """
    cells = [
        (row, _PLACES[name])
        for row, question in enumerate(catalogue.questions)
        for name in columns_of(question)
    ]
    tallies = [_Tally(np.array(cells), states) for states in catalogue.states]
    images = np.array(catalogue.image_of)
    described = []
    for dimension in dimensions:
        place = np.array([-1 if g is None else g for g in dimension.group])[images]
        entries = [_scores(tally.counts(place, len(dimension.labels)), rule) for tally in tallies]
        described.append(
            {
                "key": dimension.key,
                "scores": {metric: [entry[i] for entry in entries] for i, metric in enumerate(METRICS)},
            }
        )
    return described


class _Tally:
    """One entry's questions as arrays: what became of each, in every column that it counts in.

    Args:
        cells: ``(N, 2)`` question and column.
        states: of each question.
    """

    def __init__(self, cells: NDArray[np.intp], states: str) -> None:
        self.row, self.column = cells.T
        codes = np.array(list(states))[self.row]
        self.weights = (codes != NOT_ASKED, (codes == RIGHT) | (codes == WRONG), codes == RIGHT)

    def counts(self, place: NDArray[np.intp], groups: int) -> Array:
        """Asked, answered and correct ``(3, groups, 9)`` when question i is in group ``place[i]``."""
        width = len(COUNTED)
        group = place[self.row]
        inside = group >= 0
        cells = group[inside] * width + self.column[inside]
        sums = [np.bincount(cells, weight[inside], groups * width) for weight in self.weights]
        return np.array(sums, float).reshape(3, groups, width)


def _scores(counts: Array, rule: Rule) -> list[list[list[float] | None]]:
    """For each metric, for each group: percent, bounds and number of questions."""
    asked, answered, correct = counts
    percent = averaged(asked, answered, correct, rule)[:-1]
    low, high = intervals(asked, answered, correct, rule)
    found = []
    for metric in METRICS:
        at = COLUMNS.index(metric)
        questions = asked[:, : len(SUBTASK_KEYS)].sum(1) if metric == AVERAGE else asked[:, _PLACES[metric]]
        rows = np.stack([percent[:, at], low[:, at], high[:, at], questions], 1)
        found.append([None if np.isnan(row[0]) else [round(float(v), 2) for v in row] for row in rows])
    return found


def intervals(asked: Array, answered: Array, correct: Array, rule: Rule) -> tuple[Array, Array]:
    """Bounds of every score in percent: Wilson's for a proportion; means square and add those of their parts.

    The bounds of a mean are at the distance that Zou and Donner (2008, Statistics in Medicine 27) give for
    independent parts.

    Args:
        asked: ``(groups, 9)`` questions in the order of :data:`~harness.averaging.COUNTED`.
        answered: of these, the ones with a letter.
        correct: of these, the right ones.
        rule: of averaging.

    Returns:
        Lower and upper bounds ``(groups, 10)`` in the order of :data:`~harness.averaging.COLUMNS`.
    """
    trials = answered if rule == "official" else asked
    cells = np.array(
        [
            [_proportion(c, n, a) for c, n, a in zip(*rows, strict=True)]
            for rows in zip(correct, trials, asked, strict=True)
        ]
    ).reshape(len(asked), len(COUNTED), 3)
    halves = [_PLACES[NORMAL_ACCURACY], _PLACES[ANOMALY_ACCURACY]]
    if rule != "pooled":
        cells[:, _PLACES[ANOMALY_DISCRIMINATION]] = _mean(cells[:, halves])
    subtasks = cells[:, : len(SUBTASK_KEYS)]
    rows = np.concatenate([subtasks, _mean(subtasks)[:, None], cells[:, halves]], 1)
    return 100 * rows[..., 1], 100 * rows[..., 2]


def _proportion(correct: float, trials: float, asked: float) -> tuple[float, float, float]:
    """Share with its bounds; a cell that was asked but not answered counts 0, and may be anything."""
    if not asked:
        return (np.nan,) * 3
    if not trials:
        return 0.0, 0.0, 1.0
    return (correct / trials, *_wilson(correct / trials, trials))


_wilson: Callable[[float, float], tuple[float, float]] = lru_cache(maxsize=None)(wilson)


def _mean(parts: Array) -> Array:
    """Mean ``(groups, 3)`` of parts ``(groups, parts, 3)`` with bounds; absent parts are left out."""
    share, low, high = np.moveaxis(parts, -1, 0)
    size = np.maximum((~np.isnan(share)).sum(1), 1)
    middle = mean(share)
    below = np.sqrt(np.nansum((share - low) ** 2, 1)) / size
    above = np.sqrt(np.nansum((high - share) ** 2, 1)) / size
    return np.stack([middle, np.maximum(middle - below, 0), np.minimum(middle + above, 1)], -1)
