"""kill -9 in the middle of a run: nothing is lost but the group in flight, nothing is asked twice."""

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

from tests.builders import write_distribution, write_mmad

SLOW = """
import hashlib, os, time
from harness.hookspecs import ModelSpec, hookimpl
from harness.records import Model, Response

class Slow(Model):
    def answer(self, group, decoding):
        with open(os.environ["SLOW_LOG"], "a") as log:
            log.write("".join(prompt.id + "\\n" for prompt in group.prompts))
        time.sleep(float(os.environ["SLOW_SECONDS"]))
        said = []
        for prompt in group.prompts:
            seen = hashlib.sha256((group.query.digest + prompt.text).encode()).digest()
            said.append(Response(sorted(prompt.options)[seen[0] % len(prompt.options)], 1, 1))
        return said

@hookimpl
def emit_bench_models():
    return [ModelSpec("slow", "Slow", "t", "-", lambda r: Slow(), lambda r: {"w": 1}, backends=())]
"""
QUESTIONS = 108
LARGEST_GROUP = 5


@pytest.fixture
def start(tmp_path: Path):
    root = write_mmad(tmp_path / "mmad")
    site = write_distribution(tmp_path / "site", "slow-model", {"slow": "slow_model"}, {"slow_model": SLOW})

    def run(out: str, log: str, seconds: float) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": str(site),
            "SLOW_LOG": str(tmp_path / log),
            "SLOW_SECONDS": str(seconds),
        }
        command = [sys.executable, "-m", "harness.cli", "run", "--models", "slow", "--data", str(root)]
        command += ["--out", str(tmp_path / out), "--format", "json"]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return run


def stored(out: Path) -> int:
    """Rows in the store, as another process sees them now."""
    try:
        with sqlite3.connect(out / "answers.sqlite") as db:
            return int(db.execute("SELECT COUNT(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_killed_and_run_again(tmp_path: Path, start) -> None:
    undisturbed = start("whole", "whole.log", 0)
    expected, _ = undisturbed.communicate(timeout=60)
    assert undisturbed.returncode == 0

    victim = start("run", "log", 0.08)
    deadline = time.monotonic() + 60
    while stored(tmp_path / "run") < 20:
        assert victim.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=30)
    kept = stored(tmp_path / "run")
    asked_before = len((tmp_path / "log").read_text().splitlines())
    assert 20 <= kept < QUESTIONS
    assert asked_before - kept <= LARGEST_GROUP  # what was lost is the group in flight

    again = start("run", "log", 0)
    shown, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    assert json.loads(shown)["models"] == json.loads(expected)["models"]
    counts = Counter((tmp_path / "log").read_text().splitlines())
    assert len(counts) == QUESTIONS
    assert sum(counts.values()) - QUESTIONS == asked_before - kept  # nothing that was stored was asked again
    assert stored(tmp_path / "run") == QUESTIONS
    files = [tmp_path / name / "answers" / "slow.json" for name in ("run", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()
