"""A group: one question, its G responses and what they earned. Groups are drawn, and drawn again, here.

Drawing again looks at correctness and never at variance: responses that are all wrong still differ in format
and length, so a group without a correct one has a spread, and nothing true to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from trainers.prompts import TrainingPrompt
from trainers.rewards import Reward
from trainers.rollout import Completion
from trainers.samples import Sample


@dataclass(frozen=True, slots=True)
class Group:
    """Responses to one question; they are never split."""

    prompt: TrainingPrompt
    row: int  #: which of the prompt's questions
    completions: tuple[Completion, ...]
    rewards: tuple[Reward, ...]
    correct: tuple[bool, ...]
    attempt: int = 0  #: 0: drawn at once

    @property
    def sample(self) -> Sample:
        """The question."""
        return self.prompt.samples[self.row]

    @property
    def own_tokens(self) -> int:
        """Tokens of the question and its responses, behind what the prompt's questions share."""
        question = len(self.prompt.rows[self.row]) - self.prompt.shared
        return question + sum(len(one.ids) for one in self.completions)

    @property
    def solved(self) -> bool:
        """Whether at least one response is correct."""
        return any(self.correct)

    @property
    def totals(self) -> Tensor:
        """(G,) total rewards, float64."""
        return torch.tensor([reward.total for reward in self.rewards], dtype=torch.float64)


Drawn = TypeVar("Drawn")
#: Draws the group of an attempt.
Draw = Callable[[int], Drawn]
#: From a way to draw and a test of correctness to the groups that are learnt from, and all that were drawn.
Resample = Callable[[Draw[Drawn], Callable[[Drawn], bool]], tuple[Sequence[Drawn], Sequence[Drawn]]]


def once(draw: Draw[Drawn], solved: Callable[[Drawn], bool]) -> tuple[Sequence[Drawn], Sequence[Drawn]]:
    """Plain GRPO: whatever came first is learnt from."""
    group = draw(0)
    return [group], [group]


def until_solved(budget: int) -> Resample[Drawn]:
    """Response resampling (paper, "Difficulty-Aware GRPO"): draw anew until a response is correct.

    Args:
        budget: most further groups; the last one drawn is kept, solved or not.
    """

    def resample(
        draw: Draw[Drawn], solved: Callable[[Drawn], bool]
    ) -> tuple[Sequence[Drawn], Sequence[Drawn]]:
        drawn = [draw(0)]
        while not solved(drawn[-1]) and len(drawn) <= budget:
            drawn.append(draw(len(drawn)))
        return drawn[-1:], drawn

    return resample


def keep_all(budget: int) -> Resample[Drawn]:
    """The control of equal draws: as many as resampling would draw, and every one of them is learnt from."""
    again: Resample[Drawn] = until_solved(budget)

    def resample(
        draw: Draw[Drawn], solved: Callable[[Drawn], bool]
    ) -> tuple[Sequence[Drawn], Sequence[Drawn]]:
        _, drawn = again(draw, solved)
        return drawn, drawn

    return resample
