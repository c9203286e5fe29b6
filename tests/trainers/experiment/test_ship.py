"""Which run of an arm ships: its median, and only when all its seeds are there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.answers import write_answers
from harness.experiments import write_design
from tests.harness.synthetic import answers, questions
from trainers.experiment.jobs import Job
from trainers.experiment.plan import Arm
from trainers.experiment.ship import medians

ASKED = questions(10)
SCORES = {0: 0.9, 1: 0.5, 2: 0.7, 3: 0.6}  #: of four the lower middle one is seed 3


@pytest.fixture
def results(tmp_path: Path) -> Path:
    arms = [{"id": name, "title": name, "seeds": 4} for name in ("whole", "short", "kept")]
    digest = "a" * 64
    write_design(
        tmp_path,
        {
            "name": "x",
            "arms": arms,
            "comparisons": [],
            "strata": None,
            "benchmark": {"name": "mini", "world": "mini", "digest": digest},
            "protocol": {"name": "emit", "mode": "think", "shots": 1, "digest": digest},
        },
    )
    for name, seeds in (("whole", 4), ("short", 3), ("kept", 4)):
        for seed in range(seeds):
            right = [i < SCORES[seed] * len(ASKED) for i in range(len(ASKED))]
            write_answers(tmp_path / name / f"seed-{seed}.json.gz", answers(ASKED, right))
    return tmp_path


def jobs() -> list[Job]:
    arms = [
        Arm("whole", "Whole", "emit", 4, ships="emit"),
        Arm("short", "Short", "emit", 4, ships="emit-wo-sp"),
    ]
    arms.append(Arm("kept", "Kept", "emit", 4))
    return [Job(arm, seed, "emit", "", None, {}) for arm in arms for seed in range(4)]


def test_the_median_of_a_finished_arm_ships(results: Path) -> None:
    assert [job.name for job in medians(jobs(), results)] == ["whole:3"]


def test_a_plan_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    told = ["trainers.experiment.ship", "no.toml", "--work", str(tmp_path), "--results", str(tmp_path)]
    ended = subprocess.run(
        [sys.executable, "-m", *told],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert ended.returncode == 2 and "no.toml: it is no readable plan" in ended.stderr
    assert "Traceback" not in ended.stderr
