"""Advantages of a group of responses to one question (Eq. 2), and the weight of its difficulty (Eq. 5-6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: Added to the standard deviation, as in every framework that the release builds on; Eq. 2 has none.
EPSILON = 1e-4


def difficulty_weight(correct: Sequence[bool]) -> float:
    """Eq. 5: ``w = wrong / G + 1``, from 1 (all responses right) to 2 (all wrong).

    Args:
        correct: for each of the G responses, whether it chose the right option; an invalid one did not.

    >>> difficulty_weight([True, False, False, False])
    1.75
    """
    return sum(not right for right in correct) / len(correct) + 1


def group_advantages(
    rewards: Sequence[float] | Tensor,
    correct: Sequence[bool] | Tensor,
    weighted: bool = True,
    *,
    weight: Callable[[Sequence[bool]], float] | None = None,
) -> Tensor:
    """Advantages of one group: Eq. 2, ``(r - mean) / (std + 1e-4)``, times the group's weight, Eq. 6.

    The standard deviation is the unbiased one (G - 1), as in the frameworks that others compare with. Where
    all rewards are equal, all advantages are exactly 0. That is decided by the rewards themselves: rounding
    leaves a mean a little beside them, and a tiny deviation would blow the difference up.

    Args:
        rewards: (G,) total rewards; a floating tensor keeps its type, all else becomes float64.
        correct: (G,) whether each response chose the right option.
        weighted: difficulty-aware GRPO; False is plain GRPO.
        weight: used instead of Eq. 5 (:func:`difficulty_weight`), as a control with another weight.

    Returns:
        (G,) advantages.

    Raises:
        ValueError: no responses, unequal lengths, a reward that is not finite, or a weight for plain GRPO.
    """
    if weight is not None and not weighted:
        raise ValueError("a weight was given, but weighted is False")
    keeps = isinstance(rewards, Tensor) and rewards.is_floating_point()
    values = torch.as_tensor(rewards, dtype=None if keeps else torch.float64)
    right = [bool(one) for one in (correct.tolist() if isinstance(correct, Tensor) else correct)]
    if values.ndim != 1 or len(values) == 0 or len(values) != len(right):
        raise ValueError(f"{tuple(values.shape)} rewards and {len(right)} verdicts are no group of responses")
    if not bool(values.isfinite().all()):
        raise ValueError(f"a reward is not finite: {values.tolist()}")
    if bool((values == values[0]).all()):
        return torch.zeros_like(values)
    advantages = (values - values.mean()) / (values.std() + EPSILON)
    return advantages * (weight or difficulty_weight)(right) if weighted else advantages
