"""``emit-bench import-weights``: what it prints, and its one sentence with exit code 2."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from emit_model import EmitForConditionalGeneration
from harness.cli import run_cli
from harness.errors import ExitCode
from harness.hookspecs import ENTRY_POINT_GROUP
from harness.plugins import Registry
from tests import released

ADAPTED = "language_model.model.layers.0.self_attn.v_proj"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    released.write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pair = {f"{ADAPTED}.lora_A.weight": torch.ones(2, 48), f"{ADAPTED}.lora_B.weight": torch.ones(24, 2)}
    return released.write_adapter(tmp_path_factory.mktemp("adapter"), pair)


def run(*arguments: Any) -> int:
    point = EntryPoint("import-weights", "plugins.convert", ENTRY_POINT_GROUP)
    return run_cli(["import-weights", *map(str, arguments)], Registry([point]))


def test_it_says_where_the_folder_is_and_how_to_run_it(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "emit"
    assert run(source, out) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.err == "emit-bench: weight file 1 of 1 written\n"
    first, second = shown.out.splitlines()
    assert first.startswith(f"{out}: EMIT with ") and first.endswith(" parameters in float32")
    assert second == f"To run it: emit-bench run --models emit --weights emit={out} --data DIR"
    assert EmitForConditionalGeneration.from_pretrained(out).config.placeholders == 9 + 4


def test_an_adapter_goes_on_top_of_either_argument(source: Path, adapter: Path, tmp_path: Path) -> None:
    """``SOURCE --adapter ADAPTER`` and ``ADAPTER --base SOURCE`` are the same import."""
    assert run(source, tmp_path / "plain") == ExitCode.OK
    assert run(source, tmp_path / "one", "--adapter", adapter) == ExitCode.OK
    assert run(adapter, tmp_path / "two", "--base", source) == ExitCode.OK
    plain, one, two = (
        EmitForConditionalGeneration.from_pretrained(tmp_path / name).state_dict()
        for name in ("plain", "one", "two")
    )
    changed = {name for name, value in plain.items() if not value.equal(one[name])}
    assert changed == {"model.language_model.layers.0.self_attn.v_proj.weight"}
    assert all(value.equal(two[name]) for name, value in one.items())


SENTENCES = [
    (("{source}", "{here}"), "{here}: it exists and is no empty folder; name a new one"),
    (
        ("{adapter}", "{out}"),
        "{adapter}: it is an adapter; name the checkpoint below it, and only that, with --base",
    ),
    (
        ("{adapter}", "{out}", "--base", "{source}", "--adapter", "{adapter}"),
        "{adapter}: it is an adapter; name",
    ),
    (
        ("{source}", "{out}", "--base", "{source}"),
        "{source}: it is no adapter (it lacks adapter_config.json)",
    ),
    (("{here}", "{out}"), "{here}: there is no config.json; pass the folder of a whole checkpoint"),
    (("{source}", "{out}", "--adapter", "{source}"), "{source}: there is no adapter_config.json"),
    (("{here}/nowhere", "{out}"), "{here}/nowhere: there is no such folder; pass that of a whole checkpoint"),
    (("{here}/notes.txt", "{out}"), "{here}/notes.txt: there is no such folder"),
    (("{source}", "{out}", "--adapter", "{here}/nowhere"), "{here}/nowhere: there is no such folder"),
]


@pytest.mark.parametrize(("arguments", "sentence"), SENTENCES)
def test_bad_input_is_one_sentence_and_exit_code_2(
    source: Path,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    sentence: str,
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    places = {"source": source, "adapter": adapter, "here": tmp_path, "out": tmp_path / "out"}
    assert run(*(argument.format(**places) for argument in arguments)) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.err.startswith("emit-bench: " + sentence.format(**places))
    assert shown.err.count("\n") == 1 and not shown.out
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_checkpoint_without_weights(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert run(copy, tmp_path / "out") == ExitCode.USAGE
    assert "no .safetensors file (pickled weights are refused)" in capsys.readouterr().err


def test_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, plugins.convert; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
