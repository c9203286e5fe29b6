"""A whole run from the command line: the answers of transformers, and it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import run_cli
from harness.errors import ExitCode
from plugins.vllm_backend.model import VllmModel
from tests.plugins.vllm import scene

pytest.importorskip("vllm", reason="vLLM is not installed; it needs an environment of its own")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("model", "family"), [("internvl3-base", "internvl"), ("emit", "emit")])
@pytest.mark.parametrize("mode", ["direct", "logits"])
def test_a_run_gives_the_answers_of_transformers(
    mmad_folder: Path, tmp_path: Path, model: str, family: str, mode: str
) -> None:
    folder = scene.save(tmp_path / "model", family)

    def run(backend: str) -> Any:
        out = tmp_path / backend
        words = f"run --models {model} --weights {model}={folder} --data {mmad_folder} --backend {backend}"
        words += f" --mode {mode} --device cpu --out {out} --limit 40 --max-failed 1"
        assert run_cli(words.split()) == ExitCode.OK
        return json.loads((out / f"answers/{model}.json").read_text())

    assert run("vllm") == run("transformers")


def test_a_run_that_was_cut_off_goes_on(
    mmad_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine fails in the middle: one sentence, what is answered is kept, and nothing is asked twice."""
    folder = scene.save(tmp_path / "model", "internvl")
    words = f"run --models internvl3-base --weights internvl3-base={folder} --data {mmad_folder}".split()
    words += f"--backend vllm --mode logits --device cpu --out {tmp_path / 'out'} --format json".split()
    step, steps, asked = VllmModel._step, iter(range(100)), []

    def failing(self: VllmModel, decoding: Any) -> Any:
        if next(steps) == 2:
            self.engine.llm_engine.step = lambda: 1 / 0
        yield from step(self, decoding)

    send = VllmModel._send

    def listening(self: VllmModel, one: Any, decoding: Any) -> Any:
        asked.append(one.group.id)
        yield from send(self, one, decoding)

    monkeypatch.setattr(VllmModel, "_send", listening)
    with monkeypatch.context() as patch:
        patch.setattr(VllmModel, "_step", failing)
        assert run_cli(words) == ExitCode.USAGE
    assert "vllm has failed (ZeroDivisionError: division by zero)" in capsys.readouterr().err
    before, asked[:] = list(asked), []
    assert run_cli(words) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)
    assert before and asked and len(asked) < 36  # of the benchmark's groups
