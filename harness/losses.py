"""What becomes of the work of lost workers: handed out again, until a unit or the whole is given up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from harness.console import say
from harness.errors import BadInput
from harness.records import GroupResult
from harness.work import Finished, WorkUnit

#: Losses of a worker that a unit may cause before its groups fail.
MAX_LOSSES = 2


class Losses:
    """The losses of one executor.

    Args:
        workers: how many there are.
        advice: what to try when all of them are lost.
    """

    def __init__(self, workers: int, advice: str) -> None:
        self.again: deque[WorkUnit] = deque()  #: what is to be handed out again, before anything new
        self._allowed = MAX_LOSSES * (workers + 1)
        self._advice = advice
        self._vain = 0  # losses since the last result
        self._by_unit: dict[str, int] = {}

    def result(self) -> None:
        """A worker has given a result: workers do work here."""
        self._vain = 0

    def note(self, what: str) -> None:
        """A worker is lost; raises :class:`BadInput` when that is all that happens."""
        self._vain += 1
        if self._vain > self._allowed:
            raise BadInput(f"{what}, as all before it, and none gives a result; {self._advice}")
        say(f"{what}; its image pairs are handed out again")

    def take(self, held: Sequence[WorkUnit], what: str) -> Iterator[Finished]:
        """Hand out again what a lost worker had; the unit it was at comes behind the others.

        Args:
            held: its units, that which it was at first.
            what: what happened to it, as the beginning of a reason.

        Yields:
            Failed results of a unit under which too many were lost.
        """
        first, *rest = held
        self.again.extend(rest)
        count = self._by_unit[first[0].id] = self._by_unit.get(first[0].id, 0) + 1
        if count < MAX_LOSSES:
            self.again.append(first)
            return
        reason = f"{what} each of {MAX_LOSSES} times it was asked"
        yield Finished(tuple(GroupResult(asked.id, reason=reason) for asked in first))
