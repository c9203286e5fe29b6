"""A served model through the interface that the runner uses, over a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import BadInput
from harness.records import UNITS_AHEAD, GroupResult, Unit
from plugins.checkpoint import Chat
from plugins.server import model as models
from plugins.server.pictures import FORMATS
from plugins.server.settings import Images
from tests import servers
from tests.plugins.server import chats
from tests.plugins.server.chats import (
    DIRECT,
    KEY,
    THINK,
    group,
    looks,
    model,
    results,
    units,
)
from tests.servers import GOOD, Act, Asked, reply, serving, status

#: anyio forgets connections that are broken off in the moment they are begun.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'connect_tcp")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


def test_every_question_is_asked_once_and_answered_by_its_own_picture() -> None:
    with serving(looks) as server:
        asked = units(6)
        found = results(model(server), asked)
    everything = [one for unit in asked for one in unit]
    assert len(server.asked) == 36
    assert sorted(result.id for result in found) == sorted(one.id for one in everything)
    said = {result.id: [response.text for response in result.responses] for result in found}
    for one in everything:
        assert said[one.id] == [f"{letter}." for letter in chats.expected(one)]


def test_what_is_sent() -> None:
    one = group(7, questions=1)
    with serving(looks) as server:
        results(model(server), [[one]])
    (asked,) = server.asked
    urls = asked.pictures
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "vlm",
        "messages": [
            {"role": "system", "content": "You inspect products."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Image-1: "},
                    {"type": "image_url", "image_url": {"url": urls[0], "detail": "auto"}},
                    {"type": "text", "text": "\nImage-2: "},
                    {"type": "image_url", "image_url": {"url": urls[1], "detail": "auto"}},
                    {"type": "text", "text": "\nAnswer with a letter." + one.prompts[0].text},
                ],
            },
        ],
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 16,
    }
    for url, picture in zip(urls, (one.references[0], one.query), strict=True):
        assert url.startswith("data:image/png;base64,")
        assert chats.unpacked(url).tobytes() == picture.pixels.tobytes()  # nothing is lost


def test_an_empty_system_text_is_left_out_and_room_is_given() -> None:
    with serving(looks) as server:
        asking = model(server, room={"direct": 900})
        results(asking, [[group(1, 1, system="")]])
        results(model(server, room={"direct": 900}), [[group(1, 1)]], THINK)
    first, second = server.asked
    assert [message["role"] for message in first.body["messages"]] == ["user"]
    assert (first.body["max_tokens"], second.body["max_tokens"]) == (900, 512)


@pytest.mark.parametrize("form", FORMATS)
def test_images_are_as_large_and_as_fine_as_stated(form: Any) -> None:
    images = Images(max_side=60, detail="high", format=form)
    large = chats.picture(1, (200, 100))
    one = group(1, 1, content=(large, "It is one."), references=(), query=large)
    with serving(looks) as server:
        results(model(server, images=images), [[one]])
    (url,) = server.asked[0].pictures
    assert url.startswith(f"data:image/{form};base64,") and chats.unpacked(url).size == (60, 30)
    assert not chats.unpacked(url).getexif()
    sent = server.asked[0].body["messages"][1]["content"][0]["image_url"]
    assert sent["detail"] == "high"


def test_images_of_a_group_are_encoded_once_and_counted_as_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    original = models.picture_urls

    def counted(one: Any, images: Images) -> dict[str, str]:
        encoded.append(one.id)
        return original(one, images)

    monkeypatch.setattr(models, "picture_urls", counted)
    failing = iter([True])

    def behave(number: int, asked: Asked) -> Act:
        return status(500) if next(failing, False) else reply("A")

    with serving(behave) as server:
        asking = model(server, prices=(2.0, 10.0))
        results(asking, units(2, 2, questions=4))
    assert sorted(encoded) == [f"group-{number}" for number in range(4)]
    assert asking.counters() == {
        "requests": 17,
        "retries": 1,
        "images_sent": 2 * 17,
        "prompt_tokens": 16 * 100,
        "completion_tokens": 16 * 20,
        "spend_micro": 16 * (100 * 2 + 20 * 10),
    }


def test_nobody_waits_for_a_slow_group() -> None:
    """The first group of the first unit comes last; all others have long been given."""
    release = threading.Event()

    def behave(number: int, asked: Asked) -> Act:
        slow = chats.unpacked(asked.pictures[-1]).tobytes() == chats.picture(0).pixels.tobytes()

        def act(connection: Any) -> None:
            if slow:
                release.wait(10)
            reply("A")(connection)

        return act

    with serving(behave) as server:
        asking = model(server)
        order: list[str] = []
        for together in asking.stream(units(5), DIRECT):
            order += [result.id for result in together]
            if len(order) == 9:
                release.set()
        asking.close()
    assert order[-1] == "group-0" and len(set(order)) == 10


def test_units_are_taken_as_they_are_needed() -> None:
    drawn: list[int] = []
    release = threading.Event()

    def source() -> Iterator[Unit]:
        for number, unit in enumerate(units(12)):
            drawn.append(number)
            yield unit

    def behave(number: int, asked: Asked) -> Act:
        def act(connection: Any) -> None:
            release.wait(10)
            reply("A")(connection)

        return act

    with serving(behave) as server:
        asking = model(server, concurrency=64)
        stream = asking.stream(source(), DIRECT)
        timer = threading.Timer(0.3, release.set)
        timer.start()
        first = next(stream)
        assert first and len(drawn) == UNITS_AHEAD  # none of them had come back
        rest = list(stream)
        asking.close()
    assert sum(len(one) for one in [first, *rest]) == 24 and len(drawn) == 12


def test_no_more_are_on_their_way_than_allowed() -> None:
    with serving(lambda number, asked: servers.slowly(0.02, reply("A"))) as server:
        results(model(server, concurrency=3), units(6))
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (
            status(400, {"error": "the picture is too large"}),
            "the server answers 400: the picture is too large",
        ),
        (status(200, b"<html>"), "the reply is no chat completion; tried 3 times"),
        (status(200, {"choices": []}), "the reply is no chat completion; tried 3 times"),
        (reply({"not": "text"}), "ValueError: the reply holds a dict in place of text"),
        (status(503), "the server answers 503; tried 3 times"),
        (status(429, Retry_After="99999"), "the server answers 429; it asks to wait 99,999 s"),
        (servers.reset, "tried 3 times"),
        (servers.stall(0.4), "no reply within 0.2 s; tried 3 times"),
    ],
)
def test_a_question_that_cannot_be_had_fails_and_the_run_goes_on(act: Act, reason: str) -> None:
    def behave(number: int, asked: Asked) -> Act:
        return act if "is it 1?" in asked.words and "group-0" in marked(asked) else reply("A")

    def marked(asked: Asked) -> str:
        same = chats.unpacked(asked.pictures[-1]).tobytes() == chats.picture(0).pixels.tobytes()
        return "group-0" if same else ""

    with serving(behave) as server:
        asking = model(server, timeout=0.2, concurrency=1)
        found = {result.id: result for result in results(asking, units(3))}
    assert len(found) == 6
    first = found["group-0"]
    assert not first.reason
    assert [bool(response.reason) for response in first.responses] == [False, True, False]
    assert reason in first.responses[1].reason
    assert first.responses[0].text == first.responses[2].text == "A"  # what was paid for is kept
    good = [result for name, result in found.items() if name != "group-0"]
    assert all(result.reason == "" and len(result.responses) == 3 for result in good)


def test_a_server_that_dies_for_good_leaves_reasons() -> None:
    with serving(lambda number, asked: reply("A") if number < 9 else servers.reset) as server:
        found = results(model(server, concurrency=1), units(20))
    good = [result for result in found if not result.reason]
    assert len(found) == 40 and len(good) == 3
    assert {len(result.responses) for result in good} == {3}
    assert "had failed 20 times in a row" in found[-1].reason
    assert len(server.asked) < 9 + 20 * 3 + 9  # and the rest was not asked


def test_a_server_that_was_never_there_ends_the_run() -> None:
    with serving() as server:
        pass
    with pytest.raises(BadInput) as error:
        results(model(server), units(3))
    assert "ConnectError" in str(error.value) and "start the server, or correct --base-url" in str(
        error.value
    )


def test_what_was_answered_is_given_before_the_run_ends() -> None:
    def behave(number: int, asked: Asked) -> Act:
        return reply("A") if number < 6 else status(401, {"error": {"message": f"the key {KEY} has expired"}})

    given: list[GroupResult] = []
    with serving(behave) as server, pytest.raises(BadInput) as error:
        asking = model(server, concurrency=1)
        for together in asking.stream(units(3), DIRECT):
            given += together
    asking.close()
    assert [result.id for result in given] == ["group-0", "group-1"]
    assert "set EMIT_BENCH_API_KEY to a key that may use vlm" in str(error.value)
    assert (
        KEY not in str(error.value)
        and KEY not in repr(error.value)
        and KEY not in repr(error.value.__cause__)
    )
    assert len(server.asked) == 7


def test_two_servers_of_which_one_dies() -> None:
    def dies(number: int, asked: Asked) -> Act:
        return looks(number, asked) if number < 5 else servers.reset

    with serving(dies) as first, serving(looks) as second:
        asked = units(10)
        found = results(model(first, second, tries=6), asked)
    assert len(found) == 20 and all(not result.reason for result in found)
    said = {result.id: [response.text for response in result.responses] for result in found}
    for one in (one for unit in asked for one in unit):
        assert said[one.id] == [f"{letter}." for letter in chats.expected(one)]
    assert len(first.asked) >= 5 and len(second.asked) >= 30


def test_one_group_by_itself() -> None:
    one = group(3)
    with serving(looks) as server:
        asking = model(server)
        assert [said.text for said in asking.answer(one, DIRECT)] == [
            f"{letter}." for letter in chats.expected(one)
        ]
        server.behave = lambda number, asked: status(400)
        with pytest.raises(RuntimeError, match="answers 400"):
            asking.answer(one, DIRECT)
        asking.close()


def test_breaking_off_leaves_nothing_behind() -> None:
    with serving(lambda number, asked: reply(GOOD) if number < 6 else servers.stall(0.4)) as server:
        asking = model(server, concurrency=4)
        stream = asking.stream(units(20), DIRECT)
        next(stream)
        stream.close()
        time.sleep(0.2)  # the server may still read what it has been sent
        sent = len(server.asked)
        time.sleep(0.6)  # what was stalled, were it still wanted, would let others in
        assert len(server.asked) == sent <= 6 + 4
        started = time.monotonic()
        asking.close()
        assert time.monotonic() - started < 0.5  # it waits for nobody
        assert not [thread for thread in threading.enumerate() if thread.name == "emit-bench-asks"]


def test_a_model_can_be_asked_again_after_a_stream() -> None:
    with serving(looks) as server:
        asking = model(server)
        first = [one for together in asking.stream(units(2), DIRECT) for one in together]
        second = [one for together in asking.stream(units(2), DIRECT) for one in together]
        asking.close()
    assert sorted(first, key=lambda one: one.id) == sorted(second, key=lambda one: one.id)


def test_sources_are_drawn_in_the_callers_thread() -> None:
    """The runner's units come out of a database that belongs to one thread."""
    seen: set[int] = set()

    def source() -> Iterator[Unit]:
        for unit in units(5):
            seen.add(threading.get_ident())
            yield unit

    with serving(looks) as server:
        results(model(server), source())
    assert seen == {threading.get_ident()}


