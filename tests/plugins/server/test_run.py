"""Whole runs with ``--backend server``: what is written, what it costs, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.errors import ExitCode
from harness.images import decode
from harness.mmad import read_mmad
from plugins.server import client
from tests import servers
from tests.plugins.server.chats import KEY, letter_for, looks
from tests.servers import Act, Asked, Server, reply, serving, status

QUESTIONS = 108
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("EMIT_BENCH_API_KEY", KEY)


def words(data: Path, out: Path, *targets: Server, mode: str = "direct") -> list[str]:
    given = ["run", "--models", "served", "--weights", "served=vlm", "--backend", "server"]
    for target in targets:
        given += ["--base-url", target.url]
    given += ["--data", str(data), "--out", str(out), "--mode", mode, "--format", "json"]
    return [*given, "--backend-arg", "attempts=2"]


def answers(out: Path, model: str = "served") -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((out / "answers" / f"{model}.json").read_text())
    return found


def manifest(out: Path, model: str = "served") -> dict[str, object]:
    found: dict[str, object] = json.loads((out / "manifest.json").read_text())["models"][model]
    return found


def outcomes(out: Path) -> Counter[str]:
    with sqlite3.connect(out / "answers.sqlite") as db:
        return Counter(row[0] for row in db.execute("SELECT outcome FROM answers"))


def right_letters(data: Path) -> dict[tuple[str, str], str]:
    """Image and question -> what :func:`looks` answers."""
    found = {}
    for item in read_mmad(data).items:
        pixels = decode(item.image)
        for question in item.questions:
            options = "".join(f"{letter}. {text}\n" for letter, text in question.options.items())
            found[item.key, question.text] = letter_for(pixels, f"Question: {question.text}\n{options}")
    return found


@pytest.mark.parametrize("mode", ["direct", "logits"])
def test_a_run_asks_everything_once_and_counts_it(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    out = tmp_path / "out"
    prices = ["--backend-arg", "price_per_million=[2.5,10]"]
    with serving(looks) as server:
        assert run_cli([*words(mmad_folder, out, server, mode=mode), *prices]) == ExitCode.OK
        assert len(server.asked) == QUESTIONS
        assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
        first = (out / "answers/served.json").read_bytes()
        assert run_cli(words(mmad_folder, out, server, mode=mode)) == ExitCode.OK
        assert len(server.asked) == QUESTIONS  # all was stored; other resources ask nothing anew
    assert (out / "answers/served.json").read_bytes() == first
    right = right_letters(mmad_folder)
    rows = answers(out)
    assert len(rows) == QUESTIONS == len(right)
    assert [row["gpt_answer"] for row in rows] == [
        right[row["image"], row["question"]["text"]] for row in rows
    ]
    record = manifest(out)
    replied = 1 if mode == "logits" else 20
    counters = record["counters"]
    assert isinstance(counters, dict)
    del counters["seconds"]
    assert counters == {
        "groups": 36,
        "requests": QUESTIONS,
        "retries": 0,
        "images_sent": sum(len(asked.pictures) for asked in server.asked),
        "prompt_tokens": 100 * QUESTIONS,
        "completion_tokens": replied * QUESTIONS,
        "spend_micro": QUESTIONS * (250 + 10 * replied),
    }
    assert record["fingerprint"] == {
        "served": "vlm",
        "image": {"max_side": 1024, "detail": "auto", "format": "png"},
    }
    assert record["failed"] == record["unparsed"] == 0
    capsys.readouterr()


def test_failures_on_the_way_change_no_byte_of_the_answers(
    mmad_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow, crowded, garbled and broken replies, and two servers of which one dies."""
    monkeypatch.setattr(client, "_MAX_PAUSE", 0.05)
    bad = [
        servers.slowly(0.05, status(503)),
        status(429),
        status(429, Retry_After="0"),
        status(200, b"{half"),
        status(200, {"choices": []}),
        servers.reset,
    ]

    def rough(number: int, asked: Asked) -> Act:
        return bad[number // 4 % len(bad)] if number % 4 == 3 else looks(number, asked)

    def dying(number: int, asked: Asked) -> Act:
        return looks(number, asked) if number < 20 else servers.reset

    more = ["--backend-arg", "attempts=40", "--concurrency", "6"]
    with serving(looks) as server:
        assert run_cli(words(mmad_folder, tmp_path / "calm", server)) == ExitCode.OK
    with serving(rough) as first, serving(dying) as second:
        assert run_cli([*words(mmad_folder, tmp_path / "rough", first, second), *more]) == ExitCode.OK
        assert len(first.asked) > 20 and len(second.asked) > 20
        sent = len(first.asked) + len(second.asked)
    files = [tmp_path / name / "answers/served.json" for name in ("calm", "rough")]
    assert files[0].read_bytes() == files[1].read_bytes()
    counters = manifest(tmp_path / "rough")["counters"]
    assert isinstance(counters, dict)
    assert counters["requests"] == sent and counters["retries"] == sent - QUESTIONS


def test_several_workers_share_the_work(mmad_folder: Path, tmp_path: Path) -> None:
    with serving(lambda number, asked: servers.slowly(0.01, looks(number, asked))) as server:
        assert run_cli(words(mmad_folder, tmp_path / "one", server)) == ExitCode.OK
        server.most_at_once = 0
        more = ["--workers", "2", "--concurrency", "5"]
        assert run_cli([*words(mmad_folder, tmp_path / "two", server), *more]) == ExitCode.OK
        assert len(server.asked) == 2 * QUESTIONS and server.most_at_once <= 4  # two for each worker
    files = [tmp_path / name / "answers/served.json" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_server_that_dies_for_good(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run completes with exit code 5; once the server is back, the same command asks the rest only."""
    out = tmp_path / "out"
    port = 0
    with serving(lambda number, asked: looks(number, asked) if number < 40 else servers.reset) as server:
        command = [*words(mmad_folder, out, server), "--concurrency", "2"]
        assert run_cli(command) == ExitCode.FAILED_ITEMS
        told = capsys.readouterr()
        assert "of its questions failed, 1.0% are allowed" in told.err
        port = int(server.url.rpartition(":")[2])
    rows = answers(out)
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert len(rows) == QUESTIONS and 60 < len(failed) < 100
    assert any("had failed 20 times in a row" in row["reason"] for row in failed)
    assert manifest(out)["failed"] == len(failed) == outcomes(out)["failed"]
    with serving(looks, port=port) as server:
        assert run_cli(command) == ExitCode.OK
        assert len(server.asked) == len(failed)
    assert outcomes(out) == Counter(answered=QUESTIONS)
    right = right_letters(mmad_folder)
    assert all(row["gpt_answer"] == right[row["image"], row["question"]["text"]] for row in answers(out))


def test_a_server_that_was_never_there(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as server:
        pass
    assert run_cli(words(mmad_folder, tmp_path / "out", server)) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert f"emit-bench: {server.url}/v1/chat/completions: no answer (ConnectError" in told
    assert "start the server, or correct --base-url" in told and "Traceback" not in told


@pytest.mark.parametrize("place", ["401", "400", "429", "text", "reasoning", "shape", "header"])
def test_the_key_is_written_nowhere(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    out = tmp_path / "out"
    echo = {"error": {"message": f"Incorrect key provided: Bearer {KEY}."}}
    act = {
        "401": status(401, echo),
        "400": status(400, echo),
        "429": status(429, echo, Retry_After="0"),
        "text": reply(f"A. {KEY}"),
        "reasoning": reply("A", reasoning=f"I was given {KEY}"),
        "shape": status(200, {"choices": KEY}),
        "header": status(307, Location=f"http://127.0.0.1:1/?key={KEY}"),
    }[place]
    with serving(lambda number, asked: act) as server:
        code = run_cli(["--debug", *words(mmad_folder, out, server), "--concurrency", "2"])
        assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
    told = capsys.readouterr()
    assert KEY not in told.out + told.err
    files = [path for path in tmp_path.rglob("*") if path.is_file() and mmad_folder not in path.parents]
    assert len(files) >= 2 and not [path for path in files if KEY.encode() in path.read_bytes()]
    if place in ("401", "header"):
        assert code == ExitCode.USAGE and "emit-bench: http://127.0.0.1" in told.err
        assert place == "header" or "Incorrect key provided: Bearer ***.; set EMIT_BENCH_API_KEY" in told.err
    elif place in ("text", "reasoning"):
        assert code == ExitCode.OK and all(row["gpt_answer"] == "A" for row in answers(out))
    else:
        assert code == ExitCode.FAILED_ITEMS
        reasons = {row["reason"] for row in answers(out)}
        assert place == "shape" or any("Incorrect key provided: Bearer ***." in reason for reason in reasons)


def test_a_model_without_log_probabilities(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(lambda number, asked: reply("A")) as server:
        assert run_cli(words(mmad_folder, tmp_path / "out", server, mode="logits")) == ExitCode.USAGE
    assert "the reply holds no log-probabilities; --mode logits needs them" in capsys.readouterr().err


def test_killed_and_run_again(mmad_folder: Path, tmp_path: Path) -> None:
    """Nothing that is stored is asked again, whenever the process is killed."""
    out = tmp_path / "out"
    with serving(lambda number, asked: servers.slowly(0.02, looks(number, asked))) as server:
        command = [*words(mmad_folder, out, server), "--concurrency", "3"]
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *command],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not (out / "answers.sqlite").exists() or stored(out) < 20:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(0.1)  # what is on its way arrives
        kept, before = stored(out), len(server.asked)
        assert 20 <= kept < QUESTIONS and before - kept <= 32  # groups of up to five questions were in flight
        assert run_cli(command) == ExitCode.OK
        assert len(server.asked) - before == QUESTIONS - kept
    right = right_letters(mmad_folder)
    assert all(row["gpt_answer"] == right[row["image"], row["question"]["text"]] for row in answers(out))


def stored(out: Path) -> int:
    """Answers in the store, as another process sees them."""
    try:
        return sum(outcomes(out).values())
    except sqlite3.OperationalError:  # not made yet
        return 0


def test_an_interrupt_keeps_what_is_there(mmad_folder: Path, tmp_path: Path) -> None:
    def behave(number: int, asked: Asked) -> Act:
        return looks(number, asked) if number < 30 else servers.stall(8)

    out = tmp_path / "out"
    with serving(behave) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *words(mmad_folder, out, server), "--concurrency", "4"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=servers.heed_interrupts,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(server.asked) < 34:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert time.monotonic() - started < 5  # it does not wait for what is on its way
    assert process.returncode == ExitCode.INCONCLUSIVE and "the same command continues" in told
    assert stored(out) > 10


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--models", "served"], "pass --weights served=NAME"),
        (["--models", "served", "--weights", "served=m"], "name the server with --base-url"),
        (["--models", "emit", "--base-url", "http://h"], "does not run on the backend 'server'"),
        (["--models", "internvl3-base", "--base-url", "h"], "--base-url: it is no address"),
        (["--models", "qwen2.5-vl", "--base-url", f"http://h?key={KEY}"], "leave the parameter key out"),
        (["--models", "qwen2.5-vl", "--quantize", "nf4"], "--quantize: on the backend 'server'"),
    ],
)
def test_wrong_usage_is_one_sentence(
    mmad_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], sentence: str
) -> None:
    given = [
        "run",
        *changes,
        "--backend",
        "server",
        "--data",
        str(mmad_folder),
        "--out",
        str(tmp_path / "out"),
    ]
    assert run_cli(given) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert sentence in told and KEY not in told
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_family_of_the_paper_behind_a_server(mmad_folder: Path, tmp_path: Path) -> None:
    """Its hub id is what the server is asked for."""
    assert names_asked_for(mmad_folder, tmp_path) == {"Qwen/Qwen2.5-VL-7B-Instruct"}


def test_a_family_of_the_paper_served_under_another_name(mmad_folder: Path, tmp_path: Path) -> None:
    assert names_asked_for(mmad_folder, tmp_path, "--weights", "qwen2.5-vl=mine") == {"mine"}


def names_asked_for(data: Path, folder: Path, *weights: str) -> set[str]:
    with serving(looks) as server:
        command = words(data, folder / "out", server)
        command[2:5] = ["qwen2.5-vl", *weights]
        assert run_cli(command) == ExitCode.OK
        return {asked.body["model"] for asked in server.asked}
