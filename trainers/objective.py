"""What the optimiser loop asks of a trainer, and the order in which questions come."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from harness.records import Mode
from harness.subtasks import OBJECT_SUBTASKS
from trainers.distributed import Tally, World
from trainers.samples import Sample
from trainers.settings import Optimisation

#: Questions that share a prompt's images, and the answer mode they are asked in.
Unit = tuple[tuple[Sample, ...], Mode]


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


def units_of(pairs: Sequence[Sequence[Sample]], mode: Mode) -> list[Unit]:
    """Every packed row of a training: questions that share images and knowledge."""
    found: list[Unit] = []
    for pair in pairs:
        shapes: dict[bool, list[Sample]] = {}
        for sample in pair:  # the protocol shows the query alone to questions on the object
            shapes.setdefault(sample.task in OBJECT_SUBTASKS, []).append(sample)
        found += [(tuple(samples), mode) for samples in shapes.values()]
    return found


def batches(units: Sequence[Unit], settings: Optimisation, questions: int, seed: int) -> list[list[Unit]]:
    """The units of every step: image pairs in random order, until they hold ``questions`` questions."""
    wanted = settings.epochs * sum(len(samples) for samples, _ in units)
    order = Order(units, seed)
    steps: list[list[Unit]] = []
    position, taken = 0, 0
    while taken < wanted and not (settings.max_steps and len(steps) == settings.max_steps):
        batch: list[Unit] = []
        while sum(len(samples) for samples, _ in batch) < questions:
            batch.append(order.at(position))
            position += 1
        taken += sum(len(samples) for samples, _ in batch)
        steps.append(batch)
    return steps
