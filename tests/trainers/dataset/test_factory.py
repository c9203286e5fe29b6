"""A product line's folder becomes a benchmark that the reader takes, and a training set apart from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from harness.doctor import diagnose
from harness.mmad import read_mmad
from harness.plugins import load_registry
from tests.raw import mvtec, photo
from trainers.dataset.factory_command import from_folder
from trainers.samples import read_training_set


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(tmp_path / "cache"))


def run(folder: Path, out: Path, *options: str) -> Result:
    words = [str(folder), "--out", str(out), "--encoder", "mini", *options]
    return CliRunner().invoke(from_folder, words, obj=load_registry(), catch_exceptions=True)


def entries(out: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((out / "mmad.json").read_text())
    return table


def test_a_folder_becomes_a_sound_benchmark(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "line", good=6).root
    (root / "domain_knowledge.json").write_text(json.dumps({"line": {"screw": {"good": "Straight."}}}))
    result = run(root, tmp_path / "bench")
    assert result.exit_code == 0, result.output
    benchmark = read_mmad(tmp_path / "bench")
    found = diagnose(tmp_path / "bench", deep=True)
    assert found.healthy and [p.field for p in found.problems] == ["line.cable"]  # it has no knowledge
    assert len(benchmark.items) == 18  # three normal test images and six defective ones of each product
    assert benchmark.knowledge == {"line": {"screw": {"good": "Straight."}}}
    for item in benchmark.items:
        assert item.normal is ("/test/good/" in item.key)
        assert bool(item.masks) is not item.normal
        assert len(item.similar_templates) == len(item.random_templates) == 3
        assert set(item.similar_templates) == set(item.random_templates)
        assert all(
            "train/good" in path.as_posix() and item.object in path.parts for path in item.similar_templates
        )
        assert item.image.read_bytes() == (root / "/".join(item.key.split("/")[1:])).read_bytes()
    kinds = {q.subtask for item in benchmark.items for q in item.questions}
    assert kinds == {
        "anomaly_discrimination", "defect_classification", "defect_localization", "object_classification",
    }  # fmt: skip
    assert "emit-bench run --data" in result.output


def test_one_product_and_two_kinds_still_make_questions(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "nut", products=("nut",), kinds=("crack",)).root / "nut"
    assert run(root, tmp_path / "bench").exit_code == 0
    for entry in entries(tmp_path / "bench").values():
        for question in entry["conversation"]:
            assert len(question["Options"]) == (2 if question["type"] == "Anomaly Detection" else 4)


def test_what_is_trained_on_is_not_asked(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "line", good=12, each=8).root
    shutil.copy(root / "screw/test/hole/000.png", root / "screw/test/hole/900.png")  # a twin has one side
    for split in ("image", "product"):
        bench, train = tmp_path / f"bench-{split}", tmp_path / f"train-{split}"
        result = run(root, bench, "--training", str(train), "--split", split)
        assert result.exit_code == 0, result.output
        asked = {item.image.read_bytes() for item in read_mmad(bench).items}
        samples = read_training_set(train / "train.jsonl").samples
        learnt = {sample.query.read_bytes() for sample in samples if sample.query}
        assert asked and learnt and not asked & learnt
        if split == "product":
            asked_about = {item.object for item in read_mmad(bench).items}
            assert not asked_about & {sample.object for sample in samples}


def test_without_a_train_folder_half_of_the_good_ones_are_references(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "line", products=("nut",)).root
    shutil.move(root / "nut/train/good", root / "nut/test/more")
    for path in (root / "nut/test/more").iterdir():
        path.rename(root / "nut/test/good" / f"more_{path.name}")
    (root / "nut/test/more").rmdir()
    assert run(root, tmp_path / "bench").exit_code == 0
    items = read_mmad(tmp_path / "bench").items
    shown = {path for item in items for path in item.similar_templates}
    assert len(shown) == 2 and sum(item.normal for item in items) == 2
    assert not shown & {item.image for item in items}


def test_several_masks_stay_together(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "line", products=("nut",), kinds=("crack",), each=1).root
    mask = root / "nut/ground_truth/crack/000_mask.png"
    (root / "nut/ground_truth/crack/000").mkdir()
    mask.rename(root / "nut/ground_truth/crack/000/a.png")
    Image.new("L", (24, 18), 0).save(root / "nut/ground_truth/crack/000/b.png")
    assert run(root, tmp_path / "bench").exit_code == 0
    (item,) = [item for item in read_mmad(tmp_path / "bench").items if not item.normal]
    assert [path.name for path in item.masks] == ["a.png", "b.png"]


def test_damage_is_told_and_left_out(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "line", products=("nut",)).root
    (root / "nut/test/hole/001.png").write_bytes(b"broken")
    result = run(root, tmp_path / "bench")
    assert result.exit_code == 0
    assert "broken-image: 1 left out" in result.output and "line/nut/test/hole/001.png" in result.output
    assert not any("hole/001" in key for key in entries(tmp_path / "bench"))
    (line,) = (tmp_path / "bench/findings.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "broken-image"


@pytest.mark.parametrize("case", ["missing", "empty", "full", "no reference", "good in a name", "one name"])
def test_what_cannot_become_a_benchmark_is_one_sentence(tmp_path: Path, case: str) -> None:
    root, out = tmp_path / "line", tmp_path / "bench"
    if case == "empty":
        root.mkdir()
    elif case != "missing":
        mvtec(root, products=("nut",))
    if case == "full":
        photo(out / "mine.png", 1)
    if case == "no reference":
        shutil.rmtree(root / "nut/train/good")
        shutil.rmtree(root / "nut/test/good")
    if case == "good in a name":
        (root / "nut/test/hole").rename(root / "nut/test/not_good_hole")
    if case == "one name":
        shutil.copytree(root / "nut/test/good", root / "nut/test/ok")
        for path in (root / "nut/test/ok").iterdir():
            photo(path, 500 + int(path.stem))
    before = sorted(tmp_path.rglob("*"))
    result = run(root, out)
    told = {
        "missing": "no such folder", "empty": "no image in MVTec layout", "full": "not empty",
        "no reference": "no normal image", "good in a name": "word good", "one name": "become one name",
    }[case]  # fmt: skip
    assert told in str(result.exception), result.output
    kept = [path for path in sorted(tmp_path.rglob("*")) if not path.is_relative_to(tmp_path / "cache")]
    assert kept == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--name", "../evil"], "one printable part"), (["--name", "a/b"], "one printable part"),
        (["--name", ""], "one printable part"), (["--name", "goods"], "'goods' holds the word good"),
        (["--training", "{}/bench/inside"], "beside --out"), (["--training", "{}/full"], "something else"),
        (["--texts", "{}/texts"], "of no product of line"),
    ],
)  # fmt: skip
def test_what_is_named_wrongly_is_refused_before_anything_is_written(
    tmp_path: Path, options: list[str], told: str
) -> None:
    root = mvtec(tmp_path / "line", products=("nut",)).root
    photo(tmp_path / "full/mine.png", 1)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/domain_knowledge.json").write_text('{"other": {"nut": {"good": "Round."}}}')
    result = run(root, tmp_path / "bench", *(word.format(tmp_path) for word in options))
    assert told in str(result.exception), result.output
    assert {path.name for path in tmp_path.iterdir()} <= {"line", "full", "texts", "cache"}
    assert {path.name for path in (tmp_path / "full").iterdir()} == {"mine.png"}


def test_a_benchmark_of_whole_products_tells_of_those_alone(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "line").root
    result = run(root, tmp_path / "bench", "--training", str(tmp_path / "train"), "--split", "product")
    assert "of 1 product, 2 reference images" in result.output
    assert len({path.parts[-4] for path in (tmp_path / "bench").rglob("*.png")} & {"screw", "cable"}) == 1


def test_a_failure_half_way_leaves_no_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = mvtec(tmp_path / "line", products=("nut",)).root

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainers.dataset.factory.write_json", full_disk)
    assert run(root, tmp_path / "bench").exit_code != 0
    assert not (tmp_path / "bench").exists()
    monkeypatch.undo()
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(tmp_path / "cache"))
    assert run(root, tmp_path / "bench").exit_code == 0