def test_a_source_that_breaks_is_not_swallowed() -> None:
    def source() -> Iterator[Unit]:
        yield from units(1)
        raise KeyError("a bug")

    with serving(looks) as server, pytest.raises(KeyError):
        results(model(server), source())


def test_temporary_failures_are_invisible_in_the_answers() -> None:
    """Slow, crowded, garbled, cut and dropped replies, in a fixed order: all questions answered right."""
    bad: list[Callable[[int, Asked], Act]] = [
        lambda number, asked: servers.slowly(0.05, looks(number, asked)),
        lambda number, asked: status(429, Retry_After="0"),
        lambda number, asked: status(429),
        lambda number, asked: status(200, b"{half"),
        lambda number, asked: status(200, [1]),
        lambda number, asked: servers.reset,
        lambda number, asked: status(502, b"<html>"),
        lambda number, asked: servers.raw(b""),
    ]

    def behave(number: int, asked: Asked) -> Act:
        return bad[number // 2 % len(bad)](number, asked) if number % 2 else looks(number, asked)

    with serving(behave) as server:
        asked = units(8)
        found = results(model(server, tries=10), asked)
    assert len(found) == 16 and all(not result.reason for result in found)
    said = {result.id: [response.text for response in result.responses] for result in found}
    for one in (one for unit in asked for one in unit):
        assert said[one.id] == [f"{letter}." for letter in chats.expected(one)]


def test_a_beginning_of_an_answer_cannot_be_sent() -> None:
    with serving() as server:
        asking = model(server)
        asking.chat = Chat(opening={"logits": "<think></think>"})
        with pytest.raises(BadInput, match="in mode logits this model is asked behind '<think></think>'"):
            results(asking, units(1), replace(chats.DIRECT, mode="logits"))
        assert len(results(model(server), units(1))) == 2  # in other modes it is asked as it is
