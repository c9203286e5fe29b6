"""``emit-bench compare`` and ``score`` on runs, answer files and baselines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.answers import write_answers
from harness.cli import run_cli
from tests.harness.synthetic import answers, questions

ASKED = questions(40)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, every in zip(paths, (4, 3), strict=True):
        write_answers(path, answers(ASKED, [place % every > 0 for place in range(len(ASKED))]))
    return paths


def compare(*arguments: object) -> int:
    return run_cli(["compare", *map(str, arguments), "--resamples", "200"])


def test_two_answer_files(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(*files) == 0
    out = capsys.readouterr().out
    assert out.startswith("b against a: 320 questions on 80 images, rule official")
    assert "An answer file" in out
    assert compare(*files, "--format", "json") == 0
    (pair,) = json.loads(capsys.readouterr().out)["pairs"]
    assert (pair["a"], pair["b"]) == ("a", "b")
    average = next(test for test in pair["tests"] if test["metric"] == "average")
    assert average["delta"] == pytest.approx(average["current"] - average["baseline"])
    assert average["delta"] < 0


def test_other_questions(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    table = json.loads(files[1].read_text())
    files[1].write_text(json.dumps(table[:-3]))
    assert compare(*files) == 2
    assert "3 are in one of them only" in capsys.readouterr().err
    assert compare(*files, "--common") == 0
    assert "a and b share 317 questions, of 320 and 317." in capsys.readouterr().out
    files[1].write_text(json.dumps([{**table[0], "image": "X/o/good/0.png"}]))
    assert compare(*files, "--common") == 2
    assert "share no question" in capsys.readouterr().err


def test_which_models_are_meant(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(files[0]) == 2
    assert "holds one model only" in capsys.readouterr().err
    assert compare(*files, "--models", "a,nobody") == 2
    assert "it holds no model 'nobody'; it has b" in capsys.readouterr().err
    assert compare(*files, "--models", "a,b,c") == 2
    assert compare(*files, "--models", "a,b") == 0
    assert compare(files[0], "missing.json") == 2


def test_models_of_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mini_run: Callable[[Path], Path]
) -> None:
    run = mini_run(tmp_path / "run")
    assert compare(run, "--format", "json") == 0
    assert [pair["b"] for pair in json.loads(capsys.readouterr().out)["pairs"]] == ["n"]
    assert compare(run, "--models", "n,m") == 0
    assert "m against n" in capsys.readouterr().out
    baseline = tmp_path / "base.json"
    assert run_cli(["check", str(run), "--baseline", str(baseline), "--update"]) == 0
    capsys.readouterr()
    for source in (run, baseline):
        assert run_cli(["score", str(source), "--format", "json"]) == 0
    first, second = capsys.readouterr().out.split("\n}\n{", 1)
    assert json.loads(first + "\n}") == json.loads("{" + second)
