"""The training file: every unfit line is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from tests.trainers import small
from trainers.samples import read_training_set


def test_samples_are_read_in_order_and_by_pair(tmp_path: Path) -> None:
    data = small.training_set(tmp_path, pairs=2)
    assert [one.id for one in data.samples] == ["ad0", "dl0", "dc0", "ad1", "dl1", "dc1", "text"]
    assert [[one.id for one in pair] for pair in data.pairs()] == [
        ["ad0", "dl0", "dc0"],
        ["ad1", "dl1", "dc1"],
        ["text"],
    ]
    assert data.samples[-1].query is None
    again = read_training_set(data.path)
    assert again.digest == data.digest
    data.path.write_text(data.path.read_text() + "\n")
    assert read_training_set(data.path).digest != data.digest  # the bytes count; blank lines are no samples
    assert len(read_training_set(data.path).samples) == 7


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"id": ""}, "line 1: id is ''; it must be a text"),
        ({"task": "counting"}, "task is 'counting'; it must be one of anomaly_discrimination"),
        ({"options": {"A": "Yes."}}, "options must map two or more letters to texts"),
        ({"answer": "E"}, "answer 'E' is no key of options (A, B)"),
        ({"query": None}, "neither a query image nor a description"),
        ({"references": "reference_0.png"}, "references must be a list of texts"),
        ({"references": ["gone.png"]}, "there is no image 'gone.png' beside the training file"),
        ({"query": "../query_0.png"}, "../query_0.png climbs out with '..'"),
        ({"query": 3}, "there is no image 3"),
        ({"knowledge": [1]}, "knowledge must be a list of texts"),
    ],
)
def test_unfit_lines_are_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    line = {**small.row("ad0", "anomaly_discrimination", 0), **changes}
    with pytest.raises(BadInput) as error:
        small.training_set(tmp_path, 1, [line])
    assert sentence in str(error.value) and "train.jsonl" in str(error.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with pytest.raises(BadInput, match="no such file"):
        read_training_set(path)
    for content, sentence in (
        ("", "holds no sample"),
        ("{", "line 1: broken JSON"),
        ("[1]", "line 1: it is no JSON object"),
    ):
        path.write_text(content)
        with pytest.raises(BadInput, match=sentence):
            read_training_set(path)
    small.training_set(tmp_path, 1)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(BadInput, match="line 5: id 'ad0' stands twice"):
        read_training_set(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        read_training_set(path)
