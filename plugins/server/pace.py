"""How many requests a server gets at a time: as many as it bears.

The limit starts low and doubles until the server first complains, then grows by one for each limit's worth of
replies. It is halved when the server says that it has too much to do (429, 503), once for all requests that
were on their way then, and cut by a fifth when replies take much longer than they lately did. A server that
names a time to wait gets nothing until then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

START = 4  #: requests at a time in the beginning
CROWDED = 0.5  #: factor of the limit when the server complains
SLOWER = 0.8  #: and when its replies take longer
TOLERATED = 1.5  #: times as long as usual is still usual: answers differ in length
_SAMPLE = 16  #: replies at least whose mean time is judged
_FORGETS = 0.1  #: how far the usual time follows a longer one; a shorter one it follows five times as fast


class Pace:
    """The limit of one server, and who waits for it.

    Args:
        most: the limit's upper bound.
        clock: seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self.limit = float(min(START, most))
        self.in_flight = 0
        self.usual: float | None = None  #: seconds that a reply takes, as of late
        self._clock = clock
        self._steep = True
        self._changed = float("-inf")  # when the limit was cut
        self._held_until = float("-inf")
        self._times: list[float] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among the requests on their way: first come, first served."""
        await self._enter()
        try:
            yield
        finally:
            self.in_flight -= 1
            self._admit()

    def went_well(self, began: float) -> None:
        """A reply came to a request that was sent then, in seconds of the clock."""
        if began < self._changed:  # sent before the limit was cut, it says nothing about the new one
            return
        if self.in_flight >= int(self.limit):  # a limit that nobody reaches says nothing about the server
            self.limit = min(self.most, self.limit + (1.0 if self._steep else 1.0 / self.limit))
        self._times.append(self._clock() - began)
        if len(self._times) >= max(_SAMPLE, self.limit):
            self._judge(sum(self._times) / len(self._times))

    def crowded(self, began: float) -> None:
        """The server had too much to do for a request that was sent then."""
        if began >= self._changed:
            self._cut(CROWDED)

    def hold(self, wait: float) -> None:
        """Send nothing for so many seconds."""
        self._held_until = max(self._held_until, self._clock() + wait)

    def collapsed(self) -> None:
        """The server is gone: one request at a time finds out whether it is there again."""
        self.limit, self._steep, self.usual = 1.0, True, None
        self._times.clear()
        self._changed = self._clock()

    def _judge(self, mean: float) -> None:
        self._times.clear()
        if self.usual is None:
            self.usual = mean
            return
        if mean > TOLERATED * self.usual:
            self._cut(SLOWER)
        self.usual += (_FORGETS if mean > self.usual else 5 * _FORGETS) * (mean - self.usual)

    def _cut(self, factor: float) -> None:
        self.limit = max(1.0, self.limit * factor)
        self._steep = False
        self._changed = self._clock()
        self._times.clear()

    async def _enter(self) -> None:
        if not self._waiting and self._free():
            self.in_flight += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given the place in the same moment
                self.in_flight -= 1
                self._admit()
            raise

    def _free(self) -> bool:
        return self.in_flight < int(self.limit) and self._clock() >= self._held_until

    def _admit(self) -> None:
        """Let in who waits, as far as there is room; come back when a named time is over."""
        while self._waiting and self._free():
            place = self._waiting.popleft()
            if not place.done():  # whoever waited may have been cancelled
                self.in_flight += 1
                place.set_result(None)
        left = self._held_until - self._clock()
        if self._waiting and left > 0 and self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(left, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._admit()
