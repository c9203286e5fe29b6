from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.columns import values_of
from harness.inspection import auroc, calibration_error, inspect, overkill, probabilities
from harness.records import Answer, Outcome

SCORES = st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.5001, 0.9]), min_size=1, max_size=12).map(np.array)


def told(key: str, correct: str, p_yes: float, logs: bool = True) -> Answer:
    """An answer to "is there a defect?" whose option A is Yes."""
    letter = "A" if p_yes > 0.5 else "B"
    pair = {"A": math.log(p_yes) - 3, "B": math.log(1 - p_yes) - 3} if logs else None
    return Answer(
        *(
            "m",
            key,
            0,
            "anomaly_discrimination",
            "Anomaly Detection",
            "?",
            {"A": "Yes.", "B": "No."},
            correct,
        ),
        letter,
        Outcome.ANSWERED,
        option_logprobs=pair,
    )


@given(SCORES, SCORES)
def test_auroc_counts_pairs(normal: np.ndarray, anomalous: np.ndarray) -> None:
    pairs = [(a > n) + 0.5 * (a == n) for a in anomalous for n in normal]
    assert auroc(normal, anomalous) == pytest.approx(np.mean(pairs))


@given(SCORES, SCORES, st.floats(0, 0.99))
def test_overkill_is_the_least_at_the_miss_rate(
    normal: np.ndarray, anomalous: np.ndarray, rate: float
) -> None:
    thresholds = [t for t in (*anomalous, *normal, 0, 2) if np.mean(anomalous < t) <= rate + 1e-12]
    assert overkill(normal, anomalous, rate) == pytest.approx(min(np.mean(normal >= t) for t in thresholds))


def test_an_inspector_by_hand() -> None:
    answers = [
        told("D/o/good/1.png", "B", 0.1),
        told("D/o/good/2.png", "B", 0.6),
        told("D/o/bad/3.png", "A", 0.9),
        told("D/o/bad/4.png", "A", 0.5001),
    ]
    found = inspect(answers, miss_rate=0.5)
    assert found is not None
    assert (found.n_normal, found.n_anomalous, found.n) == (2, 2, 4)
    assert found.auroc == pytest.approx(0.75)
    assert found.overkill == 0
    assert inspect(answers, miss_rate=0.0).overkill == 0.5  # type: ignore[union-attr]
    assert found.brier == pytest.approx(2 * (0.01 + 0.36 + 0.01 + 0.4999**2) / 4)
    gaps = abs(0.9 - 1) * 2 / 4 + abs(0.6 - 0) / 4 + abs(0.5001 - 1) / 4
    assert found.ece == pytest.approx(gaps)


def test_wording_is_not_read() -> None:
    """The same judgement with its options the other way round is the same inspector."""
    answers = [told("D/o/good/1.png", "B", 0.2), told("D/o/bad/3.png", "A", 0.7)]
    turned = [told("D/o/good/1.png", "A", 0.8), told("D/o/bad/3.png", "B", 0.3)]
    assert inspect(answers) == inspect(turned)


def test_without_log_probabilities_nothing_is_known() -> None:
    assert inspect([told("D/o/good/1.png", "B", 0.2, logs=False)]) is None
    assert inspect([]) is None


def test_of_one_kind_of_image_there_is_no_auroc() -> None:
    found = inspect([told("D/o/good/1.png", "B", 0.2)])
    assert found is not None
    assert (found.auroc, found.overkill) == (None, None)


def test_probabilities_are_normalised_whatever_the_mass() -> None:
    answers = [told("D/o/good/1.png", "B", 0.2), told("D/o/good/2.png", "A", 0.7)]
    logs, correct = values_of(answers, "option_logprobs"), values_of(answers, "correct")
    chances, places = probabilities(logs, correct)
    assert chances == pytest.approx(np.array([[0.2, 0.8], [0.7, 0.3]]))
    assert list(places) == [1, 0]


def test_what_tells_too_little_is_left_out() -> None:
    """The right option untold, a single option, only impossible ones; beside one that has three."""
    logs: tuple[dict[str, float], ...] = (
        {"A": -1.0, "B": math.nan},
        {"B": -1.0},
        {"A": -1.0, "C": -1.0},
        {"A": -math.inf, "B": -math.inf},
        {"A": -math.inf, "B": -1.0, "C": math.nan, "D": -1.0},
    )
    answers = [
        told(f"D/o/good/{i}.png", "B", 0.2)._replace(option_logprobs=found) for i, found in enumerate(logs)
    ]
    chances, places = probabilities(logs, values_of(answers, "correct"))
    assert list(places) == [-1, -1, -1, -1, 1]
    assert list(chances[4]) == [0.0, 0.5, 0.0, 0.5]
    found = inspect(answers)
    assert found is not None and found.n == 1 and found.brier == pytest.approx(0.5)


def test_calibration_of_the_sure_and_wrong() -> None:
    assert calibration_error(np.ones(4), np.zeros(4)) == 1
    assert calibration_error(np.array([0.75, 0.25]), np.array([1.0, 0.0])) == pytest.approx(0.25)
