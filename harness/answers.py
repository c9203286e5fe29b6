"""MMAD's and EMIT's own answer files: reading anybody's, writing ours.

Such a file is a JSON list with one object per question: ``image``, ``question`` (an object or a text),
``question_type`` (as in ``mmad.json``), ``correct_answer``, ``gpt_answer`` and, in EMIT's, ``options``. Ours
add ``outcome``, ``response`` and ``number``, which other scorers ignore.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.jsonfiles import PACKED, read_json, write_json
from harness.records import Answer, Outcome
from harness.subtasks import RAW_TYPES

_LETTERS = frozenset("ABCDE")
_OPTION_LINE = re.compile(r"^\s*([A-E])[.:)]\s*(.*?)\s*$", re.MULTILINE)


def read_answers(path: Path, model: str | None = None) -> tuple[Answer, ...]:
    """The answers in an official answer file.

    A ``gpt_answer`` that is no single letter from A to E is kept as text without a letter, as the published
    scorers treat it.

    Args:
        path: the JSON file.
        model: what to call the model; the file's name without its suffix unless given.

    Raises:
        BadInput: the file is not such a list; the sentence names the entry.
    """
    content, _ = read_json(path)
    if not isinstance(content, list) or not content:
        raise BadInput(f"{path}: an answer file is a list with one object per question; this is not one")
    seen: Counter[str] = Counter()
    return tuple(
        _read_entry(path, i, entry, model or model_of(path), seen) for i, entry in enumerate(content)
    )


def model_of(path: Path) -> str:
    """What a model is called whose answer file does not say: the file's name.

    >>> model_of(Path("answers/emit.json")), model_of(Path("emit.json.gz"))
    ('emit', 'emit')
    """
    return Path(path.name.removesuffix(PACKED)).stem


def _read_entry(path: Path, index: int, entry: Any, model: str, seen: Counter[str]) -> Answer:
    where = f"{path}: entry {index}"
    if not isinstance(entry, dict):
        raise BadInput(
            f"{where}: it must be an object with image, question_type, correct_answer and gpt_answer"
        )
    image, raw_type = (_text(where, entry, name) for name in ("image", "question_type"))
    correct = _text(where, entry, "correct_answer").strip()
    if raw_type not in RAW_TYPES:
        raise BadInput(f"{where}: question_type {raw_type!r} is unknown; use one of {', '.join(RAW_TYPES)}")
    if "/" not in image.strip("/"):
        raise BadInput(
            f"{where}: image {image!r} names no dataset; write it as MMAD does: DATASET/PRODUCT/.../FILE, "
            "with good in it where the product is normal"
        )
    if "gpt_answer" not in entry:
        raise BadInput(f"{where}: gpt_answer is missing; add the model's letter, or null where there is none")
    said = entry["gpt_answer"]
    letter = said.strip() if isinstance(said, str) and said.strip() in _LETTERS else None
    number = entry.get("number", seen[image])
    seen[image] += 1
    outcome = Outcome.ANSWERED if letter else Outcome.UNPARSED
    if letter is None and entry.get("outcome") == Outcome.FAILED:
        outcome = Outcome.FAILED
    return Answer(
        model=model,
        key=image,
        number=number if isinstance(number, int) else seen[image] - 1,
        subtask=RAW_TYPES[raw_type],
        raw_type=raw_type,
        question=_question_text(entry.get("question")),
        options=_options(entry),
        correct=correct,
        letter=letter,
        outcome=outcome,
        text=str(entry.get("response", "" if said is None else said)),
        reason=str(entry.get("reason", "")),
    )


def _text(where: str, entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"{where}: {name} is missing or no text; add it as in MMAD's answer files")
    return value


def _question_text(question: Any) -> str:
    if isinstance(question, Mapping):
        question = question.get("text", "")
    return question if isinstance(question, str) else ""


def _options(entry: Mapping[str, Any]) -> dict[str, str]:
    options = entry.get("options")
    if isinstance(options, Mapping):
        return {str(letter): str(text) for letter, text in options.items()}
    text = options if isinstance(options, str) else _question_text(entry.get("question"))
    return dict(_OPTION_LINE.findall(text))


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write one model's answers as an official answer file, in the order given."""
    write_json(path, [_entry(answer) for answer in answers])


def _entry(answer: Answer) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "image": answer.key,
        "question": {"type": "text", "text": answer.question},
        "question_type": answer.raw_type,
        "options": dict(answer.options),
        "correct_answer": answer.correct,
        "gpt_answer": answer.letter or "",
        "outcome": str(answer.outcome),
        "response": answer.text,
        "number": answer.number,
    }
    if answer.reason:
        entry["reason"] = answer.reason
    return entry
