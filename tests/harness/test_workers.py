"""Several workers: the same answers whoever gives them, and nothing lost with a worker that dies."""

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
from harness.plugins import load_registry
from tests.builders import write_distribution, write_mmad

#: Answers from what it is shown; told so by its environment, it dies or fails to load.
FRAGILE = """
import hashlib, os, pathlib, time
from harness import BadInput
from harness.hookspecs import ModelSpec, hookimpl
from harness.records import Model, Response

class Fragile(Model):
    def answer(self, group, decoding):
        folder = pathlib.Path(os.environ["FRAGILE_FOLDER"])
        with (folder / "asked").open("a") as log:
            log.write("".join(f"{prompt.id} {os.getpid()}\\n" for prompt in group.prompts))
        seen = hashlib.sha256(group.query.digest.encode()).digest()[0]
        if seen % 32 == 3:
            fallen = folder / group.query.digest[:12]
            if os.environ.get("FRAGILE") == "always" or (
                os.environ.get("FRAGILE") == "once" and not fallen.exists()
            ):
                fallen.touch()
                os._exit(9)
        if os.environ.get("FRAGILE") == "bug":
            assert False, "a bug of ours"
        time.sleep(float(os.environ.get("FRAGILE_SECONDS", "0")))
        said = []
        for prompt in group.prompts:
            drawn = hashlib.sha256((group.query.digest + prompt.text).encode()).digest()
            said.append(Response(sorted(prompt.options)[drawn[0] % len(prompt.options)], 1, 1))
        return said

    def stream(self, units, decoding):
        trouble, count = os.environ.get("FRAGILE"), 0
        if trouble == "draws nothing":
            return
        for results in super().stream(units, decoding):
            count += 1
            if trouble == "stops" and count > 9:
                return
            if trouble != "drops" or count % 5:
                yield results * (1 + (trouble == "doubles"))

    def counters(self):
        return {"process": 0}

def load(request):
    if os.environ.get("FRAGILE") == "unloadable":
        raise BadInput("its weights are nowhere")
    if os.environ.get("FRAGILE") == "stillborn":
        os._exit(7)
    return Fragile()

@hookimpl
def emit_bench_models():
    return [ModelSpec("fragile", "Fragile", "t", "-", load, lambda r: {"w": 1}, backends=())]
"""
N_GROUPS = 48  # 24 images, query and pair apart


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A benchmark folder, and the model ``fragile`` installed for this process and its children."""
    site = write_distribution(
        tmp_path / "site", "fragile", {"fragile": "fragile_model"}, {"fragile_model": FRAGILE}
    )
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", f"{site}{os.pathsep}{Path(__file__).resolve().parents[2]}")
    monkeypatch.setenv("FRAGILE_FOLDER", str(tmp_path))
    load_registry.cache_clear()
    yield write_mmad(tmp_path / "mmad")
    load_registry.cache_clear()
    sys.modules.pop("fragile_model", None)


def evaluate(data: Path, out: Path, *options: str) -> int:
    command = ["run", "--models", "fragile,random-choice", "--data", str(data), "--out", str(out), *options]
    return run_cli([*command, "--batch", "2", "--format", "json"])


def left_behind(out: Path) -> dict[str, bytes]:
    """What a run says, without times."""
    names = ("answers/fragile.json", "answers/random-choice.json", "tables/comparison.csv")
    return {name: (out / name).read_bytes() for name in names}


def processes(folder: Path) -> set[str]:
    return {line.split()[1] for line in (folder / "asked").read_text().splitlines()}


def test_three_workers_say_what_one_says(world: Path, tmp_path: Path) -> None:
    assert evaluate(world, tmp_path / "one") == 0
    assert processes(tmp_path) == {str(os.getpid())}
    (tmp_path / "asked").unlink()
    assert evaluate(world, tmp_path / "three", "--workers", "3") == 0
    assert left_behind(tmp_path / "three") == left_behind(tmp_path / "one")
    assert len(processes(tmp_path)) == 3
    asked = Counter(line.split()[0] for line in (tmp_path / "asked").read_text().splitlines())
    assert set(asked.values()) == {1}


@pytest.mark.slow
def test_ray_workers_say_what_one_says(
    world: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(world, tmp_path / "one") == 0
    (tmp_path / "asked").unlink()
    os.environ["FRAGILE"] = "once"
    try:
        assert evaluate(world, tmp_path / "ray", "--workers", "2", "--executor", "ray") == 0
    finally:
        del os.environ["FRAGILE"]
    assert "a worker was lost; its image pairs are handed out again" in capfd.readouterr().err
    assert left_behind(tmp_path / "ray") == left_behind(tmp_path / "one")
    assert len(processes(tmp_path)) > 1  # one at least was put in place of one that was lost


def test_what_a_dead_worker_had_is_handed_out_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(world, tmp_path / "one") == 0
    monkeypatch.setenv("FRAGILE", "once")
    assert evaluate(world, tmp_path / "crew", "--workers", "2") == 0
    assert left_behind(tmp_path / "crew") == left_behind(tmp_path / "one")
    assert "died (exit code 9); its image pairs are handed out again" in capfd.readouterr().err


def test_workers_that_die_at_their_start_end_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAGILE", "stillborn")
    assert evaluate(world, tmp_path / "crew", "--workers", "2") == 2
    said = capfd.readouterr().err
    assert "died (exit code 7), as all before it, and none gives a result; memory may be short" in said
    assert said.count("handed out again") <= 6  # and not two for every batch


@pytest.mark.slow
def test_a_cluster_with_room_for_one_worker_is_enough(world: Path, tmp_path: Path) -> None:
    import ray

    assert evaluate(world, tmp_path / "one") == 0
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        assert evaluate(world, tmp_path / "ray", "--workers", "3", "--executor", "ray") == 0
    finally:
        ray.shutdown()
    assert left_behind(tmp_path / "ray") == left_behind(tmp_path / "one")


def test_a_group_under_which_workers_die_fails_and_the_rest_is_answered(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAGILE", "always")
    assert evaluate(world, tmp_path / "crew", "--workers", "2") == 5
    answers = json.loads((tmp_path / "crew/answers/fragile.json").read_text())
    failed = [answer for answer in answers if answer["outcome"] == "failed"]
    assert 0 < len(failed) < len(answers) / 2
    assert {answer["reason"] for answer in failed} == {
        "the worker process died (exit code 9) each of 2 times it was asked"
    }
    monkeypatch.delenv("FRAGILE")
    assert evaluate(world, tmp_path / "crew", "--workers", "2") == 0  # they are asked again


@pytest.mark.parametrize(
    ("trouble", "code", "said"),
    [("unloadable", 2, "its weights are nowhere"), ("bug", 70, "AssertionError: a bug of ours")],
)
def test_what_ends_a_worker_ends_the_run(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    trouble: str,
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("FRAGILE", trouble)
    assert evaluate(world, tmp_path / "crew", "--workers", "2") == code
    assert said in capfd.readouterr().err


def test_many_broken_images_in_a_row_hold_nobody_up(world: Path, tmp_path: Path) -> None:
    """They need no model, so a worker could wait for more while its parent waits for results."""
    data = write_mmad(tmp_path / "broken", per_product=24)
    queries = [path for path in data.rglob("*.png") if path.parts[-3] in ("image", "test")]
    assert len(queries) > 100
    for path in queries:
        path.write_bytes(b"no image")
    assert evaluate(data, tmp_path / "crew", "--workers", "2") == 5
    answers = json.loads((tmp_path / "crew/answers/fragile.json").read_text())
    assert {answer["outcome"] for answer in answers} == {"failed"}
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("trouble", ["stops", "draws nothing"])
def test_a_stream_that_ends_before_its_units_is_a_bug(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    workers: str,
    trouble: str,
) -> None:
    monkeypatch.setenv("FRAGILE", trouble)
    assert evaluate(world, tmp_path / "out", "--workers", workers) == 70
    assert "the model's stream ended before its units did" in capfd.readouterr().err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_group_that_a_model_forgets_is_a_failed_one(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    monkeypatch.setenv("FRAGILE", "drops")
    assert evaluate(world, tmp_path / "out", "--workers", workers) == 5
    answers = json.loads((tmp_path / "out/answers/fragile.json").read_text())
    assert len(answers) == 108
    assert "the model gave no result for it" in {answer.get("reason") for answer in answers}


def test_a_result_that_was_not_asked_for_ends_the_run(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAGILE", "doubles")
    assert evaluate(world, tmp_path / "out") == 70
    assert "which it was not asked, or twice" in capfd.readouterr().err


def test_a_run_that_is_all_there_starts_no_worker(world: Path, tmp_path: Path) -> None:
    assert evaluate(world, tmp_path / "out") == 0
    (tmp_path / "asked").unlink()
    assert evaluate(world, tmp_path / "out", "--workers", "3") == 0
    assert evaluate(world, tmp_path / "out", "--workers", "2", "--executor", "ray") == 0
    assert not (tmp_path / "asked").exists()


def test_a_killed_run_takes_its_workers_with_it_and_goes_on_where_it_was(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(world, tmp_path / "whole") == 0
    (tmp_path / "asked").unlink()
    monkeypatch.setenv("FRAGILE_SECONDS", "0.1")
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "run",
        "--models",
        "fragile,random-choice",
        "--workers",
        "2",
    ]
    command += ["--data", str(world), "--out", str(tmp_path / "killed"), "--batch", "2", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        deadline = time.monotonic() + 60
        while stored(tmp_path / "killed") < 20:
            assert started.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        started.send_signal(signal.SIGKILL)
        started.wait()
    kept = stored(tmp_path / "killed")
    workers = [int(pid) for pid in processes(tmp_path)]
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)
    monkeypatch.delenv("FRAGILE_SECONDS")
    (tmp_path / "asked").unlink()
    assert evaluate(world, tmp_path / "killed", "--workers", "2") == 0
    assert left_behind(tmp_path / "killed") == left_behind(tmp_path / "whole")
    assert len((tmp_path / "asked").read_text().splitlines()) <= 108 - kept  # nothing stored is asked again


def stored(out: Path) -> int:
    """Answers on disk."""
    path = out / "answers.sqlite"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"
