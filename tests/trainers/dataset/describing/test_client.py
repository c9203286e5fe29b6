"""The client against a server that fails, stalls and lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from harness.errors import BadInput
from tests.trainers.dataset.describing import servers
from tests.trainers.dataset.describing.servers import GOOD, Act, Asked, Server, reply, serving, status
from trainers.dataset.describing import client as clients
from trainers.dataset.describing.client import Client, ClientSettings, Endpoint, GaveUp, Reply, read_endpoint
from trainers.dataset.describing.validate import Fault

KEY = "sk-do-not-tell-anyone"
CHAT = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}]}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def ask(server: Server, **changes: Any) -> Reply | GaveUp:
    async def run() -> Reply | GaveUp:
        settings = ClientSettings(**{"timeout": 5.0, "tries": 3, "pause": 0.01, **changes})
        async with Client(Endpoint(f"{server.url}/v1/chat/completions", "m", KEY), settings) as client:
            return await client.ask(CHAT, 7)

    return asyncio.run(run())


def in_turn(*acts: Act) -> Callable[[int, Asked], Act]:
    """The first act first, and the last for ever."""
    return lambda number, asked: acts[min(number, len(acts) - 1)]


def test_a_request_is_what_the_endpoint_expects() -> None:
    with serving() as server:
        said = ask(server, temperature=0.3, max_tokens=50)
    assert said == Reply(GOOD, "stop", 100, 20)
    (asked,) = server.asked
    assert asked.line == "POST /v1/chat/completions HTTP/1.1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m",
        "messages": CHAT,
        "temperature": 0.3,
        "max_tokens": 50,
        "seed": 7,
    }
    with serving() as server:
        ask(server, token_field="max_completion_tokens", max_tokens=50)
    assert server.asked[0].body["max_completion_tokens"] == 50 and "max_tokens" not in server.asked[0].body


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
    ("act", "fault", "reason"),
    [
        (status(500), Fault.SERVER_ERROR, "the server answers 500; tried 3 times"),
        (status(429, {"error": "full"}), Fault.OVERLOADED, "the server answers 429: full; tried 3 times"),
        (servers.stall(0.4), Fault.TIMED_OUT, "no reply within 0.1 s; tried 3 times"),
        (servers.reset, Fault.UNREACHABLE, "tried 3 times"),
        (status(200, b"{"), Fault.UNREADABLE, "no chat completion; tried 3 times"),
    ],
)
def test_it_gives_up_after_the_tries_with_a_typed_outcome(act: Act, fault: Fault, reason: str) -> None:
    with serving(lambda number, asked: act) as server:
        said = ask(server, timeout=0.1)
    assert isinstance(said, GaveUp) and said.fault is fault and reason in said.reason
    assert len(server.asked) == 3


def test_nobody_there() -> None:
    with serving() as server:
        pass
    said = ask(server, tries=2)
    assert isinstance(said, GaveUp) and said.fault is Fault.UNREACHABLE and "ConnectError" in said.reason


def test_a_reply_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_MAX_BODY", 100_000)
    with serving(lambda number, asked: reply("x" * 300_000)) as server:
        said = ask(server, tries=1)
    assert isinstance(said, GaveUp) and said.fault is Fault.UNREADABLE
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


def test_pauses_grow_and_are_spread() -> None:
    client = Client(Endpoint("http://h/v1", "m"), ClientSettings(pause=1.0))
    pauses = [[client._pause(number, seed) for number in range(1, 12)] for seed in range(20)]
    for number in range(11):
        low = min(60.0, 2.0**number)
        of_all = [row[number] for row in pauses]
        assert all(low * 0.5 <= pause <= low * 1.5 for pause in of_all) and len(set(of_all)) == 20


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
    assert isinstance(said, GaveUp) and said.fault is Fault.REJECTED and len(server.asked) == 1
    assert said.reason.isprintable() and len(said.reason) < 260 and "sk-" not in said.reason


def test_a_server_that_only_fails_is_left_alone() -> None:
    async def run(url: str) -> list[Reply | GaveUp]:
        settings = ClientSettings(tries=1)
        async with Client(Endpoint(f"{url}/v1/chat/completions", "m"), settings) as client:
            return [await client.ask(CHAT, seed) for seed in range(30)]

    with serving(in_turn(status(500), reply(GOOD), *[status(500)] * 50)) as server:
        said = asyncio.run(run(server.url))
    assert len(server.asked) == 2 + clients.HOPELESS  # one reply starts the count anew
    rest = [one for one in said if isinstance(one, GaveUp) and one.fault is Fault.NOT_ASKED]
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


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
        ("http://localhost:8000/", "http://localhost:8000/v1/chat/completions"),
        ("https://host/v1/", "https://host/v1/chat/completions"),
        ("https://host/api/v1/chat/completions", "https://host/api/v1/chat/completions"),
        ("https://host/d/m?api-version=3", "https://host/d/m/chat/completions?api-version=3"),
    ],
)
def test_endpoints_are_completed(url: str, full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in clients.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    endpoint = read_endpoint(url, "m")
    assert endpoint.url == full and endpoint.key == ""
    assert "?" not in endpoint.shown


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("EMIT_BENCH_API_KEY", "")
    assert read_endpoint("http://h", "m").key == "second"
    monkeypatch.setenv("EMIT_BENCH_API_KEY", " first\n")
    endpoint = read_endpoint("http://h", "m")
    assert endpoint.key == "first" and "first" not in repr(endpoint)
    for bad in ("k\u00e9y-secret", "key secret", "key\nsecret"):
        monkeypatch.setenv("EMIT_BENCH_API_KEY", bad)
        with pytest.raises(BadInput, match="EMIT_BENCH_API_KEY: it holds a character") as error:
            read_endpoint("http://h", "m")
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://h/v1", "http://", "http://h:99999", "http://me:pw@h"]
)
def test_unfit_addresses_are_refused(url: str) -> None:
    with pytest.raises(BadInput, match="--endpoint") as error:
        read_endpoint(url, "m")
    assert "pw" not in str(error.value)
