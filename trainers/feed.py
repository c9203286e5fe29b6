"""Prompts a little ahead of the model: images are read and cut in worker threads while it computes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from harness.records import Mode
from trainers.objective import Unit
from trainers.prompts import Opened, PromptMaker, TrainingPrompt
from trainers.samples import Sample


class Feed:
    """Makes each prompt once and keeps the latest, so that drawing again opens no image again.

    Args:
        maker: what makes prompts.
        workers: threads that read images; 0 reads them when they are asked for.
        keep: prompts that are kept.
    """

    def __init__(self, maker: PromptMaker, workers: int = 2, keep: int = 32) -> None:
        self.maker = maker
        self.keep = keep
        self._pool = ThreadPoolExecutor(workers, "emit-bench-images") if workers else None
        self._opening: dict[tuple[str, ...], Future[Opened]] = {}
        self._made: OrderedDict[tuple[str, ...], TrainingPrompt] = OrderedDict()

    def ahead(self, units: Iterable[Unit]) -> None:
        """Begin to open what will be asked for next."""
        for samples, mode in units:
            key = _key(samples, mode)
            if self._pool is not None and key not in self._opening and key not in self._made:
                self._opening[key] = self._pool.submit(self.maker.open, samples, mode)

    def get(self, samples: Sequence[Sample], mode: Mode) -> TrainingPrompt:
        """The prompt of samples on one image pair; raises what opening its images raised."""
        key = _key(samples, mode)
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        opening = self._opening.pop(key, None)
        opened = opening.result() if opening is not None else self.maker.open(samples, mode)
        self._made[key] = self.maker.make(opened)
        while len(self._made) > self.keep:
            self._made.popitem(last=False)
        return self._made[key]


def _key(samples: Sequence[Sample], mode: Mode) -> tuple[str, ...]:
    return (mode, *(sample.id for sample in samples))
