"""How often the gate errs, by simulation: an unchanged model that is called worse, a drop that is missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.gate.policy import Policy
from harness.gate.verdict import Check, check
from harness.sources import Source
from tests.harness.synthetic import answers, clustered, questions

pytestmark = pytest.mark.slow
ASKED = questions(120)
IMAGES = np.unique([key for key, *_ in ASKED], return_inverse=True)[1]
SHARE = 0.7
DEFAULT = Policy()


def judge(before: np.ndarray, now: np.ndarray, trial: int, policy: Policy = DEFAULT) -> Check:
    old, new = (
        Source(Path(name), {"m": answers(ASKED, right)}) for name, right in (("old", before), ("new", now))
    )
    return check(new, old, policy, resamples=999, seed=trial)


def rerun(before: np.ndarray, rng: np.random.Generator, loss: float = 0.0) -> np.ndarray:
    """The same model again: one image in four is answered afresh, and then right ``loss`` less often."""
    fresh = clustered(ASKED, SHARE - loss, 0.3, rng)
    again = rng.random(IMAGES.max() + 1) < 0.25
    return np.where(again[IMAGES], fresh, before)


def test_an_unchanged_model_is_called_worse_in_at_most_5_of_100() -> None:
    rng = np.random.default_rng(7)
    false = 0
    for trial in range(200):
        before = clustered(ASKED, SHARE, 0.3, rng)
        false += judge(before, rerun(before, rng), trial).verdict == "regression"
    assert false / 200 <= 0.05


def test_a_drop_as_large_as_the_printed_one_is_found_4_times_in_5() -> None:
    rng = np.random.default_rng(8)
    printed = []
    for trial in range(20):  # the spread of a rerun that loses about what can be found
        before = clustered(ASKED, SHARE, 0.3, rng)
        found = judge(before, rerun(before, rng, 0.25), trial)
        printed.append(next(one.detectable for one in found.judged if one.test.metric == "average"))
    loss = float(np.mean([one for one in printed if one is not None])) / 100 / 0.25
    assert 0.1 < loss < 0.6
    trials, found_worse = 300, 0
    for trial in range(trials):
        before = clustered(ASKED, SHARE, 0.3, rng)
        (average,) = (
            one
            for one in judge(before, rerun(before, rng, loss), trial).judged
            if one.test.metric == "average"
        )
        found_worse += average.verdict == "regression"
    assert found_worse / trials >= 0.8 - 2 * np.sqrt(0.8 * 0.2 / trials), found_worse / trials


def test_a_drop_of_the_whole_margin_passes_in_at_most_5_of_100() -> None:
    rng = np.random.default_rng(9)
    passed = 0
    for trial in range(200):
        before = clustered(ASKED, SHARE, 0.3, rng)
        found = judge(before, rerun(before, rng, 0.2), trial, Policy(margin=5.0))  # a quarter of 20 points
        (average,) = (one for one in found.judged if one.test.metric == "average")
        passed += average.verdict == "pass"
    assert passed / 200 <= 0.05
