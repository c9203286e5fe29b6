"""The one rule of averaging, on arrays: of one table, or of ten thousand resampled ones at once.

Counts go in with one entry for each dataset and each of :data:`COUNTED`; percentages come out with one row a
dataset and a last one for the average, and one entry for each of :data:`harness.scoring.COLUMNS`. NaN stands
where nothing was asked.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from harness.subtasks import ANOMALY_DISCRIMINATION, SUBTASK_KEYS, SUBTASKS

Rule = Literal["official", "strict", "pooled"]
RULES: tuple[Rule, ...] = get_args(Rule)
AVERAGE = "average"
#: A score -> what it is called in a line of its own.
TITLES = {subtask.key: f"{subtask.group} {subtask.title}" for subtask in SUBTASKS} | {AVERAGE: "Average"}
NORMAL_ACCURACY = "normal_accuracy"
ANOMALY_ACCURACY = "anomaly_accuracy"
#: What is counted: the subtasks, and Anomaly Discrimination once more by what the image shows.
COUNTED = (*SUBTASK_KEYS, NORMAL_ACCURACY, ANOMALY_ACCURACY)
#: What a row holds, in order.
COLUMNS = (*SUBTASK_KEYS, AVERAGE, NORMAL_ACCURACY, ANOMALY_ACCURACY)
COUNTED_WIDTH = len(COUNTED)

Array: TypeAlias = NDArray[np.float64]
_SUBTASKS = len(SUBTASK_KEYS)
_BALANCED = SUBTASK_KEYS.index(ANOMALY_DISCRIMINATION)


def averaged(asked: Array, answered: Array, correct: Array, rule: Rule) -> Array:
    """Percentages of every dataset and of their average.

    Args:
        asked: ``(..., datasets, 9)`` questions, in the order of :data:`COUNTED`.
        answered: of these, the ones with a letter from A to E; same shape.
        correct: of these, the right ones; same shape.
        rule: see :mod:`harness.scoring`.

    Returns:
        ``(..., datasets + 1, 10)`` in the order of :data:`COLUMNS`.
    """
    percent = _percent(asked, answered, correct, rule)
    if rule == "pooled":
        total = [part.sum(-2, keepdims=True) for part in (asked, answered, correct)]
        percent = np.concatenate([percent, _percent(total[0], total[1], total[2], rule)], -2)
        return _row(percent)
    percent[..., _BALANCED] = mean(percent[..., _SUBTASKS:])
    rows = _row(percent)
    return np.concatenate([rows, mean(np.swapaxes(rows, -1, -2))[..., None, :]], -2)


def linear(cells: Array, present: NDArray[np.bool_], rule: Rule) -> Array:
    """The last row of :func:`averaged` for parts of accuracies: averaging is linear once counts are shares.

    Args:
        cells: ``(..., datasets, 9)`` parts of each cell; for ``pooled``, all of them at the first dataset.
        present: ``(datasets, 9)`` cells that were asked about.
        rule: see :mod:`harness.scoring`.

    Returns:
        ``(..., 10)``; 0 where no cell is present.
    """
    parts = np.where(present, cells, np.nan)
    if rule == "pooled":
        found = _row(parts)[..., 0, :]
    else:
        parts[..., _BALANCED] = mean(parts[..., _SUBTASKS:])
        found = mean(np.swapaxes(_row(parts), -1, -2))
    return np.nan_to_num(found)


def mean(values: Array) -> Array:
    """The plain mean over the last axis of what is there; NaN where nothing is."""
    with absent_is_nan():
        found: Array = np.nanmean(values, -1)
    return found


@contextlib.contextmanager
def absent_is_nan() -> Iterator[None]:
    """Without numpy's warnings that a slice is all NaN: here it is a cell that nobody asked about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _percent(asked: Array, answered: Array, correct: Array, rule: Rule) -> Array:
    """Accuracy; 0 where nothing asked was answered, as in the published scorers."""
    of = answered if rule == "official" else asked
    found = 100 * correct / np.where(of > 0, of, 1)
    return np.where(asked > 0, found, np.nan)


def _row(percent: Array) -> Array:
    """Put the average of the subtasks between them and the two halves of Anomaly Discrimination."""
    subtasks, halves = percent[..., :_SUBTASKS], percent[..., _SUBTASKS:]
    return np.concatenate([subtasks, mean(subtasks)[..., None], halves], -1)
