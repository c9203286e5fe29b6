"""The client with many requests: several servers, and how many requests each bears, over real sockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import pytest

from harness.errors import BadInput
from plugins.server.client import Client
from plugins.server.exchange import GaveUp, Reply
from plugins.server.pace import START
from tests import servers
from tests.plugins.server.asking import asking, at, body, in_turn
from tests.servers import GOOD, Act, Asked, Server, reply, serving, status


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def ask_all(client: Client, groups: list[str]) -> Any:
    """Every group once, all at the same time."""
    return asyncio.gather(*(client.ask(body, group) for group in groups))


GROUPS = [f"group-{number}" for number in range(24)]


def test_requests_of_a_group_stick_to_a_server_and_servers_share_the_groups() -> None:
    async def run(targets: list[Server]) -> list[set[str]]:
        """The groups that each server got: each asks its own name back."""
        found: list[set[str]] = [set() for _ in targets]
        async with Client([at(one) for one in targets], asking()) as client:
            for group in GROUPS:
                for _ in range(3):
                    before = [len(one.asked) for one in targets]
                    await client.ask(body, group)
                    (served,) = [n for n, one in enumerate(targets) if len(one.asked) > before[n]]
                    found[served].add(group)
        return found

    with serving() as first, serving() as second, serving() as third:
        two = asyncio.run(run([first, second]))
        assert all(two) and two[0].isdisjoint(two[1]) and two[0] | two[1] == set(GROUPS)
        assert asyncio.run(run([first, second])) == two
        three = asyncio.run(run([first, second, third]))
    # A further server takes its share, and moves nothing between the others.
    assert three[2] and three[0] == two[0] - three[2] and three[1] == two[1] - three[2]


def test_a_dead_servers_groups_go_to_the_other_and_come_back() -> None:
    ahead = [0.0]

    async def run(first: Any, second: Server, port: int) -> None:
        settings = asking(tries=5)
        client = Client(
            [at(first), at(second)], settings, clock=lambda: time.monotonic() + ahead[0], draw=lambda: 1.0
        )
        async with client:
            assert all(isinstance(said, Reply) for said in await ask_all(client, GROUPS))
            own = len(first.asked)
            assert 0 < own < len(GROUPS) and own + len(second.asked) == len(GROUPS)
            stop.close()
            said = await ask_all(client, GROUPS)
            assert all(isinstance(one, Reply) for one in said)
            assert len(second.asked) == 2 * len(GROUPS) - own
            with serving(port=port) as again:
                await ask_all(client, GROUPS)
                assert again.asked == []  # it is left alone for a while
                ahead[0] += 100
                await ask_all(client, GROUPS)
                assert len(again.asked) == own

    with ExitStack() as stop, serving() as second:
        first = stop.enter_context(serving())
        asyncio.run(run(first, second, int(first.url.rpartition(":")[2])))


def test_a_server_that_breaks_every_connection_gets_few() -> None:
    async def run(first: Server, second: Server) -> list[Reply | GaveUp]:
        async with Client([at(first), at(second)], asking(tries=5)) as client:
            return [await client.ask(body, group) for group in GROUPS]

    with serving(lambda number, asked: servers.reset) as first, serving() as second:
        said = asyncio.run(run(first, second))
    assert all(isinstance(one, Reply) for one in said)
    assert 1 <= len(first.asked) <= 3 and len(second.asked) == len(GROUPS)


def test_who_waits_for_a_server_that_goes_is_not_sent_there() -> None:
    async def run(first: Server, second: Server) -> list[Reply | GaveUp]:
        async with Client([at(first), at(second)], asking(tries=5)) as client:
            return list(await ask_all(client, GROUPS))

    dying = servers.slowly(0.05, servers.reset)
    with serving(lambda number, asked: dying) as first, serving() as second:
        said = asyncio.run(run(first, second))
    assert all(isinstance(one, Reply) for one in said)
    assert len(first.asked) == START and len(second.asked) == len(GROUPS)


def test_failures_of_one_moment_count_as_one() -> None:
    """Four at once with a 500 do not make a server gone: its groups stay with it."""

    async def run(first: Server, second: Server) -> None:
        async with Client([at(first), at(second)], asking(tries=5)) as client:
            await ask_all(client, GROUPS)

    with serving() as first, serving() as second:
        asyncio.run(run(first, second))
        own = len(first.asked)
    assert START <= own < len(GROUPS)
    failing = servers.slowly(0.05, status(500))
    place = int(first.url.rpartition(":")[2]), int(second.url.rpartition(":")[2])
    acts = in_turn(*[failing] * START, reply(GOOD))
    with serving(acts, place[0]) as first, serving(port=place[1]) as second:
        asyncio.run(run(first, second))
    assert len(first.asked) == own + START and len(second.asked) == len(GROUPS) - own


def test_a_server_that_is_gone_is_felt_for_with_one_request() -> None:
    async def run(server: Server) -> float:
        async with Client([at(server)], asking(tries=3)) as client:
            assert isinstance(await client.ask(body), Reply)
            return client.paces[0].limit

    with serving(in_turn(servers.reset, servers.reset, reply(GOOD))) as server:
        assert asyncio.run(run(server)) == 2  # one, and one more for the reply


def test_after_the_end_nothing_is_sent() -> None:
    async def run(server: Server) -> list[Reply | GaveUp | BaseException]:
        async with Client([at(server)], asking()) as client:
            many = [client.ask(body) for _ in range(20)]
            return list(await asyncio.gather(*many, return_exceptions=True))

    refused = status(401, {"error": "expired"})
    with serving(lambda number, asked: servers.slowly(0.02, refused)) as server:
        said = asyncio.run(run(server))
    assert len(server.asked) == START
    assert len({str(error) for error in said}) == 1 and all(isinstance(one, BadInput) for one in said)


def flood(server: Server, count: int, **changes: Any) -> tuple[list[Reply | GaveUp], list[float]]:
    """So many requests at once; the replies, and the limit as each came."""
    limits: list[float] = []

    async def run() -> list[Reply | GaveUp]:
        async with Client([at(server)], asking(**changes)) as client:

            async def one() -> Reply | GaveUp:
                said = await client.ask(body)
                limits.append(client.paces[0].limit)
                return said

            return list(await asyncio.gather(*(one() for _ in range(count))))

    return asyncio.run(run()), limits


def test_a_willing_server_gets_more_at_a_time() -> None:
    with serving(lambda number, asked: servers.slowly(0.02, reply(GOOD))) as server:
        said, limits = flood(server, 120, concurrency=16)
    assert all(isinstance(one, Reply) for one in said) and len(server.asked) == 120
    assert limits[0] < limits[-1] <= 16 and 8 <= server.most_at_once <= 16


@pytest.mark.parametrize("named", [{}, {"Retry_After": "0"}])
def test_a_crowded_server_gets_fewer_until_it_bears_them(named: dict[str, str]) -> None:
    """It takes three at a time and refuses the rest; every request is answered in the end."""
    place: list[Server] = []

    def behave(number: int, asked: Asked) -> Act:
        full = place[0].at_once > 3
        return status(429, **named) if full else servers.slowly(0.02, reply(GOOD))

    with serving() as server:
        place.append(server)
        server.behave = behave
        said, limits = flood(server, 80, concurrency=32, tries=12, pause=0.02)
    assert all(isinstance(one, Reply) for one in said)
    assert limits[-1] < 8
    assert len(server.asked) < 80 * 2  # most were not refused


def test_a_server_that_becomes_slow_gets_fewer() -> None:
    def behave(number: int, asked: Asked) -> Act:
        return servers.slowly(0.01 if number < 100 else 0.15, reply(GOOD))

    with serving(behave) as server:
        said, limits = flood(server, 160, concurrency=12)
    assert all(isinstance(one, Reply) for one in said)
    assert max(limits) == 12 and min(limits[100:]) < 11
