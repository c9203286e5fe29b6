"""Parity of two backends: what counts as the same, and the command from end to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.parity import compare
from harness.plugins import load_registry
from harness.records import Answer, Outcome
from tests.builders import write_distribution, write_mmad

#: A model on two made-up backends: on the second it answers otherwise where its environment says so.
TWO_FACED = """
import hashlib, os
from harness.hookspecs import BackendSpec, ModelSpec, hookimpl
from harness.records import Model, Response

class TwoFaced(Model):
    def __init__(self, request):
        self.odd = request.backend == "right"

    def answer(self, group, decoding):
        said = []
        for prompt in group.prompts:
            drawn = hashlib.sha256((group.query.digest + prompt.text).encode()).digest()
            flip = self.odd and drawn[1] < int(os.environ.get("FLIPS", "0"))
            letters = sorted(prompt.options)
            letter = letters[(drawn[0] + flip) % len(letters)]
            if self.odd and os.environ.get("FAILS"):
                raise RuntimeError("no answer today")
            said.append(Response(letter, 10 + (self.odd and bool(os.environ.get("LONGER"))), 1))
        return said

    def counters(self):
        return {"image_values": 12 + 12 * self.odd}

@hookimpl
def emit_bench_backends():
    return [BackendSpec(name, "-", lambda: None) for name in ("left", "right")]

@hookimpl
def emit_bench_models():
    return [ModelSpec("two-faced", "T", "t", "-", TwoFaced, lambda r: {"w": 1}, backends=("left", "right"))]
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = write_distribution(tmp_path / "site", "two", {"two": "two_faced"}, {"two_faced": TWO_FACED})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    load_registry.cache_clear()
    yield write_mmad(tmp_path / "mmad")
    load_registry.cache_clear()


def parity(data: Path, *options: str) -> int:
    return run_cli(
        [
            "parity",
            "two-faced",
            "--backends",
            "left,right",
            "--data",
            str(data),
            "--questions",
            "60",
            *options,
        ]
    )


@pytest.mark.parametrize(
    ("environment", "verdict", "code"),
    [
        ({}, "same", 0),
        ({"FLIPS": "60"}, "different", 1),
        ({"LONGER": "1"}, "different", 1),
        ({"FAILS": "1"}, "incomplete", 4),
    ],
)
def test_the_command_gives_a_verdict(
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    verdict: str,
    code: int,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert parity(data, "--format", "json", "--out", "there") == code
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == verdict
    assert found["questions"] == len(json.loads(Path("there/left/answers/two-faced.json").read_text())) > 40
    assert bool(found["flips"]) == ((verdict != "same" and "FLIPS" in environment) or verdict == "incomplete")
    assert found["backends"]["left"]["failed"] == 0
    assert (found["prompts_of_other_length"] > 0) == ("LONGER" in environment)


def test_the_table_names_the_questions(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLIPS", "90")
    assert parity(data) == 1
    said = capsys.readouterr().out
    assert "two-faced: " in said and "questions on left and right" in said
    assert "answers that differ: " in said and " question " in said and "more\n" in said
    assert "different: The backends do not ask or answer the same." in said
    assert Path("runs/parity-two-faced/right/answers.sqlite").is_file()


@pytest.mark.parametrize("backends", ["left", "left,left", "left,right,up", "left,"])
def test_two_backends_are_needed(data: Path, capsys: pytest.CaptureFixture[str], backends: str) -> None:
    assert run_cli(["parity", "two-faced", "--backends", backends, "--data", str(data)]) == 2
    assert "name two different backends" in capsys.readouterr().err


def test_an_unknown_backend_or_model_is_one_sentence(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["parity", "two-faced", "--backends", "left,rite", "--data", str(data)]) == 2
    assert "there is no backend 'rite'; did you mean right" in capsys.readouterr().err
    assert run_cli(["parity", "to-faced", "--backends", "left,right", "--data", str(data)]) == 2
    assert "did you mean two-faced" in capsys.readouterr().err


def answers(
    letters: Sequence[str | None], tokens: int = 5, outcome: Outcome = Outcome.ANSWERED
) -> list[Answer]:
    options = {"A": "x", "B": "y"}
    return [
        Answer("m", f"d/{n}", 0, "s", "r", "q", options, "A", letter, outcome, prompt_tokens=tokens)
        for n, letter in enumerate(letters)
    ]


def test_a_few_flips_on_the_same_prompts_are_rounding() -> None:
    both = ("a", "b")
    hundred = answers(["A"] * 100)
    assert compare("m", both, (hundred, hundred)).verdict == "same"
    assert compare("m", both, (hundred, answers(["B"] * 2 + ["A"] * 98))).verdict == "close"
    assert compare("m", both, (hundred, answers(["B"] * 3 + ["A"] * 97))).verdict == "different"
    assert compare("m", both, (hundred, answers(["B"] + ["A"] * 99, tokens=6))).verdict == "different"
    assert compare("m", both, (hundred, hundred[:-1])).failed == (1, 0)
    assert (
        compare("m", both, (hundred, answers([None] * 100, outcome=Outcome.FAILED))).verdict == "incomplete"
    )
    assert compare("m", both, ([], [])).verdict == "incomplete"


def test_what_states_no_letter_agrees_by_its_text_only() -> None:
    both = ("a", "b")
    silent = answers(["A"] * 50 + [None] * 50)
    other = [one._replace(text="other words") if one.letter is None else one for one in silent]
    assert compare("m", both, (silent, silent)).verdict == "same"
    assert compare("m", both, (silent, other)).verdict == "different"
    gibberish = answers([None] * 100, outcome=Outcome.UNPARSED)
    assert compare("m", both, (gibberish, gibberish)).verdict == "incomplete"
    assert compare("m", both, (gibberish, gibberish)).unparsed == (100, 100)
