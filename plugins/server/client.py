"""A patient client of one or several servers that speak OpenAI's ``/v1/chat/completions``.

Time-outs, broken connections, 429 and 5xx are tried again with growing pauses, or when the server says. What
cannot be had is a typed outcome of that one request. What no other request can have either (a wrong key, a
wrong address) ends the run with one sentence. The key goes into one header and nowhere else: what a server
says is cleaned of it.

Of several servers each gets the requests that belong together, for it may have kept their beginning; those of
a server that is gone go to the others, until it is tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from harness.errors import BadInput
from plugins.server.endpoint import Endpoint
from plugins.server.exchange import Again, GaveUp, Line, Reply, Trouble
from plugins.server.pace import Pace

#: So many requests given up in a row, and the rest is not asked.
HOPELESS = 20
_MAX_WAIT = 300.0  #: seconds; who asks for more patience than that gets none
_MAX_PAUSE = 60.0  #: seconds between two tries, unless the server names a time
_UNHEARD = 3  #: tries as long as no server has ever said anything: the address is likelier to be wrong
_STRIKES = (
    3  #: failures in a row after which a server counts as gone; one that takes no connection is at once
)

#: Makes a request's content when its turn has come.
Body = Callable[[], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Asking:
    """How servers are asked."""

    timeout: float = 300.0  #: seconds for one exchange, its transfer included
    tries: int = 8  #: of one request
    pause: float = 1.0  #: seconds before the second try at most; doubles with each further one
    concurrency: int = 32  #: requests on their way at most, to all servers together


@dataclass
class Counts:
    """What was sent and came back."""

    requests: int = 0  #: sent, retries among them
    retries: int = 0
    prompt_tokens: int = 0  #: as servers report them
    completion_tokens: int = 0


@dataclass
class _Server:
    """One server, how fast it is asked, and whether it is there."""

    line: Line
    pace: Pace
    absent_until: float = float("-inf")
    _strikes: int = 0
    _counted: float = field(default=float("-inf"))

    def preference(self, group: str) -> bytes:
        """Rendezvous hashing: the group goes to the highest; the others' groups stay when one server goes."""
        return hashlib.sha256(f"{self.line.endpoint.url}\0{group}".encode()).digest()

    def worked(self) -> None:
        """It answered."""
        self._strikes, self.absent_until = 0, float("-inf")

    def failed(self, began: float, now: float, at_once: bool) -> None:
        """It did not, to a request sent then; those that were on their way together count as one failure."""
        if began < self._counted:
            return
        self._counted = now
        self._strikes = max(self._strikes + 1, _STRIKES if at_once else 0)
        if self._strikes >= _STRIKES:
            self.absent_until = now + min(_MAX_PAUSE, 2.0 ** (self._strikes - _STRIKES))
        if self._strikes > _STRIKES:
            self.pace.collapsed()


