"""Whole trainings through the command line, on a tiny base: what they leave, and that nothing stops them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from emit_model import Contrast, EmitForConditionalGeneration, load_processor
from harness.cli import run_cli
from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.engine.reading import read_checkpoint
from plugins.families import emit as emit_plugin
from plugins.weights import resolve
from tests import tiny
from tests.trainers import small
from tests.trainers.commands import command

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("base") / "base", *tiny.internvl())


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.training_set(tmp_path_factory.mktemp("set"), pairs=3).path


def in_a_process(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=quiet,
        stderr=quiet,
    )


def logs(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/metrics.jsonl"))}


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path, rows: Path) -> Path:
    out = tmp_path_factory.mktemp("trained") / "emit"
    assert run_cli(command("emit", out, base, rows)) == 0
    return out


def test_a_training_leaves_what_it_promises(finished: Path) -> None:
    found = {path.name for path in finished.iterdir()}
    assert {"training.json", "stage1", "grpo", "adapter", "model"} <= found
    record = json.loads((finished / "training.json").read_text())
    assert record["status"] == "finished"
    assert record["facts"]["settings"]["grpo"]["beta"] == 0.01
    lines = [json.loads(line) for line in (finished / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"kl", "correct", "p0/4", "draws", "truncated", "scored_tokens", "sampler_gap"} <= set(lines[0])
    work = [json.loads(line) for line in (finished / "grpo" / "work.jsonl").read_text().splitlines()]
    assert work[0]["images_encoded"] > 0 and work[0]["seconds"] > 0
    assert (finished / "grpo" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_adapter_on_its_base_is_the_whole_model(finished: Path, base: Path) -> None:
    """Both folders load through the plugins; merged weights and logits agree."""
    models = []
    for name in ("model", "adapter"):
        found = resolve("emit", "emit", LoadRequest(world="mini", weights=str(finished / name)), {})
        model, _ = read_checkpoint("emit", "emit", found, torch.device("cpu"), torch.float32)
        models.append(model.state_dict())
    assert models[0].keys() == models[1].keys()
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=0, atol=1e-6)


def test_peft_reads_the_adapter(finished: Path, base: Path) -> None:
    from peft import PeftModel

    config = json.loads((finished / "adapter" / "config.json").read_text())
    plain = EmitForConditionalGeneration.from_internvl(base, Contrast.from_mapping(config["contrast"]))
    merged = PeftModel.from_pretrained(plain, finished / "adapter").merge_and_unload()
    wanted = weights(finished)
    moved = 0
    for name, value in merged.state_dict().items():
        stored = wanted.get(name.replace("model.language_model.", "language_model.model."))
        if stored is not None:
            torch.testing.assert_close(value, stored, rtol=0, atol=1e-6)
            moved += 1
    assert moved > 10


def test_the_trained_model_answers(finished: Path, tmp_path: Path) -> None:
    spec = emit_plugin.EMIT.spec()
    model = spec.load(LoadRequest(world="mini", weights=str(finished / "model")))
    assert model.model.config.comparison.layers == (1, 2)  # type: ignore[attr-defined]
    assert load_processor(finished / "model").tokenizer.convert_tokens_to_ids("<COMP_CONTEXT>") is not None


def test_another_command_does_not_take_the_folder(
    finished: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(command("emit", finished, base, rows)) == 2
    assert "holds a training already; pass --resume" in capsys.readouterr().err
    assert run_cli(command("emit", finished, base, rows, "--resume", grpo__beta="0.5")) == 2
    assert "holds another training" in capsys.readouterr().err


def test_resuming_a_finished_training_changes_nothing(finished: Path, base: Path, rows: Path) -> None:
    before, lines = weights(finished), logs(finished)
    assert run_cli(command("emit", finished, base, rows, "--resume")) == 0
    after = weights(finished)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert logs(finished) == lines


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_and_resumed_is_as_if_nothing_had_happened(tmp_path: Path, base: Path, rows: Path) -> None:
    """Six steps straight against kill -9 behind the fourth, checkpoints every second: equal bit for bit."""
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    many = {"grpo__max_steps": "6", "grpo__save_every": "2"}
    assert run_cli(command("emit", straight, base, rows, **many)) == 0
    process = in_a_process(command("emit", cut, base, rows, **many))
    path, deadline = cut / "grpo" / "metrics.jsonl", time.monotonic() + 120
    while not (path.is_file() and len(path.read_bytes().splitlines()) >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "model").exists()
    assert run_cli(command("emit", cut, base, rows, "--resume", **many)) == 0
    one, two = weights(straight), weights(cut)
    assert all(torch.equal(two[name], value) for name, value in one.items())
    assert logs(cut) == logs(straight)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_are_one(finished: Path, tmp_path: Path, base: Path, rows: Path) -> None:
    """gloo on this machine; the responses are the same, the weights to rounding."""
    out = tmp_path / "two"
    assert in_a_process(command("emit", out, base, rows, "--processes", "2")).wait(timeout=240) == 0
    one, two = weights(finished), weights(out)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-5)
    for stage in ("stage1", "grpo"):
        for first, second in zip(
            *(
                [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]
                for folder in (finished, out)
            ),
            strict=True,
        ):
            assert first.keys() == second.keys()
            for key, value in first.items():
                assert second[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize(
    "recipe",
    [
        "internvl3-sft",
        "internvl3-grpo",
        "emit-wo-stage1",
        "emit-wo-stage2",
        "emit-wo-text",
        "emit-wo-sp",
        "emit-wo-sp-ce",
        "emit-wo-resampling",
        "emit-wo-weighting",
        "emit-constant-weight",
        "emit-equal-draws",
    ],
)
def test_every_recipe_runs(recipe: str, tmp_path: Path, base: Path, rows: Path) -> None:
    short = {"stage1__max_steps": "1", "sft__max_steps": "1", "grpo__max_steps": "1"}
    assert run_cli(command(recipe, tmp_path / recipe, base, rows, **short)) == 0
    config = json.loads((tmp_path / recipe / "model" / "config.json").read_text())
    assert config["contrast"]["use_soft_prompt"] == (recipe not in ("emit-wo-sp", "emit-wo-sp-ce"))
    assert config["contrast"]["use_contrast"] == (recipe != "emit-wo-sp-ce")
    record = json.loads((tmp_path / recipe / "training.json").read_text())
    assert record["facts"]["settings"]["data"]["text_samples"] == (recipe != "emit-wo-text")


def test_the_papers_memory_savers_together(tmp_path: Path, base: Path, rows: Path) -> None:
    """4-bit weights, half precision, gradient checkpointing, two updates on one set of responses."""
    savers = {"model__quantise": "nf4", "model__checkpointing": "true", "grpo__iterations": "2"}
    out = tmp_path / "out"
    assert (
        run_cli(command("emit", out, base, rows, "--dtype", "bfloat16", **savers, grpo__max_steps="2")) == 0
    )
    lines = [json.loads(line) for line in (out / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["sampler_gap"] < 0.5 for line in lines)
    adapter = load_file(out / "adapter" / "adapter_model.safetensors")
    assert all(bool(value.isfinite().all()) for value in adapter.values())


@pytest.mark.parametrize(
    ("changes", "more", "sentence"),
    [
        ({"grpo__betta": "1"}, (), "there is no setting 'grpo.betta'; did you mean grpo.beta"),
        ({"grpo__beta": "much"}, (), "grpo.beta is 'much'; it must be a number"),
        ({"rollout__group": "3"}, (), "grpo.batch is 8; it must be a multiple of rollout.group (3)"),
        (
            {"rollout__unsolved": "ignore"},
            (),
            "rollout.unsolved is 'ignore'; it must be drop, neutral or keep",
        ),
        ({}, ("--preset", "blog"), "there is no preset 'blog'; use paper or release"),
        ({}, ("--set", "grpo.beta"), "write a key, an equals sign and a value"),
    ],
)
def test_bad_settings_end_in_one_sentence(
    changes: dict[str, str],
    more: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    base: Path,
    rows: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_cli(command("emit", tmp_path / "out", base, rows, *more, **changes)) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_set_without_anything_to_align_is_refused(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [small.row("dc0", "defect_classification", 0)]
    path = small.training_set(tmp_path / "set", 1, lines).path
    assert run_cli(command("emit", tmp_path / "out", base, path)) == 2
    assert "holds no sample that stage1 can learn from" in capsys.readouterr().err


def test_an_adapter_with_a_hole_is_refused(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(finished / "adapter", folder)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, path)
    found = resolve("emit", "emit", LoadRequest(world="mini", weights=str(folder)), {})
    with pytest.raises(BadInput, match=r"the adapter lacks 1 tensor\(s\), such as"):
        read_checkpoint("emit", "emit", found, torch.device("cpu"), torch.float32)


def test_half_precision_without_range_is_refused(
    tmp_path: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(command("emit", tmp_path / "out", base, rows, "--dtype", "float16")) == 2
    assert "use bfloat16 or float32" in capsys.readouterr().err


def test_unknown_recipes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["train", "emitt"]) == 2
    assert "did you mean emit" in capsys.readouterr().err
    assert run_cli(["train", "emit", "--benchmark", "mmad"]) == 2
    assert "pass --data FILE.jsonl" in capsys.readouterr().err


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["recipes", "--format", "json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert {"emit", "internvl3-sft", "internvl3-grpo", "emit-wo-stage1"} <= names


def test_a_damaged_checkpoint_is_not_resumed(
    tmp_path: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run_cli(command("emit-wo-stage2", out, base, rows)) == 0
    folder = next((out / "stage1" / "checkpoints").glob("step_*"))
    (folder / "weights.safetensors").write_bytes(b"nothing")
    capsys.readouterr()
    assert run_cli(command("emit-wo-stage2", out, base, rows, "--resume")) == 2
    assert "it is not what was saved" in capsys.readouterr().err
