from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from harness.answering import ImageDigests
from harness.keys import answer_key, digest_of, group_key, model_digest
from harness.prefetch import prefetch
from harness.records import Decoding, ImageFile, Item, LoadRequest, PlannedGroup, Prompt


def test_digests_follow_the_content_even_when_size_and_time_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"one")
    digests = ImageDigests({})
    first = digests(path)
    assert first == ImageFile(path).digest and list(digests.take_fresh()) == [str(path)]
    assert digests(path) == first and digests.take_fresh() == {}
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digests(path) == ImageFile(path).digest != first
    path.unlink()
    assert digests(path).startswith("unreadable: ")


def test_known_digests_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"one")
    first = ImageDigests({})
    first(path)
    stamp, _ = first.take_fresh()[str(path)]
    assert ImageDigests({str(path): (stamp, "remembered")})(path) == "remembered"


def a_group(content: tuple[str | ImageFile, ...], system: str = "s") -> PlannedGroup:
    query = ImageFile(Path("q"))
    item = Item("d/o/q", "d", "o", Path("q"), (), (), (), ())
    return PlannedGroup(item, system, content, (), query, (), ())


def test_an_answers_key_covers_everything_it_depends_on() -> None:
    first, second = ImageFile(Path("1")), ImageFile(Path("2"))
    greedy = Decoding("direct", 16)

    def group(content=("a", first, "b", second), system="s", model="m", decoding=greedy, digest=str):
        return group_key(a_group(content, system), digest, model, decoding)

    prompt = Prompt("id", "text", {"A": "x", "B": "y"}, False)
    keys = {
        group(),
        group(("a", second, "b", first)),
        group(("ab", first, "", second)),
        group(system="t"),
        group(model="n"),
        group(decoding=Decoding("direct", 17)),
        group(decoding=Decoding("direct", 16, seed=1)),
        group(digest=lambda path: "same"),
    }
    assert len(keys) == 8
    answers = {
        answer_key("g", prompt),
        answer_key("h", prompt),
        answer_key("g", Prompt("id", "other", prompt.options, False)),
        answer_key("g", Prompt("id", "text", {"A": "x"}, False)),
        answer_key("g", Prompt("id", "text", prompt.options, True)),
    }
    assert len(answers) == 5
    assert answer_key("g", Prompt("another", "text", prompt.options, False)) in answers


def test_a_models_digest_covers_weights_and_settings_but_not_the_device() -> None:
    def digest(fingerprint="w", **request):
        return model_digest("m", {"weights": fingerprint}, LoadRequest("mini", **request))

    assert len({digest(), digest("v"), digest(dtype="float32"), digest(backend="vllm")}) == 4
    assert digest(share_prefix=False) != digest() != digest(options={"window": 3})
    assert digest(device="cuda:0") == digest()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_prefetch_keeps_order_and_its_bound() -> None:
    running, most, lock = 0, 0, threading.Lock()
    started = 0

    def work(n: int) -> int:
        nonlocal running, most, started
        with lock:
            running, started = running + 1, started + 1
            most = max(most, running)
        time.sleep(0.002 * (n % 3))
        with lock:
            running -= 1
        return n

    seen = []
    for value in prefetch(work, range(30), workers=3):
        seen.append(value)
        assert started <= len(seen) + 6
    assert seen == list(range(30)) and most <= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_prefetch_raises_in_place(workers: int) -> None:
    def work(n: int) -> int:
        return 1 // n

    results = prefetch(work, [2, 1, 0, 5], workers)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
