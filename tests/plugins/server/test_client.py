"""The client against servers that fail, stall, lie and die."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from harness.errors import BadInput
from plugins.server import client as clients
from plugins.server import exchange
from plugins.server.client import Asking, Client
from plugins.server.endpoint import Endpoint
from plugins.server.exchange import GaveUp, Reply, Trouble
from tests import servers
from tests.plugins.server.asking import CHAT, KEY, asking, at, body, in_turn
from tests.servers import GOOD, Act, Asked, Server, reply, serving, status


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def ask(server: Server, **changes: Any) -> Reply | GaveUp:
    async def run() -> Reply | GaveUp:
        async with Client([at(server)], asking(**changes)) as client:
            return await client.ask(body)

    return asyncio.run(run())


def test_a_request_is_what_the_endpoint_expects() -> None:
    with serving() as server:
        said = ask(server)
    assert said == Reply(GOOD, "stop", 100, 20)
    (asked,) = server.asked
    assert asked.line == "POST /v1/chat/completions HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {"model": "m", "messages": CHAT}


@pytest.mark.parametrize(
    "act",
    [
        status(500, b"<html>oops</html>"),
        status(503),
        status(408),
        status(429, {"error": {"message": "slow down"}}),
        servers.reset,
        servers.raw(b""),
        servers.raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        status(200, b"{not json"),
        status(200, b"\xff\xfe"),
        status(200, b"[" * 100_000),
        status(200, {"object": "chat.completion"}),
        status(200, {"choices": []}),
        status(200, {"choices": [{"message": None}]}),
        status(200, [1, 2]),
        status(200, b"not gzip", Content_Encoding="gzip"),
        servers.stall(0.4),
        servers.trickle(0.4),
    ],
)
def test_what_fails_once_is_tried_again(act: Act) -> None:
    with serving(in_turn(act, reply(GOOD))) as server:
        said = ask(server, timeout=0.2)
    assert isinstance(said, Reply) and said.content == GOOD
    assert len(server.asked) == 2
    assert server.asked[0].body == server.asked[1].body  # the same request


@pytest.mark.parametrize(
    ("act", "trouble", "reason"),
    [
        (status(500), Trouble.SERVER_ERROR, "the server answers 500; tried 3 times"),
        (status(429, {"error": "full"}), Trouble.OVERLOADED, "the server answers 429: full; tried 3 times"),
        (servers.stall(0.4), Trouble.TIMED_OUT, "no reply within 0.1 s; tried 3 times"),
        (servers.reset, Trouble.UNREACHABLE, "tried 3 times"),
        (status(200, b"{"), Trouble.UNREADABLE, "no chat completion; tried 3 times"),
    ],
)
def test_it_gives_up_after_the_tries_with_a_typed_outcome(act: Act, trouble: Trouble, reason: str) -> None:
    with serving(lambda number, asked: act) as server:
        said = ask(server, timeout=0.1)
    assert isinstance(said, GaveUp) and said.trouble is trouble and reason in said.reason
    assert len(server.asked) == 3


def test_nobody_there() -> None:
    with serving() as server:
        pass
    said = ask(server, tries=2)
    assert isinstance(said, GaveUp) and said.trouble is Trouble.UNREACHABLE and "ConnectError" in said.reason


def test_a_reply_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_MAX_BODY", 100_000)
    with serving(lambda number, asked: reply("x" * 300_000)) as server:
        said = ask(server, tries=1)
    assert isinstance(said, GaveUp) and said.trouble is Trouble.UNREADABLE
    assert "longer than 100,000 bytes" in said.reason


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(form: str) -> None:
    def behave(number: int, asked: Asked) -> Act:
        later = datetime.now(UTC) + timedelta(seconds=2)  # dates have whole seconds
        value = "1" if form == "seconds" else format_datetime(later, usegmt=True)
        return status(429, Retry_After=value) if number == 0 else reply(GOOD)

    with serving(behave) as server:
        assert isinstance(ask(server), Reply)
    assert server.times[1] - server.times[0] >= 0.95


def test_pauses_grow_and_are_drawn_from_nothing_up() -> None:
    """Exponential back-off with full jitter; a draw of 1 gives the longest pause there is."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def run(url: str, draw: float) -> list[float]:
        settings = asking(tries=9, pause=1.0)
        target = Endpoint(f"{url}/v1/chat/completions", "m")
        async with Client([target], settings, draw=lambda: draw, sleep=sleep) as client:
            await client.ask(body)
            assert client.counts.requests == 9 and client.counts.retries == 8
        found, slept[:] = list(slept), []
        return found

    with serving(lambda number, asked: status(500)) as server:
        assert asyncio.run(run(server.url, 1.0)) == [1, 2, 4, 8, 16, 32, 60, 60]
        assert asyncio.run(run(server.url, 0.25)) == [0.25, 0.5, 1, 2, 4, 8, 15, 15]
        assert asyncio.run(run(server.url, 0.0)) == [0.0] * 8
    client = Client([Endpoint("http://h/v1", "m")], Asking())
    drawn = {client._pause(3) for _ in range(20)}
    assert len(drawn) == 20 and all(0 <= pause <= 4 for pause in drawn)


