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
_REPAIR = "run the experiment again, which makes anew what is damaged, or restore it"
#: What a design has to hold; a name with a question mark may be missing, or null.
_SHAPE = {
    "name": str,
    "benchmark": {"name": str, "world": str, "digest": str},
    "protocol": {"name": str, "mode": str, "shots": int, "digest": str},
    "arms": [{"id": str, "title": str, "seeds": int, "recipe?": str}],
    "comparisons": [{"better": str, "worse": str, "primary": bool}],
    "strata?": {"arm": str, "draws?": int, "fingerprint?": str},
    "fingerprints?": dict,
}
_RECORD = {
    "fingerprint?": str,
    "learning?": {"grpo?": {"mean?": dict}},
    "protocol?": {"name": str, "mode": str, "digest": str},
    "machine?": dict,
}


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
    if not isinstance(design, dict) or design.get("format") != FORMAT:
        raise BadInput(f"{path}: it is no design of format {FORMAT}; run the experiment again")
    _require_shape(path, design, _SHAPE)
    _require_shape(path, list(design.get("fingerprints", {}).values()), [[str]], "fingerprints")
    arms, ids = [], {arm["id"] for arm in design["arms"]}
    for one in design["comparisons"]:
        if unknown := sorted({one["better"], one["worse"]} - ids):
            raise BadInput(f"{path}: comparisons: there is no arm {unknown[0]!r}; run the experiment again")
    for arm in design["arms"]:
        found, records = {}, {}
        for seed, file in seeds_done(folder / arm["id"]).items():
            if seed >= arm["seeds"]:
                continue
            record = _record_of(file)
            if "fingerprints" in design and record.get("fingerprint") != _planned(design, arm["id"], seed):
                continue  # made by other facts than this design's: not done yet
            records[seed] = record
            found[seed] = read_answers(file, arm["id"])
        arms.append(ArmResult(arm["id"], arm["title"], found, arm["seeds"], records))
    strata = design.get("strata")
    drawn = _chances(folder / "strata.json.gz", strata.get("fingerprint")) if strata else None
    return Experiment(folder, design, tuple(arms), drawn)


def seeds_done(folder: Path) -> dict[int, Path]:
    """The answer files of an arm's folder by seed, in order."""
    found = {int(match[1]): path for path in folder.glob("*.gz") if (match := _SEED.fullmatch(path.name))}
    return dict(sorted(found.items()))


def _planned(design: Mapping[str, Any], arm: str, seed: int) -> str | None:
    """The fingerprint of a job of the design."""
    of_arm = design["fingerprints"].get(arm, [])
    return of_arm[seed] if seed < len(of_arm) else None


def _require_shape(path: Path, value: Any, shape: Any, where: str = "") -> None:
    """Refuse what would fail later, where nobody could say which file is to blame."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise BadInput(f"{path}: {where or 'its content'} is no table; run the experiment again")
        for name, part in shape.items():
            optional, key = name.endswith("?"), name.rstrip("?")
            if not (optional and value.get(key) is None):
                _require_shape(path, value.get(key), part, f"{where}.{key}".lstrip("."))
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise BadInput(f"{path}: {where} is no list; run the experiment again")
        for i, one in enumerate(value):
            _require_shape(path, one, shape[0], f"{where}[{i}]")
    elif not isinstance(value, shape):
        raise BadInput(f"{path}: {where} is no {shape.__name__}; run the experiment again")


def _record_of(answers: Path) -> Mapping[str, Any]:
    """The record beside answers, which must be theirs: not of another run, nor of before an edit."""
    path = answers.with_name(answers.name.replace(".json.gz", ".record.json"))
    if not path.is_file():
        return {}
    record = _content(path)
    _require_shape(path, record, _RECORD)
    wanted = record.get("answers_sha256")
    if wanted is not None and wanted != sha256_of(answers):
        raise BadInput(f"{answers}: these are not the answers of {path.name}; {_REPAIR}")
    return dict(record)


def _content(path: Path) -> Any:
    """What a result file holds, which nobody wrote by hand."""
    try:
        return read_json(path)[0]
    except BadInput as error:
        raise BadInput(f"{str(error).rpartition(';')[0]}; {_REPAIR}") from error


def _chances(path: Path, wanted: str | None) -> dict[QuestionId, float] | None:
    """How often each question was answered correctly; None where nothing was drawn, or for another design."""
    if not path.is_file():
        return None
    content = _content(path)
    try:
        if wanted is not None and content.get("fingerprint") != wanted:
            return None
        draws = content["draws"]
        return {(str(key), int(number)): count / draws for key, number, count in content["correct"]}
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"{path}: it holds no draws ({error}); {_REPAIR}") from error
