"""The builder: same input same bytes, nothing computed twice, every row true and traceable."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import BadInput
from plugins.layouts.mvtec import read_mvtec
from plugins.layouts.real_iad import read_real_iad
from plugins.layouts.vision import read_vision
from tests.raw import mvtec, photo
from tests.trainers.dataset.building import content, manifest, rows, run
from trainers.dataset.swift import write_swift
from trainers.dataset.texts import Texts
from trainers.samples import read_training_set


def test_the_same_input_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    first = run(tmp_path, data, out="a", per_type=2)
    shutil.rmtree(tmp_path / "kept")
    second = run(tmp_path, data, out="b", per_type=2)
    assert content(first.folder) == content(second.folder)
    assert content(run(tmp_path, data, out="b", per_type=2).folder) == content(first.folder)
    other = run(tmp_path, data, out="c", per_type=2, seed=1)
    assert {row["id"] for row in rows(other)} != {row["id"] for row in rows(first)}


def test_rows_follow_from_folders_and_masks(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data)
    by_task: dict[str, int] = defaultdict(int)
    for row in rows(built):
        by_task[row["task"]] += 1
        truth = row["options"][row["answer"]]
        *_, split, kind, _ = row["source"]["file"].split("/")
        good = kind == "good"
        if row["task"] == "anomaly_discrimination":
            assert truth == ("No." if good else "Yes.")
        if row["task"] == "defect_classification":
            assert truth == f"{kind.capitalize()}."
        if row["task"] == "object_classification":
            assert good and truth == f"{row['object'].capitalize()}."
        assert row["source"]["split"] == split
        assert (
            row["source"]["sha256"]
            == hashlib.sha256((data.root / row["source"]["file"]).read_bytes()).hexdigest()
        )
        assert (built.folder / row["query"]).read_bytes() == (data.root / row["source"]["file"]).read_bytes()
        (reference,) = row["references"]
        assert "/good/" in reference and row["object"] in reference and reference != row["query"]
        if row["source"]["masks"]:
            marked = np.asarray(Image.open(data.root / row["source"]["masks"][0]))
            y, x = (int(index.mean()) for index in np.nonzero(marked))
            assert row["source"]["cells"] == [3 * (y // 6) + x // 8]
    assert by_task == {
        "anomaly_discrimination": 20, "defect_classification": 12, "defect_localization": 12,
        "object_classification": 8,
    }  # fmt: skip
    assert len(read_training_set(built.folder / "train.jsonl").samples) == built.rows == 52


def test_the_manifest_explains_every_row(tmp_path: Path) -> None:
    built = run(tmp_path, mvtec(tmp_path / "D"))
    told = manifest(built)
    counts = told["counts"]
    assert (
        counts["questions"]
        == sum(counts["by_task"].values())
        == len(rows(built))
        == told["files"]["train.jsonl"]["rows"]
    )
    assert counts["samples"] == sum(counts["by_component"].values()) == 20
    assert counts["by_component"] == {"anomalous_images": 12, "normal_images": 8}
    assert counts["by_object"]["D/cable"] == {
        "questions": 26,
        "samples": 10,
        "defects": {"hole": 3, "scratch": 3},
    }
    assert (
        sum(n for tasks in counts["tree"].values() for found in tasks.values() for n in found.values()) == 52
    )
    digest = hashlib.sha256((built.folder / "train.jsonl").read_bytes()).hexdigest()
    assert told["files"]["train.jsonl"]["sha256"] == digest
    for by_options in counts["letters"].values():
        for letters in by_options.values():
            assert max(letters.values()) - min(letters.values()) <= 1


def test_a_changed_image_costs_itself_alone(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    first = run(tmp_path, data)
    assert first.work["images_decoded"] == first.work["features_computed"] == 20
    again = run(tmp_path, data)
    assert (again.work["files_hashed"], again.work["images_decoded"], again.work["features_computed"]) == (
        0,
        0,
        0,
    )
    photo(data.root / "screw/test/hole/001.png", 777)
    changed = run(tmp_path, data)
    assert (
        changed.work["files_hashed"],
        changed.work["images_decoded"],
        changed.work["features_computed"],
    ) == (1, 1, 1)
    assert changed.work["masks_decoded"] == 0
    assert (changed.folder / "images/D/screw/test/hole/001.png").read_bytes() == (
        data.root / "screw/test/hole/001.png"
    ).read_bytes()


@pytest.mark.parametrize("split", ["image", "product"])
def test_rows_of_one_image_are_never_divided(tmp_path: Path, split: str) -> None:
    data = mvtec(tmp_path / "D", products=("screw", "cable", "nut", "tile"), good=8, each=6)
    built = run(tmp_path, data, held_out=0.5, split=split)
    sides = {"train": rows(built), "heldout": rows(built, "heldout.jsonl")}
    digests = {side: {row["source"]["sha256"] for row in found} for side, found in sides.items()}
    assert digests["train"] and digests["heldout"]
    assert not digests["train"] & digests["heldout"]
    assert len(digests["train"]) == len(digests["heldout"])
    # What is held out is no reference of the training rows either.
    queries = {row["query"] for row in sides["heldout"]}
    assert not queries & {name for row in sides["train"] for name in row["references"]}
    objects = {side: {row["object"] for row in found} for side, found in sides.items()}
    assert (not objects["train"] & objects["heldout"]) is (split == "product")


def test_twins_and_contradictions_are_found(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "D").root
    shutil.copy(root / "screw/test/hole/000.png", root / "screw/test/hole/900.png")
    shutil.copy(root / "screw/ground_truth/hole/000_mask.png", root / "screw/ground_truth/hole/900_mask.png")
    shutil.copy(root / "cable/train/good/000.png", root / "cable/test/scratch/900.png")
    built = run(tmp_path, read_mvtec(root))
    named = {(finding.name, finding.file) for finding in built.findings}
    twins = {file for name, file in named if name == "twin"}
    assert len(twins) == 1 and twins < {"D/screw/test/hole/000.png", "D/screw/test/hole/900.png"}
    assert named - {("twin", *twins)} == {
        ("mask-missing", "D/cable/test/scratch/900.png"),
        ("contradiction", "D/cable/test/scratch/900.png"),
        ("contradiction", "D/cable/train/good/000.png"),
    }
    lines = [json.loads(line) for line in (built.folder / "findings.jsonl").read_text().splitlines()]
    assert {(line["name"], line["file"]) for line in lines} == named
    assert manifest(built)["findings"] == {
        "left_out": {"contradiction": 2, "twin": 1},
        "noted": {"mask-missing": 1},
    }


def test_a_damaged_image_gives_way_to_the_next(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D", products=("screw",), each=4)
    whole = {row["query"] for row in rows(run(tmp_path, data, per_type=2)) if "/hole/" in row["query"]}
    victim = sorted(whole)[0].removeprefix("images/D/")
    (data.root / victim).write_bytes(b"broken")
    built = run(tmp_path, data, per_type=2)
    now = {row["query"] for row in rows(built) if "/hole/" in row["query"]}
    assert len(now) == 2 and len(now & whole) == 1 and f"images/D/{victim}" not in now
    assert [finding.name for finding in built.findings] == ["broken-image"]


def test_a_product_without_another_normal_image_is_told(tmp_path: Path) -> None:
    built = run(tmp_path, mvtec(tmp_path / "D", good=1))
    left = {finding.file for finding in built.findings if finding.name == "no-reference"}
    assert left == {"D/cable/train/good/000.png", "D/screw/train/good/000.png"}
    assert {row["condition"] for row in rows(built)} == {"defective"}


def test_what_mmad_tests_is_no_training_query(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "D").root
    with pytest.raises(BadInput, match="MMAD asks about D's test images"):
        run(tmp_path, replace(read_mvtec(root), tested=True))
    taken = hashlib.sha256((root / "screw/test/hole/000.png").read_bytes()).hexdigest()
    built = run(tmp_path, read_mvtec(root), banned=frozenset({taken}))
    assert [(f.name, f.file) for f in built.findings] == [("benchmark-image", "D/screw/test/hole/000.png")]
    assert taken not in {row["source"]["sha256"] for row in rows(built)}


def test_pictures_of_unknown_condition_are_asked_for_their_product(tmp_path: Path) -> None:
    for i, name in enumerate(("cable", "lens", "ring", "wood")):
        photo(tmp_path / f"VISION/{name}/train/0.jpg", i)
    found = rows(run(tmp_path, read_vision(tmp_path / "VISION")))
    assert [row["task"] for row in found] == ["object_classification"] * 4
    assert all(row["references"] == [] and row["condition"] == "unknown" for row in found)


def test_the_release_preset_has_its_quirks(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    path = data.root / "screw/ground_truth/hole/000_mask.png"
    Image.new("L", Image.open(path).size, 0).save(path)
    paper, release = run(tmp_path, data, out="p"), run(tmp_path, data, out="r", preset="release")
    assert [f.name for f in paper.findings if f.left_out] == ["mask-empty"]
    relabelled = [row for row in rows(release) if row["source"]["file"] == "screw/test/hole/000.png"]
    assert [row["options"][row["answer"]] for row in relabelled] == ["No.", "Screw."]
    # Of a defective query the best reference is dropped; the other product's pool is the same in both.
    best, dropped = (
        {r["query"]: r["references"] for r in rows(b) if r["object"] == "cable"} for b in (paper, release)
    )
    defective = [query for query in best if "/good/" not in query]
    assert len(defective) == 6
    assert all(dropped[query] != best[query] for query in defective)
    assert all(dropped[query] == best[query] for query in set(best) - set(defective))


def test_swift_rows_hold_the_trainers_own_prompts(tmp_path: Path) -> None:
    built = run(tmp_path, mvtec(tmp_path / "D", products=("screw",)))
    first, second = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in write_swift(built.folder)
    )
    assert len(second) == built.rows
    assert {row["task_type"] for row in first} == {"anomaly_discrimination", "defect_localization"}
    for row in (*first, *second):
        user = next(turn["content"] for turn in row["messages"] if turn["role"] == "user")
        assert (
            user.count("<image>")
            == len(row["images"])
            == (1 if row["task_type"] == "object_classification" else 2)
        )
        assert all((built.folder / name).is_file() for name in row["images"])
        assert row["solution"] in "ABCD"
    assert first[0]["messages"][-1] == {"role": "assistant", "content": first[0]["solution"]}
    assert [turn["role"] for turn in second[0]["messages"]] == ["system", "user"]
    assert (
        "<think>" in second[0]["messages"][1]["content"]
        and "<think>" not in first[0]["messages"][1]["content"]
    )


def test_letters_are_balanced_on_each_side(tmp_path: Path) -> None:
    built = run(tmp_path, mvtec(tmp_path / "D", good=10, each=9), held_out=0.4)
    for name in ("train.jsonl", "heldout.jsonl"):
        letters: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows(built, name):
            letters[row["task"]][row["answer"]] += 1
        for found in letters.values():
            assert max(found.values()) - min(found.values()) <= 1


def test_twins_and_banned_images_give_way_to_others(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "D", products=("screw",), kinds=("hole",), each=6).root
    for i in range(30):
        shutil.copy(root / "screw/test/hole/000.png", root / f"screw/test/hole/c{i:02}.png")
        shutil.copy(
            root / "screw/ground_truth/hole/000_mask.png", root / f"screw/ground_truth/hole/c{i:02}_mask.png"
        )
    for seed in range(3):
        built = run(tmp_path, read_mvtec(root), per_type=5, seed=seed)
        holes = {row["source"]["sha256"] for row in rows(built) if row["condition"] == "defective"}
        assert len(holes) == 5


def test_views_of_one_specimen_stay_together(tmp_path: Path) -> None:
    root = tmp_path / "Real-IAD"
    for i in range(12):
        for view in range(3):
            photo(root / f"nut/OK/S{i:02}/v{view}.jpg", 100 * i + view)
    built = run(tmp_path, read_real_iad(root), held_out=0.5)
    parts = [
        {row["query"].rsplit("/", 1)[0] for row in rows(built, name)}
        for name in ("train.jsonl", "heldout.jsonl")
    ]
    shown = {name.rsplit("/", 1)[0] for row in rows(built) for name in row["references"]}
    assert parts[0] and parts[1] and not parts[0] & parts[1] and not shown & parts[1]


def test_what_ms_swift_would_take_for_an_image_is_refused(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data, texts=Texts({"D": {"screw": {"good": "An <image> of it."}}}, ()))
    with pytest.raises(BadInput, match="<image>"):
        write_swift(built.folder)


def test_what_has_no_name_is_no_option(tmp_path: Path) -> None:
    built = run(tmp_path, mvtec(tmp_path / "D", products=("A17", "screw", "cable"), kinds=("F03", "hole")))
    texts = {text for row in rows(built) for text in row["options"].values()}
    assert "." not in texts and {"Screw.", "Cable.", "Hole."} <= texts
    assert built.not_asked["object_classification: no-name"] == 4
    assert built.not_asked["defect_classification: no-name"] == 9
