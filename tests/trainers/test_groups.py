"""Drawing again, with a scripted sampler: how often, for whom, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from trainers.groups import Resample, keep_all, once, until_solved


def script(outcomes: Sequence[bool]) -> tuple[Callable[[int], tuple[int, bool]], list[int]]:
    """Draws attempt ``i`` as (i, solved) and keeps what was asked for."""
    asked: list[int] = []

    def draw(attempt: int) -> tuple[int, bool]:
        asked.append(attempt)
        return attempt, outcomes[attempt]

    return draw, asked


def solved(group: tuple[int, bool]) -> bool:
    return group[1]


@pytest.mark.parametrize(
    ("outcomes", "budget", "draws"),
    [
        ([True, True, True, True], 3, 1),
        ([False, True, True, True], 3, 2),
        ([False, False, False, True], 3, 4),
        ([False, False, False, False], 3, 4),
        ([False, False, False, False], 0, 1),
        ([False, False, True, True], 1, 2),
    ],
)
def test_draws_until_solved_within_the_budget(outcomes: list[bool], budget: int, draws: int) -> None:
    draw, asked = script(outcomes)
    resample: Resample[tuple[int, bool]] = until_solved(budget)
    kept, drawn = resample(draw, solved)
    assert asked == list(range(draws))
    assert [group[0] for group in drawn] == asked
    assert kept == drawn[-1:]


def test_plain_grpo_keeps_what_came_first() -> None:
    draw, asked = script([False, True])
    kept, drawn = once(draw, solved)
    assert (list(kept), list(drawn), asked) == ([(0, False)], [(0, False)], [0])


def test_equal_draws_spend_as_much_and_keep_all() -> None:
    for outcomes in ([True] * 4, [False, True, True, True], [False] * 4):
        draw, asked = script(outcomes)
        resample: Resample[tuple[int, bool]] = keep_all(3)
        kept, drawn = resample(draw, solved)
        again, other = script(outcomes)
        same: Resample[tuple[int, bool]] = until_solved(3)
        same(again, solved)
        assert len(asked) == len(other)
        assert list(kept) == list(drawn) and len(kept) == len(asked)
