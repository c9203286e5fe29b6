"""What the tests of losses are made of: a batch of log-probabilities, and exact comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from trainers.loss import policy_loss
from trainers.settings import Kl, Normalise

NORMALISERS = get_args(Normalise)
KINDS = get_args(Kl)


@dataclass(frozen=True)
class Batch:
    """What a loss is made of; log-probabilities (groups, G, T)."""

    logps: Tensor
    old: Tensor
    ref: Tensor
    advantages: Tensor
    mask: Tensor

    def part(self, groups: list[int]) -> Batch:
        return Batch(*(value[groups] for value in vars(self).values()))

    def loss(self, **options: object) -> Tensor:
        return policy_loss(self.logps, self.old, self.ref, self.advantages, self.mask, **options)  # type: ignore[arg-type]

    def gradient(self, **options: object) -> Tensor:
        (found,) = torch.autograd.grad(self.loss(**options), self.logps)
        return found

    def divisor(self, normalise: str) -> int:
        groups, size, _ = self.mask.shape
        return {"group": groups, "batch": int(self.mask.sum()), "sequence": groups * size}[normalise]


def batch(groups: int = 8, size: int = 4, length: int = 6, seed: int = 0, drift: float = 0.25) -> Batch:
    """Groups of uneven responses, drifted far enough that some ratios are clipped."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    logps = -1 - normal(groups, size, length).abs()
    lengths = torch.randint(1, length + 1, (groups, size, 1), generator=generator)
    return Batch(
        logps.requires_grad_(),
        logps.detach() + drift * normal(groups, size, length),
        logps.detach() + drift * normal(groups, size, length),
        normal(groups, size),
        torch.arange(length) < lengths,
    )


def close(found: Tensor, expected: Tensor | float, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected).to(found), rtol=0, atol=tolerance)
