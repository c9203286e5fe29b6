"""From a benchmark folder through the real engine to the manifest, with tiny checkpoints of both models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.plugins import load_registry
from harness.records import Answer, Outcome
from harness.run import read_run
from harness.scoring import score
from plugins.families import emit
from tests import tiny
from tests.builders import write_mmad

IDS = ("emit", "internvl3-base")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name a small benchmark and the two checkpoints."""
    folder = tmp_path_factory.mktemp("world")
    root = write_mmad(folder / "mmad", per_product=2)
    places = [
        tiny.save(folder / name, *make()) for name, make in zip(IDS, (tiny.emit, tiny.internvl), strict=True)
    ]
    weights = [
        word for name, place in zip(IDS, places, strict=True) for word in ("--weights", f"{name}={place}")
    ]
    return ["--models", ",".join(IDS), "--data", str(root), "--device", "cpu", *weights]


def run(world: list[str], out: Path, *options: str) -> dict[str, tuple[Answer, ...]]:
    assert run_cli(["run", *world, "--out", str(out), *options]) == 0
    answers = read_run(out)[1]
    assert list(answers) == list(IDS)
    assert not any(a.outcome is Outcome.FAILED for given in answers.values() for a in given)
    return answers


@pytest.mark.parametrize("mode", ["direct", "think", "logits"])
def test_sharing_the_prefix_changes_no_answer(world: list[str], tmp_path: Path, mode: str) -> None:
    # Eight tokens are enough to differ; the protocol's own limit for thoughts is 512.
    source = Path(run_cli.__code__.co_filename).parent / "protocols/emit.toml"
    short = tmp_path / "short.toml"
    short.write_text(source.read_text(encoding="utf-8").replace("think = 512", "think = 8"), encoding="utf-8")
    options = ("--mode", mode, "--protocol", str(short))
    shared = run(world, tmp_path / "shared", *options)
    alone = run(world, tmp_path / "alone", "--no-share-prefix", *options)
    for model in IDS:
        assert len(shared[model]) == 54
        for one, other in zip(shared[model], alone[model], strict=True):
            assert (one.letter, one.text, one.prompt_tokens) == (
                other.letter,
                other.text,
                other.prompt_tokens,
            )
            assert (one.option_logprobs is None) == (mode == "think")
            if one.option_logprobs is not None:
                assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=1e-4)
        if mode == "logits":
            assert score(shared[model]).n_unanswered == 0


@pytest.mark.parametrize("shots", [0, 1, 2])
def test_the_manifest_counts_images_and_prefixes_once(world: list[str], tmp_path: Path, shots: int) -> None:
    answers = run(world, tmp_path / "out", "--mode", "logits", "--shots", str(shots))
    run(world, tmp_path / "alone", "--mode", "logits", "--shots", str(shots), "--no-share-prefix")
    shared, alone = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("out", "alone"))
    for model in IDS:
        counts, plain = (found["models"][model]["counters"] for found in (shared, alone))
        assert counts["images_encoded"] == shared["models"][model]["distinct_images"] == 12 + 6 * shots
        # Normal items have a pair group and, alone, the object questions; without references only the
        # knowledge keeps the two apart.
        assert counts["groups"] == shared["models"][model]["groups"] == 18
        assert plain["prefix_tokens"] == 0 < counts["prefix_tokens"]
        assert plain["suffix_tokens"] == sum(answer.prompt_tokens for answer in answers[model])
        assert counts["prefix_tokens"] + counts["suffix_tokens"] < plain["suffix_tokens"] / 2


def test_other_references_change_what_is_asked_but_object_questions(world: list[str], tmp_path: Path) -> None:
    runs = [run(world, tmp_path / str(k), "--mode", "logits", "--shots", str(k)) for k in (1, 2)]
    for model in IDS:
        for one, two in zip(*(found[model] for found in runs), strict=True):
            about_object = one.subtask.startswith("object_")
            # What is decoded side by side rounds otherwise; another prompt changes far more.
            assert (one.option_logprobs == pytest.approx(two.option_logprobs, abs=1e-4)) == about_object


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A model more, emit-wo-stage3, that nobody has trained here."""
    more = replace(emit.EMIT, id="emit-wo-stage3", weights={"mini": "trained:emit-wo-stage3"})
    monkeypatch.setattr(emit, "MODELS", (*emit.MODELS, more))
    load_registry.cache_clear()
    yield
    load_registry.cache_clear()


@pytest.mark.usefixtures("untrained")
def test_a_glob_leaves_out_what_has_no_weights_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named by itself, or with lost weights, a model is an error; named by a glob, it is told."""
    monkeypatch.chdir(tmp_path)
    assert run_cli(["run", "--models", "emit-wo-stage[23]", "--limit", "8", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert list(json.loads(said.out)["models"]) == ["emit-wo-stage2"]
    assert "emit-wo-stage3 is left out: model 'emit-wo-stage3' has not been trained here" in said.err
    assert "run `emit-bench train emit-wo-stage3` first" in said.err
    assert run_cli(["run", "--models", "emit-wo-stage3", "--limit", "8"]) == 2
    assert run_cli(["run", "--models", "emit-wo-stage3*", "--limit", "8"]) == 2
    assert "none of these has weights here" in capsys.readouterr().err
    broken = ["--weights", "emit-wo-stage3=nowhere"]
    assert run_cli(["run", "--models", "emit-wo-stage[23]", "--limit", "8", *broken]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
