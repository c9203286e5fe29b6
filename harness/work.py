"""The work of one worker: units of groups in, results out. The same in this process, another, or afar.

A worker opens the images of its groups ahead of the model, hands the model pixels and opaque ids, and reports
results with the time and the exact work that they took. It knows nothing of the store.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from harness.errors import BadInput
from harness.prefetch import prefetch_within
from harness.records import (
    Decoding,
    GroupResult,
    LoadRequest,
    Model,
    PlannedGroup,
    PromptGroup,
    Unit,
    reason_of,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A group that is to be answered, and the name under which its result comes back."""

    id: str
    group: PlannedGroup


#: Groups that are handed out together, see :data:`harness.records.Unit`.
WorkUnit = tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """Results that are to be stored together."""

    results: tuple[GroupResult, ...]
    seconds: float = 0.0  #: since the results before
    counters: Mapping[str, int] = field(default_factory=dict)  #: the model's, since the results before


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker in another process is told: enough to load the model there, and nothing that is open."""

    model: str
    request: LoadRequest
    decoding: Decoding
    threads: int

    def load(self) -> Model:
        """Load the model by the plugins that are installed where this runs."""
        from harness.lookup import find
        from harness.plugins import load_model, load_registry

        registry = load_registry()
        return load_model(find(registry.models, self.model, "model"), self.request, registry)


class WorkerBug(Exception):
    """Something broke in a worker's process; the message holds its traceback."""


def bug_of(error: BaseException) -> str:
    """An unexpected error as it travels between processes."""
    lines = traceback.format_exception(error)
    return f"{type(error).__name__}: {error}\n" + "".join(lines)


class Worker:
    """Answers units, one stream of them after the other, with one model.

    Every group that comes in goes out once: one that the model says nothing of goes out as failed.

    Args:
        load: loads the model; called when the first group that can be asked has come.
        decoding: how is answered.
        threads: that open images ahead of the model.
        report: takes results of groups whose images are broken, as soon as they are known; unless given, they
            come with the next results. It may be called while results are waited for.
    """

    def __init__(
        self,
        load: Callable[[], Model],
        decoding: Decoding,
        threads: int,
        report: Callable[[Finished], None] | None = None,
    ) -> None:
        self._load = load
        self._decoding = decoding
        self._threads = threads
        self._report = report
        self._model: Model | None = None

    def run(self, units: Iterable[WorkUnit]) -> Iterator[Finished]:
        """Results of every group of every unit, in the order in which the model gives them.

        Raises:
            BadInput: the model cannot be loaded, or cannot go on.
            RuntimeError: the model gives a result that it was not asked for, or one twice, or stops before
                its units are drawn.
        """
        broken: list[GroupResult] = []
        open_units = self._open(units, broken)
        try:
            first = next(open_units, None)
            if first is not None:
                if self._model is None:
                    self._model = self._load()
                yield from self._stream(self._model, chain([first], open_units), broken)
            if broken:
                yield Finished(tuple(broken))
        finally:
            open_units.close()

    def close(self) -> None:
        """Give the model's memory back."""
        if self._model is not None:
            self._model.close()

    def _open(self, units: Iterable[WorkUnit], broken: list[GroupResult]) -> Generator[Unit, None, None]:
        """Units with their images open; groups with a broken one are reported, or go into ``broken``."""
        opened = prefetch_within(_open, units, self._threads)
        try:
            for members in opened:
                failed = tuple(member for member in members if isinstance(member, GroupResult))
                if failed and self._report is not None:
                    self._report(Finished(failed))
                else:
                    broken += failed
                groups = tuple(member for member in members if isinstance(member, PromptGroup))
                if groups:
                    yield groups
        finally:
            opened.close()

    def _stream(self, model: Model, units: Iterable[Unit], broken: list[GroupResult]) -> Iterator[Finished]:
        asked: set[str] = set()
        start, before = time.perf_counter(), dict(model.counters())
        feed = _Feed(units, asked)
        for results in model.stream(feed, self._decoding):
            now, counters = time.perf_counter(), dict(model.counters())
            for result in results:
                if result.id not in asked:
                    raise RuntimeError(
                        f"the model gave a result for the group {result.id}, which it was not asked, or twice"
                    )
                asked.remove(result.id)
            counted = {name: count - before.get(name, 0) for name, count in counters.items()}
            yield Finished((*results, *broken), now - start, counted)
            broken.clear()
            start, before = time.perf_counter(), counters
        if not feed.drained:  # to wait for the rest here could be to wait for ever
            raise RuntimeError("the model's stream ended before its units did")
        broken += [GroupResult(name, reason="the model gave no result for it") for name in sorted(asked)]


class _Feed:
    """The same units, once; the names of their groups are noted as they are drawn."""

    def __init__(self, units: Iterable[Unit], asked: set[str]) -> None:
        self.drained = False
        self._units, self._asked = iter(units), asked

    def __iter__(self) -> Iterator[Unit]:
        return self

    def __next__(self) -> Unit:
        for unit in self._units:
            self._asked.update(group.id for group in unit)
            return unit
        self.drained = True
        raise StopIteration


def _open(asked: Asked) -> PromptGroup | GroupResult:
    try:
        return asked.group.load(asked.id)
    except (BadInput, OSError, MemoryError) as error:
        return GroupResult(asked.id, reason=reason_of(error))
