"""What an experiment leaves: a design, and official answer files of every arm and seed.

``DESIGN`` says what the arms are; ``<arm>/seed-<n>.json.gz`` holds the answers and
``<arm>/seed-<n>.record.json`` what made them, ``strata.json.gz`` how hard each question is. All that is
reported follows from these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.folders import sha256_of
from harness.jsonfiles import read_json, write_json
from harness.panel import QuestionId
from harness.records import Answer

DESIGN = "experiment.json"
FORMAT = 1
_SEED = re.compile(r"seed-(\d+)\.json\.gz")


@dataclass(frozen=True)
class ArmResult:
    """One arm's answers by seed; none where it is not run yet."""

    id: str
    title: str
    answers: Mapping[int, tuple[Answer, ...]]
    planned: int  #: seeds in the design
    #: Seed -> what made it: settings, steps, machine (:mod:`trainers.experiment.records`), where it is told.
    records: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """A design with its results so far."""

    folder: Path
    design: Mapping[str, Any]
    arms: tuple[ArmResult, ...]
    #: Question -> share of right answers that were drawn before stage 2; None where nothing was drawn.
    chances: Mapping[QuestionId, float] | None

    def arm(self, name: str) -> ArmResult:
        """An arm by its id."""
        return next(arm for arm in self.arms if arm.id == name)


def is_experiment(path: Path) -> bool:
    """Whether a folder holds an experiment's results."""
    return (path / DESIGN).is_file()


def write_design(folder: Path, design: Mapping[str, Any]) -> None:
    """Write what an experiment is, in one step."""
    write_json(folder / DESIGN, {"format": FORMAT, **design})


def read_experiment(folder: Path) -> Experiment:
    """An experiment's design and results.

    Raises:
        BadInput: the folder holds none, or a file is broken.
    """
    from harness.answers import read_answers

    path = folder / DESIGN
    if not path.is_file():
        raise BadInput(f"{folder}: there is no {DESIGN}; name the results of an `emit-bench experiment`")
    design, _ = read_json(path)
    if (
        not isinstance(design, dict)
        or design.get("format") != FORMAT
        or not isinstance(design.get("arms"), list)
    ):
        raise BadInput(f"{path}: it is no design of format {FORMAT}; run the experiment again")
    arms = []
    for arm in design["arms"]:
        found, records = {}, {}
        for file in sorted((folder / arm["id"]).glob("seed-*.json.gz")):
            if (match := _SEED.fullmatch(file.name)) and int(match[1]) < arm["seeds"]:
                seed = int(match[1])
                records[seed] = _record_of(file)
                found[seed] = read_answers(file, arm["id"])
        answers = dict(sorted(found.items()))
        arms.append(ArmResult(arm["id"], arm["title"], answers, arm["seeds"], records))
    return Experiment(folder, design, tuple(arms), _chances(folder / "strata.json.gz"))


def _record_of(answers: Path) -> Mapping[str, Any]:
    """The record beside answers, which must be theirs: not of another run, nor of before an edit."""
    path = answers.with_name(answers.name.replace(".json.gz", ".record.json"))
    record = read_json(path)[0] if path.is_file() else None
    record = record if isinstance(record, dict) else {}
    wanted = record.get("answers_sha256")
    if wanted is not None and wanted != sha256_of(answers):
        raise BadInput(f"{answers}: these are not the answers of {path.name}; restore both, or delete both")
    return record


def _chances(path: Path) -> dict[QuestionId, float] | None:
    if not path.is_file():
        return None
    content, _ = read_json(path)
    try:
        draws = content["draws"]
        return {(str(key), int(number)): count / draws for key, number, count in content["correct"]}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(
            f"{path}: it holds no draws ({error}); delete it and run the experiment again"
        ) from error
