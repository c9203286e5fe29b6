"""What a plant asks of an inspector: how many defects slip through, how many good parts are thrown away.

Accuracy hides both. Where a model gives log-probabilities of the options, the question whether there is a
defect has a score, its probability of "defect", and a threshold can be set as a plant sets one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from harness.averaging import Array
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

    def as_json(self) -> dict[str, Any]:
        """For ``--format json``."""
        return asdict(self)


def inspect(answers: Sequence[Answer], miss_rate: float = MISS_RATE) -> Inspection | None:
    """Measure a model where it gave log-probabilities of the options; None where it gave none.

    Args:
        answers: of one model.
        miss_rate: share of defects that may slip through.
    """
    told = [(answer, found) for answer in answers if (found := probabilities(answer)) is not None]
    if not told:
        return None
    scores: dict[bool, list[float]] = {True: [], False: []}
    for answer, found in told:
        letter = defect_letter(answer)
        if letter is not None:
            scores[is_normal(answer.key)].append(found[letter])
    normal, anomalous = (np.array(scores[kind]) for kind in (True, False))
    both = len(normal) > 0 and len(anomalous) > 0
    confidence = np.array([max(found.values()) for _, found in told])
    right = np.array([max(found, key=found.__getitem__) == answer.correct for answer, found in told], float)
    return Inspection(
        n_normal=len(normal),
        n_anomalous=len(anomalous),
        auroc=auroc(normal, anomalous) if both else None,
        miss_rate=miss_rate,
        overkill=overkill(normal, anomalous, miss_rate) if both else None,
        n=len(told),
        ece=calibration_error(confidence, right),
        brier=float(np.mean([_brier(found, answer.correct) for answer, found in told])),
    )


def probabilities(answer: Answer) -> Mapping[str, float] | None:
    """The options' probabilities, summing to 1; None without log-probabilities of at least two."""
    logs = {letter: v for letter, v in (answer.option_logprobs or {}).items() if not math.isnan(v)}
    if len(logs) < 2 or answer.correct not in logs:
        return None
    top = max(logs.values())
    if top == -math.inf:
        return None
    weights = {letter: math.exp(value - top) for letter, value in logs.items()}
    total = sum(weights.values())
    return {letter: weight / total for letter, weight in weights.items()}


def defect_letter(answer: Answer) -> str | None:
    """The option that says "there is a defect"; None where the question is another one, or has more options.

    It follows from the right answer and the image's condition, so that no wording is read.
    """
    letters = list(answer.option_logprobs or ())
    if answer.subtask != ANOMALY_DISCRIMINATION or len(letters) != 2:
        return None
    other = letters[1 - letters.index(answer.correct)]
    return other if is_normal(answer.key) else answer.correct


def auroc(normal: Array, anomalous: Array) -> float:
    """Chance that an anomalous image scores above a normal one, ties half (Mann and Whitney 1947).

    >>> auroc(np.array([0.1, 0.4]), np.array([0.4, 0.9]))
    0.875
    """
    u = stats.mannwhitneyu(anomalous, normal).statistic
    return float(u / (len(normal) * len(anomalous)))


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


def _brier(found: Mapping[str, float], correct: str) -> float:
    return sum((p - (letter == correct)) ** 2 for letter, p in found.items())