def test_too_much_patience_is_not_given() -> None:
    started = time.monotonic()
    with serving(lambda number, asked: status(503, Retry_After="86400")) as server:
        said = ask(server)
    assert isinstance(said, GaveUp) and "it asks to wait 86,400 s" in said.reason
    assert len(server.asked) == 1 and time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("code", "content", "sentence"),
    [
        (
            401,
            {"error": {"message": f"Wrong key {KEY}."}},
            "answers 401: Wrong key ***.; set EMIT_BENCH_API_KEY",
        ),
        (403, {"detail": f"{KEY}"}, "answers 403: ***; set EMIT_BENCH_API_KEY to a key that may use m"),
        (404, {"message": "no model m"}, "answers 404: no model m; check --endpoint and --model"),
        (405, b"", "answers 405; check --endpoint"),
        (307, b"", "answers 307; it wants another address"),
    ],
)
def test_what_no_request_can_have_ends_the_run(code: int, content: Any, sentence: str) -> None:
    act = status(code, content, Location=f"http://127.0.0.1:1/?key={KEY}")
    with serving(lambda number, asked: act) as server, pytest.raises(BadInput) as error:
        ask(server)
    assert sentence in str(error.value) and KEY not in str(error.value)
    assert len(server.asked) == 1


def test_a_rejected_request_is_its_own_outcome() -> None:
    content = {"error": {"message": "A\x1b[31m picture\nis " + "too large " * 99 + KEY}}
    with serving(lambda number, asked: status(400, content)) as server:
        said = ask(server)
    assert isinstance(said, GaveUp) and said.trouble is Trouble.REJECTED and len(server.asked) == 1
    assert said.reason.isprintable() and len(said.reason) < 260 and "sk-" not in said.reason


def test_a_server_that_only_fails_is_left_alone() -> None:
    async def run(url: str) -> list[Reply | GaveUp]:
        async with Client([Endpoint(f"{url}/v1/chat/completions", "m")], asking(tries=1)) as client:
            return [await client.ask(body) for _ in range(30)]

    with serving(in_turn(status(500), reply(GOOD), *[status(500)] * 50)) as server:
        said = asyncio.run(run(server.url))
    assert len(server.asked) == 2 + clients.HOPELESS  # one reply starts the count anew
    rest = [one for one in said if isinstance(one, GaveUp) and one.trouble is Trouble.NOT_ASKED]
    assert len(rest) == 8 and "20 times in a row (the server answers 500" in rest[0].reason


def test_odd_but_valid_replies() -> None:
    def with_usage(usage: Any) -> Act:
        choice = {"message": {"content": GOOD}, "finish_reason": None}
        return status(200, {"choices": [choice], "usage": usage})

    parts = [{"type": "text", "text": GOOD[:9]}, {"type": "text", "text": GOOD[9:]}]
    cases = [
        (reply(parts), Reply(GOOD, "stop", 100, 20)),
        (reply(None, refusal="I won't."), Reply("I won't.", "content_filter", 100, 20)),
        (reply(None), Reply(None, "stop", 100, 20)),
        (with_usage(None), Reply(GOOD, "stop", 0, 0)),
        (with_usage({"prompt_tokens": -5, "completion_tokens": "many"}), Reply(GOOD, "stop", 0, 0)),
    ]
    for act, expected in cases:
        with serving(lambda number, asked, act=act: act) as server:
            assert ask(server) == expected


def test_a_wrong_address_is_soon_told() -> None:
    """Nobody has ever answered: eight tries and their pauses would be lost on it."""

    async def run(server: Server) -> tuple[Reply | GaveUp, Client]:
        async with Client([at(server)], asking(tries=8)) as client:
            return await client.ask(body), client

    with serving(lambda number, asked: servers.reset) as server:
        said, client = asyncio.run(run(server))
    assert isinstance(said, GaveUp) and said.trouble is Trouble.UNREACHABLE and not client.heard
    assert len(server.asked) == 3 == client.counts.requests and client.counts.retries == 2


def test_rejected_requests_do_not_condemn_a_server_that_answers_others() -> None:
    async def run(server: Server, count: int) -> list[Reply | GaveUp]:
        async with Client([at(server)], asking(tries=1)) as client:
            return [await client.ask(body) for _ in range(count)]

    with serving(in_turn(reply(GOOD), *[status(400)] * 25, reply(GOOD))) as server:
        said = asyncio.run(run(server, 27))
    assert len(server.asked) == 27 and isinstance(said[-1], Reply)
    with serving(lambda number, asked: status(400)) as server:
        asyncio.run(run(server, 27))
    assert len(server.asked) == clients.HOPELESS
