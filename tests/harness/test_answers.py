from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import BadInput, score
from harness.answers import read_answers, write_answers
from harness.records import Answer, Outcome

EMIT = {
    "image": "DS-MVTec/bottle/image/good/000.png",
    "question": {"type": "text", "text": "Is there any defect in the object?"},
    "question_type": "Anomaly Detection",
    "options": {"A": "Yes.", "B": "No."},
    "correct_answer": "B",
    "gpt_answer": "B",
}
MMAD = {
    "image": "DS-MVTec/bottle/image/good/000.png",
    "question": {"type": "text", "text": "What is it? \nA. A bottle.\nB. A can.\n"},
    "question_type": "Object Structure",
    "correct_answer": "A",
    "gpt_answer": None,
}


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_both_shapes_are_read(tmp_path: Path) -> None:
    first, second = read_answers(write(tmp_path / "gpt.json", [EMIT, MMAD]))
    assert (first.model, first.dataset, first.letter, first.number) == ("gpt", "DS-MVTec", "B", 0)
    assert (first.options, first.outcome) == ({"A": "Yes.", "B": "No."}, Outcome.ANSWERED)
    assert (second.subtask, second.letter, second.number) == ("object_analysis", None, 1)
    assert (second.options, second.outcome) == ({"A": "A bottle.", "B": "A can."}, Outcome.UNPARSED)


@pytest.mark.parametrize(("said", "letter"), [(" C ", "C"), ("F", None), ("B.", None), ("", None), (3, None)])
def test_only_a_letter_is_a_letter(tmp_path: Path, said: Any, letter: str | None) -> None:
    (found,) = read_answers(write(tmp_path / "a.json", [{**EMIT, "gpt_answer": said}]))
    assert found.letter == letter


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    common = ("m", "VisA/pcb1/test/bad/0.JPG")
    options = {"A": "x", "B": "y"}
    answers = (
        Answer(
            *common,
            0,
            "defect_analysis",
            "Defect Analysis",
            "Why?",
            options,
            "A",
            "B",
            Outcome.ANSWERED,
            "B.",
        ),
        Answer(
            *common,
            1,
            "object_analysis",
            "Object Details",
            "What?",
            options,
            "A",
            None,
            Outcome.UNPARSED,
            "?",
        ),
        Answer(
            *common,
            2,
            "object_analysis",
            "Object Details",
            "?",
            options,
            "A",
            None,
            Outcome.FAILED,
            "",
            "OSError",
        ),
    )
    path = tmp_path / "deep" / "m.json"
    write_answers(path, answers)
    assert read_answers(path) == answers
    assert score(read_answers(path)) == score(answers)
    assert list(tmp_path.glob("deep/*")) == [path]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "an answer file is a list"),
        ([], "an answer file is a list"),
        ([EMIT, 3], "entry 1: it must be an object"),
        ([{**EMIT, "image": ""}], "entry 0: image is missing or no text"),
        ([{**EMIT, "question_type": "Colour"}], "entry 0: question_type 'Colour' is unknown; use one of"),
        ([{k: v for k, v in EMIT.items() if k != "gpt_answer"}], "entry 0: gpt_answer is missing"),
        ([{**EMIT, "correct_answer": None}], "entry 0: correct_answer is missing"),
    ],
)
def test_wrong_files_name_the_entry(tmp_path: Path, content: Any, sentence: str) -> None:
    path = write(tmp_path / "a.json", content)
    with pytest.raises(BadInput) as caught:
        read_answers(path)
    assert str(caught.value).startswith(str(path)) and sentence in str(caught.value)