class Client:
    """Asks servers that hold the same model; an async context manager.

    Args:
        endpoints: the servers.
        asking: how they are asked.
        draw: gives numbers from 0 to 1, which spread the pauses.
        sleep: waits so many seconds.
        clock: seconds.

    Attributes:
        counts: over all requests.
        heard: whether any server has ever said anything.
        given_up: requests without a reply since the last reply.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        asking: Asking,
        *,
        draw: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.asking = asking
        self.counts = Counts()
        self.heard = False
        self.given_up = 0
        # Spreads requests of several processes, and no answer depends on it.
        self._draw = draw or random.Random(os.getpid()).random
        self._sleep = sleep
        self._clock = clock
        self._last = ""
        self._end: str | None = None
        self._any_reply = False
        self._servers: list[_Server] = []
        self._room = asyncio.Semaphore(asking.concurrency)
        self._lines = AsyncExitStack()

    async def __aenter__(self) -> Client:
        # What waits belongs to an event loop, and a client may be opened in one after the other.
        self._room = asyncio.Semaphore(self.asking.concurrency)
        self._servers = []
        for endpoint in self.endpoints:
            line = await self._lines.enter_async_context(Line(endpoint, self.asking.timeout))
            self._servers.append(_Server(line, Pace(self.asking.concurrency, self._clock)))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._lines.aclose()

    @property
    def paces(self) -> tuple[Pace, ...]:
        """How fast each server is asked."""
        return tuple(server.pace for server in self._servers)

    async def ask(self, body: Body, group: str = "") -> Reply | GaveUp:
        """The reply to a request, after as many tries as it takes and is allowed.

        Args:
            body: makes the request's content; called once a try.
            group: requests with the same go to the same server.

        Raises:
            BadInput: no request can succeed; the sentence says what the server said.
        """
        said = await self._patiently(body, group)
        if isinstance(said, Reply):
            self._any_reply, self.given_up = True, 0
        elif said.trouble is not Trouble.REJECTED or not self._any_reply:
            # A server that answers others may well refuse what is particular about twenty questions.
            self.given_up += 1
            if said.trouble is not Trouble.NOT_ASKED:
                self._last = said.reason
        return said

    def end(self, sentence: str) -> BadInput:
        """The error that ends the run, to be raised; nothing is sent any more."""
        self._end = self._end or sentence
        return BadInput(self._end)

    async def _patiently(self, body: Body, group: str) -> Reply | GaveUp:
        for number in count(1):
            said = await self._try(body, group, again=number > 1)
            if not isinstance(said, Again):
                return said
            if number >= (self.asking.tries if self.heard else min(self.asking.tries, _UNHEARD)):
                return GaveUp(said.why.trouble, f"{said.why.reason}; tried {number} times")
            if said.wait is not None and said.wait > _MAX_WAIT:
                return GaveUp(said.why.trouble, f"{said.why.reason}; it asks to wait {said.wait:,.0f} s")
            if said.wait is None:  # else nobody is let in before it is over
                await self._sleep(self._pause(number))
        raise AssertionError("counting has no end")

    def _pause(self, number: int) -> float:
        """Seconds after the n-th try: exponential, with full jitter, lest requests return together."""
        return self._draw() * min(_MAX_PAUSE, self.asking.pause * 2.0 ** (number - 1))

    async def _try(self, body: Body, group: str, again: bool) -> Reply | GaveUp | Again:
        while True:
            server = self._choose(group)
            async with server.pace.slot(), self._room:
                if self._end is not None:
                    raise BadInput(self._end)
                if self.given_up >= HOPELESS:
                    reason = f"the server had failed {HOPELESS} times in a row ({self._last})"
                    return GaveUp(Trouble.NOT_ASKED, reason)
                if self._choose(group) is not server:  # it has gone while we waited
                    continue
                content = await body()
                self.counts.requests += 1
                self.counts.retries += again
                began = self._clock()
                try:
                    said = await server.line.ask(content)
                except BadInput as error:
                    raise self.end(str(error)) from error
                self._learn(server, began, said)
                return said

    def _choose(self, group: str) -> _Server:
        """The group's own server; while it is gone another; if all are, the one that is tried next."""
        now = self._clock()
        present = [server for server in self._servers if server.absent_until <= now]
        if present:
            return max(present, key=lambda server: server.preference(group))
        return min(self._servers, key=lambda server: server.absent_until)

    def _learn(self, server: _Server, began: float, said: Reply | GaveUp | Again) -> None:
        if isinstance(said, Again):
            trouble = said.why.trouble
            if said.wait is not None and said.wait <= _MAX_WAIT:
                server.pace.hold(said.wait)
            if trouble in (Trouble.OVERLOADED, Trouble.TIMED_OUT):
                server.pace.crowded(began)
            if trouble is not Trouble.UNREADABLE:
                server.failed(began, self._clock(), at_once=trouble is Trouble.UNREACHABLE)
            self.heard |= trouble is not Trouble.UNREACHABLE
            return
        self.heard = True
        server.worked()
        if isinstance(said, Reply):
            server.pace.went_well(began)
            self.counts.prompt_tokens += said.prompt_tokens
            self.counts.completion_tokens += said.completion_tokens
