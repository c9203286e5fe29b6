"""Several workers on one machine, each a process of its own with the model in it.

Units are handed to whoever has too little to do. A worker that dies takes nothing with it but time: what it
had not reported yet is handed out again, to a new process in its place. A unit under which several workers
died fails, and the run goes on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

from harness.errors import BadInput
from harness.losses import Losses
from harness.records import UNITS_AHEAD
from harness.work import Finished, Order, Worker, WorkerBug, WorkUnit, bug_of

#: Seconds that a worker has to close its model when its parent is done with it.
_GRACE = 5.0


class Crew:
    """An executor with several processes.

    Args:
        order: what each worker does; ``request.resources`` gets ``worker`` (its number and how many there
            are).
        workers: how many.
    """

    def __init__(self, order: Order, workers: int) -> None:
        self._order = order
        self._members = [_Member(order, number, workers) for number in range(workers)]
        self._losses = Losses(workers, "memory may be short: try fewer --workers, or --workers 1 to see why")

    def run(self, units: Iterator[WorkUnit]) -> Iterator[Finished]:
        """Results of every group; see :class:`harness.answering.Executor`.

        Raises:
            BadInput: a worker cannot load the model, or all of them die.
            WorkerBug: a worker met a bug.
        """
        while True:
            # One to each in turn: filling up the first would leave nothing to the last of a short run.
            while any([self._feed(member, units) for member in self._members]):
                pass
            busy = {member.pipe: member for member in self._members if member.held and member.pipe}
            if not busy:
                return
            for pipe in connection.wait(list(busy)):
                member = busy[cast(Connection, pipe)]
                try:
                    finished = member.receive()
                except (EOFError, OSError):
                    yield from self._bury(member)
                else:
                    self._losses.result()
                    yield finished

    def close(self) -> None:
        """Stop the processes."""
        for member in self._members:
            member.stop()

    def _feed(self, member: _Member, units: Iterator[WorkUnit]) -> bool:
        """Hand a member one unit, if it wants one and there is one."""
        if not member.hungry:
            return False
        again = self._losses.again
        unit = again.popleft() if again else next(units, None)
        if unit is None:
            member.end()
            return False
        member.send(unit)
        return True

    def _bury(self, member: _Member) -> Iterator[Finished]:
        code, held = member.stop(), member.take_back()
        self._losses.note(f"worker {member.number} died (exit code {code})")
        yield from self._losses.take(held, f"the worker process died (exit code {code})")


@dataclass
class _Member:
    """The parent's side of one worker: its process, and what it has been handed and not given back."""

    order: Order
    number: int
    workers: int
    held: deque[WorkUnit] = field(default_factory=deque)
    process: BaseProcess | None = None
    pipe: Connection | None = None
    ended: bool = True  #: it waits for nothing more

    @property
    def hungry(self) -> bool:
        """Whether it could run dry: opening images ahead takes units before they are computed."""
        groups = sum(len(unit) for unit in self.held)
        return len(self.held) < UNITS_AHEAD + 2 or groups < 8 * self.order.threads + 8

    def send(self, unit: WorkUnit) -> None:
        """Hand a unit over; the process is started when it gets its first."""
        if self.process is None:
            self._start()
        self.held.append(unit)
        self.ended = False
        self._tell(unit)

    def end(self) -> None:
        """Say that nothing more comes for now."""
        if not self.ended:
            self.ended = True
            self._tell(None)

    def receive(self) -> Finished:
        """The next results; raises EOFError when the process has gone."""
        assert self.pipe is not None
        message = self.pipe.recv()
        if isinstance(message, Finished):
            reported = {result.id for result in message.results}
            left = (tuple(asked for asked in unit if asked.id not in reported) for unit in self.held)
            self.held = deque(unit for unit in left if unit)
            return message
        kind, text = message
        raise BadInput(text) if kind == "bad" else WorkerBug(text)

    def take_back(self) -> list[WorkUnit]:
        """What it has not given back."""
        lost = list(self.held)
        self.held.clear()
        return lost

    def stop(self) -> int | None:
        """End the process and return its exit code."""
        if self.process is None or self.pipe is None:
            return None
        self.pipe.close()  # the worker ends when its pipe does
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        code = self.process.exitcode
        self.process, self.pipe, self.ended = None, None, True
        return code

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        request = replace(self.order.request, worker=(self.number, self.workers))
        order = replace(self.order, request=request)
        self.process = context.Process(target=serve, args=(theirs, order))
        self.process.start()
        theirs.close()

    def _tell(self, message: Any) -> None:
        assert self.pipe is not None
        with contextlib.suppress(OSError):  # it has died: receiving will tell
            self.pipe.send(message)


def serve(pipe: Connection, order: Order) -> None:
    """The worker's side: answers units until its pipe is closed."""
    inbox: queue.SimpleQueue[WorkUnit | None] = queue.SimpleQueue()
    done = threading.Event()
    # A thread empties the pipe, so that parent and worker never wait for each other to read.
    threading.Thread(target=_receive, args=(pipe, inbox, done), daemon=True).start()
    worker = Worker(order.load, order.decoding, order.threads, report=pipe.send)
    try:
        while not done.is_set():
            for finished in worker.run(iter(inbox.get, None)):
                pipe.send(finished)
    except (KeyboardInterrupt, BrokenPipeError):
        pass  # the parent ends the run
    except Exception as error:
        kind = ("bad", str(error)) if isinstance(error, BadInput) else ("bug", bug_of(error))
        with contextlib.suppress(OSError):  # the parent has heard of another one's
            pipe.send(kind)
    worker.close()


def _receive(pipe: Connection, inbox: queue.SimpleQueue[WorkUnit | None], done: threading.Event) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):  # the parent has gone, or wants us to
        done.set()
        inbox.put(None)
        time.sleep(_GRACE)
        os._exit(0)  # still computing, or hanging
