"""Several processes, on one machine or many: a few numbers and the gradients are summed, and nothing else.

A group of responses never leaves its rank, so no response is gathered. Gradients are added over ranks by
our own all-reduce and not by a wrapper around the model: some ranks may have had no image, no contrastive
prompt or no group at all, and their missing gradients are zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Tally(dict[str, float]):
    """Sums by name; a name that is not there counts 0. Added over ranks before anything is divided.

    >>> tally = Tally(groups=1)
    >>> tally.plus({"groups": 2, "tokens": 0.5})
    >>> tally["groups"], tally["nothing"]
    (3, 0.0)
    """

    def __missing__(self, name: str) -> float:
        return 0.0

    def plus(self, others: Mapping[str, float]) -> None:
        """Add other sums to these."""
        for name, value in others.items():
            self[name] += value


class World:
    """The processes of a training; of size 1 where ``torchrun`` did not start it.

    Args:
        rank: this process.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size

    @classmethod
    def join(cls, device: torch.device) -> World:
        """The world that ``torchrun`` describes in the environment: gloo on CPU, NCCL on GPU."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group(backend, timeout=timedelta(minutes=30))
        return cls(dist.get_rank(), size)

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def share(self, units: Sequence[Any]) -> list[Any]:
        """This rank's part of a step's units, dealt in turn."""
        return list(units[self.rank :: self.size])

    def add(self, tally: Tally, device: torch.device) -> Tally:
        """Sums over ranks, by name; a rank may lack some names."""
        if self.size == 1:
            return tally
        names: list[Any] = [None] * self.size
        dist.all_gather_object(names, sorted(tally))
        known = sorted({name for part in names for name in part})
        values = torch.tensor([float(tally[name]) for name in known], dtype=torch.float64)
        values = values.to(device)
        dist.all_reduce(values)
        return Tally(zip(known, values.tolist(), strict=True))

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add every gradient over ranks, in one flat message.

        A missing gradient is zeros on one rank as on many: an optimiser tells the two apart.
        """
        learners = list(parameters)
        for parameter in learners:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.size == 1:
            return
        flat = torch.cat([p.grad.flatten() for p in learners if p.grad is not None])
        dist.all_reduce(flat)
        at = 0
        for parameter in learners:
            part: Tensor = flat[at : at + parameter.numel()].view_as(parameter)
            parameter.grad = part.clone()
            at += parameter.numel()

    def agree(self, error: str | None) -> str | None:
        """The first rank's error that any rank has, so that all stop and none waits for ever."""
        if self.size == 1:
            return error
        errors: list[str | None] = [None] * self.size
        dist.all_gather_object(errors, error)
        return next((said for said in errors if said is not None), None)

    def told(self, value: Any) -> Any:
        """What rank 0 says."""
        if self.size == 1:
            return value
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values[0]

    def leave(self) -> None:
        """Take leave of the other processes."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
