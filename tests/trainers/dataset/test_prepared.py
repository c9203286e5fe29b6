"""The mini world's training set goes through the readers, rules and describer that anybody's does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tqdm import tqdm

from harness.errors import BadInput
from harness.plugins import load_registry
from harness.records import TrainingSource
from plugins.mini import benchmark
from plugins.mini.training_world import raw_sources, write_training_world
from trainers.dataset.leakage import audit
from trainers.dataset.prepared import prepared
from trainers.samples import TrainingSet, read_training_set


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> TrainingSource:
    """A world of one look a family, unbuilt."""
    root = tmp_path_factory.mktemp("world")
    write_training_world(root, looks=1)
    return TrainingSource(raw_sources(root), "mini")


@pytest.fixture(scope="module")
def built(source: TrainingSource, tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMIT_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return read_training_set(prepared(source, load_registry()).path)


def test_the_mini_training_set_keeps_its_promises(built: TrainingSet) -> None:
    assert {one.task for one in built.samples} == {
        "anomaly_discrimination", "defect_classification", "defect_localization", "object_classification",
    }  # fmt: skip
    products = {product.folder.split("/")[1] for product in benchmark.products()}
    for one in built.samples:
        assert (one.object in products) == (one.query is None)
        assert len(set(one.options.values())) == len(one.options)
        assert one.rationale
        if one.dataset != "VISION":
            assert one.knowledge and len(one.references) == 1
    yes = [one.options[one.answer] == "Yes." for one in built.samples if one.task == "anomaly_discrimination"]
    assert 0.5 < sum(yes) / len(yes) < 0.8


def test_knowledge_reads_as_the_benchmarks_own(built: TrainingSet) -> None:
    texts = {text for one in built.samples for text in one.knowledge}
    assert all(text.startswith(" <") and "\n Description: " in text for text in texts)
    assert any(text.startswith(" <Normal>") for text in texts)


def test_its_words_are_the_mini_models_own(built: TrainingSet) -> None:
    places = {
        text for one in built.samples for text in one.options.values() if one.task == "defect_localization"
    }
    assert places == {
        "Top left.", "Top.", "Top right.", "Left.", "Center.", "Right.", "Bottom left.", "Bottom.",
        "Bottom right.",
    }  # fmt: skip


def test_the_manifest_lies_beside_it(built: TrainingSet) -> None:
    manifest = json.loads((built.path.parent / "manifest.json").read_text())
    assert manifest["counts"]["questions"] == len(built.samples)
    assert manifest["files"]["train.jsonl"]["sha256"] == built.digest
    assert manifest["findings"]["left_out"] == {}
    assert {source["role"] for source in manifest["sources"]} == {"images", "texts"}


def test_nothing_of_the_benchmark_is_in_it(built: TrainingSet) -> None:
    found = audit(
        built,
        load_registry().benchmarks["mini"].load(None),
        lambda name, total: tqdm(total=total, disable=True),
    )
    assert found.images == () and not any(question.leak for question in found.questions)


def test_it_is_built_once(source: TrainingSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(tmp_path))
    assert isinstance(source.content, type(raw_sources(tmp_path)))
    bare = replace(source, content=replace(source.content, describer=None, text_sources=()))
    path = prepared(bare, load_registry()).path
    changed = path.stat().st_mtime_ns
    assert prepared(bare, load_registry()).path == path and path.stat().st_mtime_ns == changed
    assert prepared(prepared(bare, load_registry()), load_registry()).path == path
    other = prepared(replace(bare, content=replace(bare.content, seed=1)), load_registry()).path
    assert other != path and other.read_bytes() != path.read_bytes()


def test_an_unknown_setting_is_refused(source: TrainingSource) -> None:
    odd = replace(source, content=replace(source.content, settings={"per_typ": "3"}))  # type: ignore[type-var]
    with pytest.raises(BadInput, match="per_typ"):
        prepared(odd, load_registry())
