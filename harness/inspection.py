"""What a plant asks of an inspector: how many defects slip through, how many good parts are thrown away.

Accuracy hides both. Where a model gives log-probabilities of the options, the question whether there is a
defect has a score, its probability of "defect", and a threshold can be set as a plant sets one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.averaging import Array
from harness.columns import values_of
from harness.records import Answer, is_normal
from harness.subtasks import ANOMALY_DISCRIMINATION

MISS_RATE = 0.05
BINS = 10


@dataclass(frozen=True, slots=True)
class Inspection:
    """One model as an inspector and as a forecaster. Shares and probabilities are 0 to 1."""

    n_normal: int  #: questions whether there is a defect, on normal images
    n_anomalous: int  #: the same on anomalous images
    auroc: float | None  #: of the probability of "defect"; None without images of either kind
    miss_rate: float  #: share of anomalous images that may be called normal
    overkill: float | None  #: share of normal images called defective at the threshold of that miss rate
    n: int  #: questions with log-probabilities, of all subtasks
    ece: float  #: expected calibration error of the chosen option, in ten bins of equal width
    brier: float  #: mean squared error of the options' probabilities, summed over options: 0 to 2

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        parts = []
        if self.auroc is not None and self.overkill is not None:
            parts.append(
                f"defect or not: AUROC {self.auroc:.3f}, overkill {100 * self.overkill:.1f} % of normal "
                f"images where {100 * self.miss_rate:g} % of the anomalous may slip through"
            )
        parts.append(
            f"calibration over {self.n:,} questions: ECE {self.ece:.3f}, Brier score {self.brier:.3f}"
        )
        return f"By option probabilities: {'; '.join(parts)}."

    def as_json(self) -> dict[str, Any]:
        """For ``--format json``."""
        return asdict(self)


def inspect(answers: Sequence[Answer], miss_rate: float = MISS_RATE) -> Inspection | None:
    """Measure a model where it gave log-probabilities of the options; None where it gave none.

    Args:
        answers: of one model.
        miss_rate: share of defects that may slip through.
    """
    logs = values_of(answers, "option_logprobs")
    chances, places = probabilities(logs, values_of(answers, "correct"))
    known = places >= 0
    if not known.any():
        return None
    chances, places = chances[known], places[known]
    correct = chances[np.arange(len(places)), places]
    asked = zip(values_of(answers, "subtask"), logs, strict=True)
    # Between defect and none, as two options are.
    about = np.array([name == ANOMALY_DISCRIMINATION and len(told or ()) == 2 for name, told in asked])[known]
    good = np.array([is_normal(key) for key in values_of(answers, "key")])[known]
    # The option that says "defect" follows from the right answer and the image, so no wording is read.
    defect = np.where(good, 1 - correct, correct)
    normal, anomalous = defect[about & good], defect[about & ~good]
    both = len(normal) > 0 and len(anomalous) > 0
    return Inspection(
        n_normal=len(normal),
        n_anomalous=len(anomalous),
        auroc=auroc(normal, anomalous) if both else None,
        miss_rate=miss_rate,
        overkill=overkill(normal, anomalous, miss_rate) if both else None,
        n=len(places),
        ece=calibration_error(chances.max(1), (chances.argmax(1) == places).astype(float)),
        # The sum over the options of (p - 1 if right)^2.
        brier=float(np.mean((chances**2).sum(1) - 2 * correct + 1)),
    )


def probabilities(
    logprobs: Sequence[Mapping[str, float] | None], correct: Sequence[str]
) -> tuple[Array, NDArray[np.intp]]:
    """Options' log-probabilities as probabilities that sum to 1.

    Args:
        logprobs: letter -> log-probability, of each question; one that is no number counts as if it were not
            there.
        correct: letter of the right option.

    Returns:
        ``(n, K)`` a probability an option in the order given, 0 behind the last; and ``(n,)`` the position of
        the right one, -1 where less than two options, or not the right one, or only zeros are told.
    """
    logs = [found or {} for found in logprobs]
    lengths = np.array([len(found) for found in logs], int)
    values = np.full((len(logs), max(lengths, default=0) or 1), np.nan)
    inside = np.arange(values.shape[1]) < lengths[:, None]
    values[inside] = np.fromiter(chain.from_iterable(found.values() for found in logs), float)
    told = ~np.isnan(values)
    values[~told] = -np.inf
    with np.errstate(invalid="ignore"):
        weights = np.exp(values - values.max(1, keepdims=True))
        chances = weights / weights.sum(1, keepdims=True)
    letters = zip(map(tuple, logs), correct, strict=True)
    places = np.fromiter(map(_Places().__getitem__, letters), np.intp, len(logs))
    right_told = told[np.arange(len(places)), np.maximum(places, 0)]
    unknown = ~right_told | (told.sum(1) < 2) | np.isnan(chances).any(1)
    return chances, np.where(unknown, -1, places)


class _Places(dict[tuple[tuple[str, ...], str], int]):
    """(Letters with log-probabilities, the right one) -> its position among them, or -1."""

    def __missing__(self, key: tuple[tuple[str, ...], str]) -> int:
        letters, correct = key
        found = self[key] = letters.index(correct) if correct in letters else -1
        return found


def auroc(normal: Array, anomalous: Array) -> float:
    """Chance that an anomalous image scores above a normal one, ties half (Mann and Whitney 1947).

    >>> auroc(np.array([0.1, 0.4]), np.array([0.4, 0.9]))
    0.875
    """
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, "left") + np.searchsorted(ordered, anomalous, "right")
    return float(below.mean() / (2 * len(normal)))


def overkill(normal: Array, anomalous: Array, miss_rate: float = MISS_RATE) -> float:
    """Share of normal images called defective when at most ``miss_rate`` of the anomalous are not.

    An image is called defective when its score is at least the threshold: the highest that misses no more.

    >>> overkill(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.25, 0.8, 0.9, 0.95]), 0.25)
    0.25
    """
    allowed = math.floor(miss_rate * len(anomalous) + 1e-9)
    threshold = np.sort(anomalous)[min(allowed, len(anomalous) - 1)]
    return float(np.mean(normal >= threshold))


def calibration_error(confidence: Array, right: Array, bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015): mean gap of confidence and accuracy, weighted by bin.

    >>> round(calibration_error(np.array([0.8, 0.8, 0.8, 0.8, 0.8]), np.array([1, 1, 1, 1, 0.0])), 9)
    0.0
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float((confidence[place == i] - right[place == i]).sum()))
        for i in range(bins)
        if (place == i).any()
    ]
    return sum(gaps) / len(confidence)
