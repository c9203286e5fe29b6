"""How many requests a server gets at a time goes up and down with what it bears."""

from __future__ import annotations

import asyncio

import pytest

from plugins.server.pace import SLOWER, START, Pace


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def window(pace: Pace, clock: Clock, seconds: float, replies: int | None = None) -> None:
    """A limit's worth of requests that are sent together and come back after so many seconds."""
    began = clock.now
    clock.now += seconds
    for _ in range(replies or int(pace.limit)):
        pace.in_flight = int(pace.limit)  # what came back has been replaced
        pace.went_well(began)


def test_it_doubles_until_the_first_complaint_then_grows_by_one() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    grown = []
    for _ in range(4):
        window(pace, clock, 1.0)
        grown.append(int(pace.limit))
    assert grown == [2 * START, 4 * START, 8 * START, 16 * START]
    pace.crowded(clock.now)
    assert pace.limit == 8 * START
    clock.now += 1
    before = pace.limit
    for _ in range(3):
        window(pace, clock, 1.0)
    assert 2.7 < pace.limit - before < 3.1


def test_the_limit_never_passes_its_bounds() -> None:
    clock = Clock()
    pace = Pace(6, clock)
    for _ in range(10):
        window(pace, clock, 1.0)
    assert pace.limit == 6
    for _ in range(10):
        clock.now += 1
        pace.crowded(clock.now)
    assert pace.limit == 1


def test_complaints_about_one_moment_count_once() -> None:
    clock = Clock()
    pace = Pace(64, clock)
    pace.limit = 64.0
    began = clock.now
    clock.now += 1
    for _ in range(64):
        pace.crowded(began)
    assert pace.limit == 32
    for _ in range(64):
        pace.went_well(began)  # those that were still served say nothing of the new limit
    assert pace.limit == 32
    pace.crowded(clock.now)
    assert pace.limit == 16


def test_a_limit_that_is_not_reached_does_not_grow() -> None:
    clock = Clock()
    pace = Pace(64, clock)
    for _ in range(100):
        pace.in_flight = 2
        pace.went_well(clock.now)
    assert pace.limit == START


def test_it_slows_when_replies_take_longer_and_recovers() -> None:
    clock = Clock()
    pace = Pace(20, clock)
    for _ in range(10):
        window(pace, clock, 1.0)
    assert pace.limit == 20 and pace.usual == pytest.approx(1.0)
    window(pace, clock, 1.2)  # answers differ in length
    assert pace.limit == 20
    window(pace, clock, 3.0)
    slowed = pace.limit
    assert slowed == pytest.approx(SLOWER * 20)
    for _ in range(10):
        window(pace, clock, 1.0)
    assert slowed < pace.limit <= 20


def test_a_slow_beginning_is_forgotten() -> None:
    """The first replies of a server that has just started must not excuse slow ones later."""
    clock = Clock()
    pace = Pace(16, clock)
    window(pace, clock, 60.0, replies=16)
    for _ in range(8):
        window(pace, clock, 1.0, replies=16)
    assert pace.usual is not None and pace.usual < 1.5
    window(pace, clock, 4.0, replies=16)
    assert pace.limit < 16


def test_places_are_given_in_order_and_come_back_from_the_cancelled() -> None:
    async def run() -> tuple[list[int], int]:
        pace = Pace(1)
        order: list[int] = []

        async def one(number: int) -> None:
            async with pace.slot():
                order.append(number)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(one(number)) for number in range(6)]
        await asyncio.sleep(0.005)
        tasks[0].cancel()  # has the place
        tasks[2].cancel()  # waits for it
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, pace.in_flight

    assert asyncio.run(run()) == ([0, 1, 3, 4, 5], 0)


def test_cancelled_in_the_moment_of_admission() -> None:
    """The place has been given, and whoever waited for it goes away before they know."""

    async def run() -> int:
        pace = Pace(1)
        waiting = []

        async def one(seconds: float) -> None:
            async with pace.slot():
                await asyncio.sleep(seconds)

        async with pace.slot():
            waiting = [asyncio.create_task(one(0.0)) for _ in range(3)]
            await asyncio.sleep(0)
        waiting[0].cancel()  # admitted on leaving the block above
        await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
        return pace.in_flight

    assert asyncio.run(run()) == 0


def test_nothing_is_sent_before_a_named_time() -> None:
    async def run() -> float:
        pace = Pace(4)
        loop = asyncio.get_running_loop()
        pace.hold(0.2)
        started = loop.time()

        async def one() -> None:
            async with pace.slot():
                pass

        await asyncio.gather(*(one() for _ in range(8)))
        return loop.time() - started

    assert 0.19 <= asyncio.run(run()) < 2
