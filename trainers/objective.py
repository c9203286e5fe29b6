"""What the optimiser loop asks of a trainer, and the order in which questions come."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

from trainers.distributed import Tally, World

Unit = TypeVar("Unit")


class Objective(Protocol):
    """One trainer: what a step works on, and the gradients of it."""

    steps: int  #: of the whole training
    iterations: int  #: updates on the work of one step

    def collect(self, step: int) -> Any:
        """This rank's work of a step."""
        ...

    def accumulate(self, work: Any, world: World, iteration: int) -> Tally:
        """Add the update's gradients, divided by numbers fixed beforehand; ``learning`` 0: none."""
        ...

    def report(self, tally: Tally) -> Mapping[str, float]:
        """Metrics from tallies summed over ranks."""
        ...


def permutation(seed: int, epoch: int, count: int) -> list[int]:
    """The order of an epoch: a function of the seed and the epoch's number alone."""
    digest = hashlib.sha256(f"order\0{seed}\0{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(count, generator=generator).tolist()


class Order:
    """An endless sequence of units: one permutation after the other.

    >>> order = Order(["a", "b", "c"], seed=1)
    >>> sorted(order.at(i) for i in range(3)), order.at(4) == Order(["a", "b", "c"], seed=1).at(4)
    (['a', 'b', 'c'], True)
    """

    def __init__(self, units: Sequence[Any], seed: int) -> None:
        self.units = units
        self.seed = seed
        self._epochs: dict[int, list[int]] = {}

    def at(self, position: int) -> Any:
        """The unit at a position, counted over epochs."""
        epoch, place = divmod(position, len(self.units))
        if epoch not in self._epochs:
            self._epochs[epoch] = permutation(self.seed, epoch, len(self.units))
        return self.units[self._epochs[epoch][place]]


def step_count(epochs: float, units: int, units_a_step: int, most: int) -> int:
    """Steps of a training: at least one; ``most`` (unless 0) ends it earlier."""
    steps = max(1, math.ceil(epochs * units / units_a_step))
    return min(steps, most) if most else steps
