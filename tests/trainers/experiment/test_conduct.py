"""The order of jobs: what is done is left alone, what is shared is made once, a failure stops nobody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trainers.experiment import conduct as conducting
from trainers.experiment.conduct import LOG, Standing, Task, conduct, last_words
from trainers.experiment.jobs import Job, Places
from trainers.experiment.plan import Arm
from trainers.launch import COMPANION

ROOT = Path(__file__).resolve().parents[3]

#: Stands for a training: leaves its stage 1, then its result, and a line in a log of who began and ended.
WORK = """
import gzip, hashlib, json, pathlib, sys, time
name, log, head, record, answers, seconds, code = sys.argv[1:]
def say(word):
    with open(log, "a") as file:
        file.write(f"{word} {name}\\n")
say("begin")
if head:
    made = pathlib.Path(head)
    say("uses" if made.is_file() else "makes")
    time.sleep(float(seconds))
    made.parent.mkdir(parents=True, exist_ok=True)
    made.touch()
if int(code):
    say("fails")
    sys.exit(int(code))
for path in (record, answers):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
given = gzip.compress(b"[]")
pathlib.Path(answers).write_bytes(given)
made = {"fingerprint": "f-" + name, "answers_sha256": hashlib.sha256(given).hexdigest()}
pathlib.Path(record).write_text(json.dumps(made))
say("end")
"""


#: What a job does first: nobody else is in its folder, or was there and did it.
LOCKED = f"""
import pathlib, sys
sys.path.insert(0, "{ROOT}")
from harness.run_folder import locked
lock = locked(pathlib.Path("{{folder}}"), wait=True)
lock.__enter__()
if pathlib.Path("{{done}}").is_file():
    sys.exit(0)
