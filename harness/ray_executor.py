"""Workers on several machines, by Ray: each an actor with the model in it.

Ray starts the actors, moves units and results, and tells when one is lost; here is only what to hand out
again. The machines must see the benchmark's images, and weights in folders, under the same paths.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from harness.errors import BadInput
from harness.losses import Losses
from harness.work import Finished, Order, Worker, WorkerBug, WorkUnit, bug_of

#: Units that wait at an actor: the next is there when one is done.
IN_FLIGHT = 2
#: Seconds that the first actor may wait for room in the cluster.
ROOM_SECONDS = 120


class RayExecutor:
    """An executor of Ray actors.

    Joins the cluster that the environment names (``RAY_ADDRESS``), else starts Ray on this machine. Each
    actor asks for one CPU, and for one GPU where the cluster has any.

    Args:
        order: what each worker does.
        workers: how many.

    Raises:
        BadInput: Ray is not installed.
    """

    def __init__(self, order: Order, workers: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise BadInput(
                "--executor ray needs Ray, which is not installed; run `pip install 'emit-bench[ray]'`"
            ) from error
        self._ray: Any = ray
        self._order, self._workers = order, workers
        self._own = False  # whether Ray was started here
        self._actor: Any = None  # the remote class, once Ray is there
        self._seats = [_Seat() for _ in range(workers)]
        self._gpus = 0  # of each
        self._next: deque[WorkUnit] = deque()
        self._losses = Losses(workers, "try --workers 1 without Ray to see why")

    def run(self, units: Iterator[WorkUnit]) -> Iterator[Finished]:
        """Results of every group; see :class:`harness.answering.Executor`.

        Raises:
            BadInput: Ray cannot be reached, or a worker cannot load the model.
            WorkerBug: a worker met a bug.
        """
        while True:
            for seat in self._seats:
                self._feed(seat, units)
            flights = {flight: seat for seat in self._seats for flight in seat.flights}
            if not flights:
                if not self._peek(units):
                    return
                self._await_room()
                continue
            (landed,), _ = self._ray.wait(list(flights), num_returns=1)
            seat = flights[landed]
            try:
                done = self._ray.get(landed)
            except self._ray.exceptions.RayTaskError:
                raise  # a bug of ours
            except self._ray.exceptions.RayError:  # the actor, its machine, or the result has gone
                yield from self._replace(seat)
                continue
            del seat.flights[landed]
            self._losses.result()
            yield from _read(done)

    def close(self) -> None:
        """Stop the actors, and Ray if it was started here."""
        for seat in self._seats:
            if seat.actor is not None:
                self._ray.kill(seat.actor)
                seat.actor = None
        if self._own:
            self._ray.shutdown()

    def _feed(self, seat: _Seat, units: Iterator[WorkUnit]) -> None:
        """Hand a seat units, if its actor has found room in the cluster."""
        while len(seat.flights) < IN_FLIGHT:
            if not self._peek(units):
                return
            if seat.actor is None:
                seat.actor = self._start()
                seat.ready = seat.actor.ready.remote()
            if not self._ray.wait([seat.ready], timeout=0)[0]:
                return
            unit = self._next.popleft()
            seat.flights[seat.actor.answer.remote(unit)] = unit

    def _peek(self, units: Iterator[WorkUnit]) -> bool:
        """Whether there is a unit more; it is kept for whoever takes it."""
        if not self._next:
            again = self._losses.again
            self._next.extend([again.popleft()] if again else islice(units, 1))
        return bool(self._next)

    def _await_room(self) -> None:
        """Wait until some actor has its place; none of them has work by now."""
        waiting = [seat.ready for seat in self._seats if seat.actor is not None]
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=ROOM_SECONDS)
        if not ready:
            raise BadInput(
                f"the Ray cluster has had no room for a worker in {ROOM_SECONDS} s: each needs one CPU"
                f"{' and one GPU' if self._gpus else ''}; free some, or leave --executor ray out"
            )
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(ready)
            return
        for seat in self._seats:  # it died at its start
            if seat.ready in ready:
                self._losses.note("a worker was lost at its start")
                seat.actor = None

    def _start(self) -> Any:
        """A new actor; Ray itself is started for the first."""
        if self._actor is None:
            self._own = not self._ray.is_initialized()
            if self._own:
                _connect(self._ray, self._workers)
            has_gpu = self._ray.cluster_resources().get("GPU", 0) >= 1
            self._gpus = int(has_gpu and _computes(self._order))
            self._actor = self._ray.remote(num_cpus=1, num_gpus=self._gpus, max_restarts=0)(_Actor)
        # Ray shows each actor its own GPU only, so all of them are number 0.
        order = replace(self._order, request=replace(self._order.request, worker=(0, self._workers)))
        return self._actor.remote(order)

    def _replace(self, seat: _Seat) -> Iterator[Finished]:
        held, seat.actor = list(seat.flights.values()), None
        seat.flights.clear()
        self._losses.note("a worker was lost")
        yield from self._losses.take(held, "the worker was lost")


@dataclass
class _Seat:
    """The place of one actor, and what it has been handed."""

    actor: Any = None
    ready: Any = None  #: done when the actor has its place
    flights: dict[Any, WorkUnit] = field(default_factory=dict)


class _Actor:
    """What runs on the worker's machine."""

    def __init__(self, order: Order) -> None:
        self.worker = Worker(order.load, order.decoding, order.threads)

    def ready(self) -> None:
        """Done when the actor has been placed and started."""

    def answer(self, unit: WorkUnit) -> list[Finished] | tuple[str, str]:
        """Results of one unit, or the kind and text of what ends the run."""
        try:
            return list(self.worker.run([unit]))
        except BadInput as error:
            return "bad", str(error)
        except Exception as error:
            return "bug", bug_of(error)


def _computes(order: Order) -> bool:
    """Whether a worker may want a GPU: not on the CPU, not for a guess, not where a server computes."""
    from harness.lookup import find
    from harness.plugins import load_registry

    registry = load_registry()
    if not find(registry.models, order.model, "model").backends or order.request.device == "cpu":
        return False
    return find(registry.backends, order.request.backend, "backend").devices


def _read(done: list[Finished] | tuple[str, str]) -> list[Finished]:
    if isinstance(done, list):
        return done
    kind, text = done
    raise BadInput(text) if kind == "bad" else WorkerBug(text)


def _connect(ray: Any, workers: int) -> None:
    import os

    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(num_cpus=max(workers, os.cpu_count() or 1), **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"Ray cannot be started or reached ({reason}); see to RAY_ADDRESS") from error
