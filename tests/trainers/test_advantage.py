"""Advantages of a group (Eq. 2) and the weight of its difficulty (Eq. 5-6)."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import trainers
from trainers.advantage import EPSILON, difficulty_weight, group_advantages

REWARDS = [4.5, -0.5, 5.0, -3.0, 4.25, 0.5, 4.5, 1.0]
CORRECT = [True, False, True, False, True, False, True, False]


def test_by_hand() -> None:
    """Mean 2, unbiased deviation sqrt(((-1)^2 + 1^2 + 0 + 0) / 3), two of four wrong."""
    found = group_advantages([1.0, 3.0, 2.0, 2.0], [False, True, True, False])
    expected = 1.5 / ((2 / 3) ** 0.5 + 1e-4)
    assert found.tolist() == pytest.approx([-expected, expected, 0, 0], abs=1e-12)


def test_equation_2() -> None:
    found = group_advantages(REWARDS, CORRECT, weighted=False)
    mean, deviation = statistics.fmean(REWARDS), statistics.stdev(REWARDS)
    assert found.tolist() == pytest.approx([(r - mean) / (deviation + EPSILON) for r in REWARDS], abs=1e-12)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("right", range(9))
def test_equation_5(right: int) -> None:
    assert difficulty_weight([i < right for i in range(8)]) == 2 - right / 8


@pytest.mark.parametrize("right", range(9))
def test_equation_6(right: int) -> None:
    correct = [i < right for i in range(8)]
    plain = group_advantages(REWARDS, correct, weighted=False)
    expected = (2 - right / 8) * plain
    torch.testing.assert_close(group_advantages(REWARDS, correct), expected, rtol=0, atol=1e-12)


def test_unweighted_is_weight_one_bit_for_bit() -> None:
    plain = group_advantages(REWARDS, CORRECT, weighted=False)
    assert torch.equal(plain, group_advantages(REWARDS, CORRECT, weight=lambda _: 1.0))
    assert not torch.equal(plain, group_advantages(REWARDS, CORRECT))


def test_the_default_weight_is_equation_5() -> None:
    default = group_advantages(REWARDS, CORRECT)
    assert torch.equal(default, group_advantages(REWARDS, CORRECT, weight=difficulty_weight))


def test_a_weight_sees_the_verdicts() -> None:
    seen: list[list[bool]] = []

    def weight(correct: object) -> float:
        seen.append(list(correct))  # type: ignore[call-overload]
        return 1.5

    found = group_advantages(REWARDS, torch.tensor(CORRECT), weight=weight)
    plain = group_advantages(REWARDS, CORRECT, weighted=False)
    assert seen == [CORRECT]
    torch.testing.assert_close(found, 1.5 * plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 4.9999, -2.7, 1e30])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_equal_rewards_have_no_advantage_at_all(value: float, count: int) -> None:
    """Exactly none: the mean of three times 0.1 is not 0.1, and a deviation of 1e-17 is not 0."""
    assert group_advantages([value] * count, [False] * count).tolist() == [0.0] * count


def test_some_of_these_equal_rewards_leave_a_residue() -> None:
    """Otherwise the test above would pass without the rule."""
    rewards = torch.full((3,), 0.1, dtype=torch.float64)
    assert bool((rewards - rewards.mean()).any())


def test_nearly_equal_rewards_are_not_equal() -> None:
    found = group_advantages([5.0, 4.997, 4.999, 5.0], [True] * 4, weighted=False)
    assert float(found.abs().max()) > 1


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.int64, torch.float64),
    ],
)
def test_tensors_keep_their_precision(kind: torch.dtype, expected: torch.dtype) -> None:
    found = group_advantages(torch.tensor([1, 3, 2, 2], dtype=kind), torch.tensor([0, 1, 1, 0]))
    assert found.dtype == expected
    reference = group_advantages([1.0, 3.0, 2.0, 2.0], [False, True, True, False])
    torch.testing.assert_close(found.double(), reference, rtol=0, atol=1e-6)


@settings(derandomize=True, deadline=None)
@given(
    group=st.lists(
        st.tuples(st.floats(-5, 5), st.booleans()), min_size=2, max_size=9, unique_by=lambda pair: pair[0]
    ),
    shift=st.floats(-3, 3),
    data=st.data(),
)
def test_invariants(group: list[tuple[float, bool]], shift: float, data: st.DataObject) -> None:
    """They sum to zero, keep the order, move with a permutation, and do not see a constant."""
    rewards, correct = [r for r, _ in group], [c for _, c in group]
    found = group_advantages(rewards, correct)
    assert abs(float(found.sum())) < 1e-9
    order = torch.tensor(rewards, dtype=torch.float64).argsort()
    assert bool((found[order].diff() >= 0).all())
    shuffled = data.draw(st.permutations(range(len(group))))
    moved = group_advantages([rewards[i] for i in shuffled], [correct[i] for i in shuffled])
    torch.testing.assert_close(moved, found[list(shuffled)], rtol=0, atol=1e-9)
    shifted = group_advantages([r + shift for r in rewards], correct)
    if len({r + shift for r in rewards}) == len(rewards):
        torch.testing.assert_close(shifted, found, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("rewards", "correct", "message"),
    [
        ([], [], "no group"),
        ([1.0, 2.0], [True], "no group"),
        (torch.ones(2, 2), [True, True], "no group"),
        ([1.0, float("nan")], [True, True], "not finite"),
        ([float("inf"), float("inf")], [True, True], "not finite"),
    ],
)
def test_what_is_no_group_is_an_error(rewards: object, correct: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, correct)  # type: ignore[arg-type]


def test_a_weight_for_plain_grpo_is_an_error() -> None:
    with pytest.raises(ValueError, match="weighted is False"):
        group_advantages(REWARDS, CORRECT, weighted=False, weight=difficulty_weight)


def test_public_name() -> None:
    assert trainers.group_advantages is group_advantages