"""


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "work", tmp_path / "results")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conducting, "POLL_SECONDS", 0.02)


def task(arm: str, seed: int, places: Places, stage1: str | None = None) -> Task:
    job = Job(Arm(arm, arm, "emit", 9), seed, "emit", f"f-{arm}:{seed}", stage1, {})
    return Task(job.name, job, lambda: job.is_done(places))


def run(
    tasks: list[Task], places: Places, tmp_path: Path, slots: int = 1, failing: str = "", first: str = ""
) -> tuple[Standing, list[str]]:
    log = tmp_path / "log"

    def command(one: Task, slot: int) -> list[str]:
        head = str(places.head(one.stage1)) if one.stage1 else ""
        paths = (str(places.record(one.job)), str(places.answers(one.job)))
        code = "3" if one.name == failing else "0"
        begin = first.format(folder=str(places.folder(one.job)), done=str(places.answers(one.job)))
        return [sys.executable, "-c", begin + WORK, one.name, str(log), head, *paths, "0.2", code]

    standing = conduct(tasks, places, command, slots)
    return standing, log.read_text().splitlines() if log.is_file() else []


def test_jobs_are_done_in_order_and_never_twice(places: Places, tmp_path: Path) -> None:
    tasks = [task("a", 0, places), task("a", 1, places), task("b", 0, places)]
    standing, log = run(tasks, places, tmp_path)
    assert standing.done == ("a:0", "a:1", "b:0")
    assert [line for line in log if line.startswith("begin")] == ["begin a:0", "begin a:1", "begin b:0"]
    again, log = run(tasks, places, tmp_path)
    assert again.done == standing.done and len(log) == 6


def test_another_fingerprint_is_done_again(places: Places, tmp_path: Path) -> None:
    one = task("a", 0, places)
    run([one], places, tmp_path)
    places.record(one.job).write_text(json.dumps({"fingerprint": "of an older plan"}))
    _, log = run([one], places, tmp_path)
    assert log.count("end a:0") == 2


def test_a_record_without_answers_is_no_result(places: Places, tmp_path: Path) -> None:
    one = task("a", 0, places)
    run([one], places, tmp_path)
    places.answers(one.job).unlink()
    assert not one.done()


@pytest.mark.parametrize("damage", [b"", b"[]", b"\x1f\x8b\x08half"])
def test_damaged_results_are_made_again(damage: bytes, places: Places, tmp_path: Path) -> None:
    one = task("a", 0, places)
    run([one], places, tmp_path)
    assert one.done()
    whole = places.answers(one.job).read_bytes()
    places.answers(one.job).write_bytes(damage)
    assert not one.done()
    places.answers(one.job).write_bytes(whole)
    places.record(one.job).write_bytes(damage)
    assert not one.done() and not one.job.is_anothers(places)


def test_a_shared_stage_1_is_made_once_while_others_do_something_else(places: Places, tmp_path: Path) -> None:
    tasks = [
        task("a", 0, places, "shared"),
        task("b", 0, places, "shared"),
        task("c", 0, places, "other"),
        task("d", 0, places, "shared"),
    ]
    standing, log = run(tasks, places, tmp_path, slots=2)
    assert set(standing.done) == {"a:0", "b:0", "c:0", "d:0"}
    assert sorted(line for line in log if line.startswith("makes")) == ["makes a:0", "makes c:0"]
    assert log.index("begin c:0") < log.index("end a:0") < log.index("begin b:0")


def test_a_failure_is_told_and_stops_nobody_else(places: Places, tmp_path: Path) -> None:
    tasks = [task("a", 0, places), task("b", 0, places)]
    standing, _ = run(tasks, places, tmp_path, failing="a:0")
    assert (standing.done, standing.failed) == (("b:0",), ("a:0",))
    assert "failed a:0" in standing.sentence
    again, _ = run(tasks, places, tmp_path)
    assert set(again.done) == {"a:0", "b:0"}


def test_an_end_without_a_result_is_a_failure(places: Places, tmp_path: Path) -> None:
    one = task("a", 0, places)
    standing = conduct([one], places, lambda task, slot: [sys.executable, "-c", "pass"])
    assert (standing.done, standing.failed) == ((), ("a:0",))


def test_the_last_try_says_why_it_failed(places: Places) -> None:
    one = task("a", 0, places)
    log = places.folder(one.job) / LOG
    told = "import sys; print('emit-bench: the disk is full\\n 3/9\\r 4/9\\nWarning: old'); sys.exit(2)"
    for script, reason in [
        (told, "the disk is full"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by signal 9"),
        ("import sys; print('half a line\\rwhole'); sys.exit(1)", "whole"),
        ("import sys; sys.exit(1)", "it said nothing"),
    ]:
        assert conduct([one], places, lambda task, slot, script=script: [sys.executable, "-c", script]).failed
        assert last_words(log) == reason
    assert "disk is full" in log.read_text()  # and what earlier tries said is kept
    assert last_words(log.with_name("none")) == "it said nothing"


def test_slots_are_not_exceeded(places: Places, tmp_path: Path) -> None:
    tasks = [task(name, 0, places, name) for name in "abcde"]
    _, log = run(tasks, places, tmp_path, slots=2)
    going = highest = 0
    for line in log:
        going += line.startswith("begin") - line.startswith("end")
        highest = max(highest, going)
    assert highest == 2


def test_what_another_experiment_does_is_left_to_it(places: Places, tmp_path: Path) -> None:
    """Two at once on the same folders: each job is begun once, and both end with everything done."""
    tasks = [task(name, seed, places) for name in "ab" for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(run, tasks, places, tmp_path, 1, "", LOCKED) for _ in range(2)]
    for standing, _ in (one.result() for one in ended):
        assert set(standing.done) == {"a:0", "a:1", "b:0", "b:1"} and not standing.failed
    begun = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("begin")]
    assert sorted(begun) == [f"begin {one.name}" for one in tasks]


def test_a_job_whose_experiment_is_gone_ends_at_once(tmp_path: Path) -> None:
    """Even one whose parent died before it could ask for its death signal."""
    told = "from trainers.launch import die_with_parent; die_with_parent(); print('lives')"
    gone = {**os.environ, COMPANION: "1"}  # some process, but not the one that starts this
    ended = subprocess.run([sys.executable, "-c", told], env=gone, capture_output=True, cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGTERM and not ended.stdout
    there = {**os.environ, COMPANION: str(os.getpid())}
    ended = subprocess.run(
        [sys.executable, "-c", told], env=there, capture_output=True, cwd=ROOT, check=False
    )
    assert ended.stdout == b"lives\n"
