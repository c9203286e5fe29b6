"""Baseline files: what a gate needs of an old run, small enough for a repository.

One line an image: which questions were asked, the right letters, and each model's letters. So a later run
is compared question by question without the old one, and a diff shows what changed. ``-`` means an answer
without a letter, a blank a model that was not asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.jsonfiles import write_text
from harness.records import Answer, Outcome
from harness.scoring import AVERAGE, Rule, score
from harness.sources import Source
from harness.subtasks import RAW_TYPES, SUBTASK_KEYS

FORMAT = "emit-bench baseline 1"
#: The field's usual two letters for each subtask, as in AD for Anomaly Discrimination.
CODES = dict(zip(SUBTASK_KEYS, ("AD", "DC", "DL", "DD", "DA", "OC", "OA"), strict=True))
#: By which the file shows scores, for the eye: the one that a check judges by unless told otherwise.
SHOWN_RULE: Rule = "strict"
_SUBTASKS = {code: key for key, code in CODES.items()}
_RAW = {subtask: raw for raw, subtask in reversed(RAW_TYPES.items())}
_NONE, _NOT_ASKED = "-", " "
_LETTERS = "ABCDE"
_BENCHMARK = ("name", "world", "digest")
_PROTOCOL = ("name", "mode", "shots", "digest")


def is_baseline(content: Any) -> bool:
    """Whether a JSON file's content is a baseline of any version."""
    return isinstance(content, Mapping) and str(content.get("format", "")).startswith("emit-bench baseline")


def write_baseline(path: Path, source: Source, models: Sequence[str]) -> None:
    """Write the answers of some models of a run as a baseline.

    Raises:
        BadInput: the run is not finished, is no run, or a model's right answers are no single letters.
    """
    manifest = source.manifest
    if manifest is None:
        raise BadInput(f"{source.path}: a baseline is made of a run's folder, which tells its protocol")
    if not source.finished:
        raise BadInput(f"{source.path}: the run is not finished; continue it before it becomes a baseline")
    head = {
        "format": FORMAT,
        "rule": SHOWN_RULE,
        "benchmark": {name: manifest["benchmark"][name] for name in _BENCHMARK},
        "protocol": {name: manifest["protocol"][name] for name in _PROTOCOL},
        "models": {model: _told(source, model) for model in models},
        "columns": ["questions", "right", *models],
    }
    lines = [
        f"  {_dump(key)}: {_dump(row)}"
        for key, row in _rows({model: source.answers[model] for model in models}).items()
    ]
    text = json.dumps(head, indent=1, ensure_ascii=False).rstrip("\n}")
    write_text(path, text + ',\n "images": {\n' + ",\n".join(lines) + "\n }\n}\n")


def _told(source: Source, model: str) -> dict[str, Any]:
    manifest = source.manifest or {}
    told = manifest["models"].get(model, {})
    row = score(source.answers[model], SHOWN_RULE).rows[AVERAGE]
    scores = {key: None if row[key] is None else round(row[key] or 0, 2) for key in (*SUBTASK_KEYS, AVERAGE)}
    return {"title": told.get("title", model), "digest": told.get("digest"), "scores": scores}


def _dump(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)


def _rows(answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[str]]:
    """Image -> codes of its questions, right letters, and letters by model."""
    asked: dict[str, dict[int, Answer]] = {}
    letters: dict[tuple[str, str], dict[int, str]] = {}
    for model, given in answers.items():
        for answer in given:
            if len(answer.correct) != 1 or answer.correct not in _LETTERS:
                raise BadInput(
                    f"question {answer.number} of {answer.key}: the right answer {answer.correct!r} is no "
                    "letter from A to E; a baseline cannot hold it"
                )
            asked.setdefault(answer.key, {})[answer.number] = answer
            letters.setdefault((answer.key, model), {})[answer.number] = (
                answer.letter if answer.letter in tuple(_LETTERS) else _NONE
            )
    rows = {}
    for key, questions in sorted(asked.items()):
        numbers = sorted(questions)
        codes = [
            CODES[questions[number].subtask] + ("" if number == place else f"@{number}")
            for place, number in enumerate(numbers)
        ]
        said = [
            "".join(letters.get((key, model), {}).get(number, _NOT_ASKED) for number in numbers)
            for model in answers
        ]
        rows[key] = [" ".join(codes), "".join(questions[number].correct for number in numbers), *said]
    return rows


def read_baseline(path: Path, content: Any) -> Source:
    """A baseline file as a source of answers; questions have no wording and no options.

    Args:
        path: the file, to be named in messages.
        content: the JSON in it.

    Raises:
        BadInput: it is of another format, or an entry is broken.
    """
    if content.get("format") != FORMAT:
        raise BadInput(
            f"{path}: its format is {content.get('format')!r}, this version reads {FORMAT!r}; write it again "
            "with `emit-bench check RUN --baseline FILE --update`"
        )
    for name, wanted in (("benchmark", dict), ("protocol", dict), ("models", dict), ("images", dict)):
        if not isinstance(content.get(name), wanted):
            raise BadInput(f"{path}: {name} is missing or no object; write the baseline again")
    lacking = [
        f"{part}.{name}"
        for part, names in (("benchmark", _BENCHMARK), ("protocol", _PROTOCOL))
        for name in names
        if name not in content[part]
    ]
    models = list(content["models"])
    if content.get("columns") != ["questions", "right", *models]:
        lacking.append("columns")
    if lacking or not models:
        raise BadInput(f"{path}: {', '.join(lacking) or 'models'} is missing; write the baseline again")
    answers: dict[str, list[Answer]] = {model: [] for model in models}
    for key, row in content["images"].items():
        _read_row(path, key, row, answers)
    manifest = {**content, "status": "finished"}
    manifest.pop("images")
    return Source(path, {model: given for model, given in answers.items() if given}, manifest)


def _read_row(path: Path, key: str, row: Any, answers: Mapping[str, list[Answer]]) -> None:
    where = f"{path}: images: {key}"
    if not isinstance(row, list) or len(row) != 2 + len(answers) or not all(isinstance(p, str) for p in row):
        raise BadInput(f"{where}: it must be a list of {2 + len(answers)} texts; write the baseline again")
    codes, right, *said = row
    names = codes.split(" ")
    if {len(text) for text in (right, *said)} != {len(names)}:
        raise BadInput(f"{where}: there must be one letter a question; write the baseline again")
    for place, name in enumerate(names):
        code, _, number = name.partition("@")
        if code not in _SUBTASKS or not (number or "0").isdecimal() or right[place] not in _LETTERS:
            raise BadInput(
                f"{where}: {name!r} with {right[place]!r} is no question; write the baseline again"
            )
        subtask = _SUBTASKS[code]
        for (model, given), letters in zip(answers.items(), said, strict=True):
            letter = letters[place]
            if letter == _NOT_ASKED:
                continue
            if letter not in _LETTERS + _NONE:
                raise BadInput(f"{where}: {letter!r} is no letter from A to E; write the baseline again")
            given.append(
                Answer(
                    model=model,
                    key=key,
                    number=int(number or place),
                    subtask=subtask,
                    raw_type=_RAW[subtask],
                    question="",
                    options={},
                    correct=right[place],
                    letter=None if letter == _NONE else letter,
                    outcome=Outcome.UNPARSED if letter == _NONE else Outcome.ANSWERED,
                )
            )
