"""Starting the other processes of a training, and not waiting for the dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.launch import automatic, companions

ROOT = Path(__file__).resolve().parents[2]


def test_one_process_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with companions(1, ["models"]):
        assert "WORLD_SIZE" not in os.environ
    monkeypatch.setenv("WORLD_SIZE", "4")  # torchrun has started the others
    with companions(2, ["models"]):
        assert os.environ["WORLD_SIZE"] == "4"


def test_the_others_run_the_same_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with companions(2, ["--version"]):
        assert (os.environ["WORLD_SIZE"], os.environ["RANK"]) == ("2", "0")
    assert "WORLD_SIZE" not in os.environ and "RANK" not in os.environ


def test_a_core_each_and_not_too_many() -> None:
    assert 1 <= automatic("cpu") <= 4
    assert automatic("cuda:1") == 1


def test_a_process_that_fails_is_not_waited_for() -> None:
    """The parent would sleep for a minute; the other one's bad command ends it, with its words."""
    code = (
        "import time, trainers.launch as launch\n"
        "launch.GRACE = 0.5\n"
        "with launch.companions(2, ['no-such-command']):\n"
        "    time.sleep(60)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=55, env=environment
    )
    assert run.returncode == 70
    assert "process 1 of the training ended with 2" in run.stderr
    assert "No such command 'no-such-command'" in run.stderr
