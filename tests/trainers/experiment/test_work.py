"""What a job may take for its own: weights of the same facts, and a folder that nobody else works in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from harness.errors import BadInput
from harness.experiments import write_design
from harness.jsonfiles import write_json
from harness.run_folder import is_held, locked
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
    """The second waits for the first, and then finds what there is to do, if anything."""
    done: list[str] = []
    monkeypatch.setattr(work, "do_job", lambda setting, job, places: done.append(job.name))
    write_design(places.results, {"fingerprints": {"emit": ["f"]}})
    with ThreadPoolExecutor(1) as pool:
        with locked(places.folder(JOB)):
            second = pool.submit(command._do, SETTING_WITHOUT_STRATA, [JOB], places, JOB.name)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.2)
            assert is_held(places.folder(JOB)) and not done
        second.result(timeout=10)
    assert done == [JOB.name] and not is_held(places.folder(JOB))


def test_a_stage_1_that_nobody_vouches_for_is_not_begun_with(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ended between copying it and writing whose folder it is may have had another plan."""
    job = replace(JOB, stage1="s" * 64)
    own, head = places.folder(job) / "stage1" / work.HEAD, places.head(job.stage1 or "")
    begun: list[bytes | None] = []

    def train(recipe: object, request: object) -> None:
        begun.append(own.read_bytes() if own.is_file() else None)
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_bytes(own.read_bytes() if own.is_file() else made)

    made = save({"soft_prompt": torch.ones(2)})
    monkeypatch.setattr(work, "train", train)
    own.parent.mkdir(parents=True)
    own.write_bytes(b"of an older plan")
    work.trained(SETTING_THAT_ASKS_NOTHING, job, places)
    assert begun == [None] and head.read_bytes() == made  # not the old one, under the new name
    own.write_bytes(b"of an older plan")
    work.trained(SETTING_THAT_ASKS_NOTHING, job, places)
    assert begun[1:] == [made]
    own.unlink()
    head.write_bytes(made[:-3])  # damaged: made again, and not begun with
    work.trained(SETTING_THAT_ASKS_NOTHING, job, places)
    assert begun[2:] == [None] and head.read_bytes() == made


@pytest.mark.parametrize(
    ("planned", "result"),
    [
        ({}, None),
        ({"emit": []}, None),
        ({"emit": ["of a changed plan"]}, None),
        ({"emit": ["f"]}, "of another"),
    ],
)
def test_a_plan_that_changed_meanwhile_is_not_gone_on_with(
    planned: dict[str, list[str]], result: str | None, places: Places
) -> None:
    write_design(places.results, {"fingerprints": planned})
    if result:
        write_json(places.record(JOB), {"fingerprint": result})
    with pytest.raises(BadInput, match=r"emit:0 is another one there; was the plan changed"):
        command._do(SETTING_WITHOUT_STRATA, [JOB], places, JOB.name)


def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command._devices("cpu", 9)(3) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [command._devices(name, 2)(1) for name in ("auto", "cuda", "cuda:0", "cpu")] == [
        "cuda:1",
        "cuda:1",
        "cuda:0",
        "cpu",
    ]
    with pytest.raises(BadInput, match="there are 2; say 2"):
        command._devices("cuda", 3)


class _Plan:
    strata = None


class _Setting:
    plan = _Plan()

    def request(self, arm: Arm, seed: int, out: Path) -> None:
        return None


SETTING_WITHOUT_STRATA: Any = _Setting()
SETTING_THAT_ASKS_NOTHING: Any = _Setting()
