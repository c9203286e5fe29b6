"""What a job may take for its own: weights of the same facts, and a folder that nobody else works in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from harness.jsonfiles import write_json
from harness.run_folder import locked
from trainers.experiment import command, work
from trainers.experiment.jobs import Job, Places
from trainers.experiment.plan import Arm

FACTS = {"recipe": "emit", "settings": {"seed": 0}}
JOB = Job(Arm("emit", "EMIT", "emit"), 0, "emit", "f", None, FACTS)
SETTING: Any = None  #: where weights are there, nothing is asked of it


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "work", tmp_path / "results")


def leave_training(places: Places, facts: dict[str, Any]) -> Path:
    folder = places.folder(JOB)
    write_json(folder / work.RECORD, {"status": "finished", "facts": facts})
    (folder / "model").mkdir()
    (folder / "model" / work.WEIGHTS).touch()
    return folder


def test_weights_of_the_same_facts_are_taken(places: Places) -> None:
    folder = leave_training(places, FACTS)
    assert work.trained(SETTING, JOB, places) == folder / "model"


def test_weights_of_an_older_plan_do_not_answer_for_this_one(places: Places) -> None:
    leave_training(places, {**FACTS, "settings": {"seed": 1}})
    with pytest.raises(BadInput, match="another plan's training"):
        work.do_job(SETTING, JOB, places)
    assert not places.record(JOB).exists()


def test_two_experiments_do_not_do_one_job_at_once(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(work, "do_job", lambda setting, job, places: done.append(job.name))
    with locked(places.folder(JOB)), pytest.raises(BadInput, match="another run is writing"):
        command._do(SETTING_WITHOUT_STRATA, [JOB], places, JOB.name)
    assert not done
    command._do(SETTING_WITHOUT_STRATA, [JOB], places, JOB.name)
    assert done == [JOB.name]


class _Plan:
    strata = None


class _Setting:
    plan = _Plan()


SETTING_WITHOUT_STRATA: Any = _Setting()
