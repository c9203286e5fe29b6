"""The builder: same input same bytes, nothing computed twice, every row true and traceable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.errors import BadInput
from harness.raw import RawDataset
from plugins.layouts.mvtec import read_mvtec
from plugins.layouts.real_iad import read_real_iad
from plugins.layouts.vision import read_vision
from tests.raw import encoder, mvtec, photo
from trainers.dataset.build import Built, Settings, build
from trainers.dataset.swift import write_swift
from trainers.dataset.texts import Description, Texts, read_texts, write_texts
from trainers.samples import read_training_set


def run(tmp_path: Path, *datasets: RawDataset, out: str = "out", **options: Any) -> Built:
    settings = {key: options.pop(key) for key in list(options) if key in Settings.__slots__}
    return build(datasets, tmp_path / out, Settings(**settings), encoder(), tmp_path / "kept", **options)


def rows(built: Built, name: str = "train.jsonl") -> list[dict[str, Any]]:
    lines = (built.folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def manifest(built: Built) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((built.folder / "manifest.json").read_text())
    return content


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


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


def test_images_that_no_row_names_go(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    run(tmp_path, data)
    built = run(tmp_path, data, per_type=1, normals=2)
    named = {name for row in rows(built) for name in (row["query"], *row["references"])}
    there = {path.relative_to(built.folder).as_posix() for path in (built.folder / "images").rglob("*.png")}
    assert there == named


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


def description(root: Path, image: str, defect: str | None, cell: int | None, **changes: Any) -> Description:
    digest = hashlib.sha256((root / image).read_bytes()).hexdigest()
    product = image.split("/")[0]
    found = Description(root.name, product, image, digest, defect, defect or "", cell, 0, "A screw.")
    return replace(found, **changes)


def test_a_description_stands_in_for_the_query(tmp_path: Path) -> None:
    data, tested = mvtec(tmp_path / "D"), mvtec(tmp_path / "T", start=100)
    texts = Texts(
        {"T": {"screw": {"good": "It is sound.", "rust": "It is red."}}},
        (
            description(
                tested.root, "screw/train/good/000.png", "rust", 4, text="A screw, red in the middle."
            ),
            description(tested.root, "screw/train/good/000.png", None, None),
            description(tested.root, "cable/train/good/000.png", None, None, digest="0" * 64),
        ),
    )
    built = run(tmp_path, data, text_datasets=[tested], texts=texts)
    found = [row for row in rows(built) if row["query"] is None]
    truths = [(row["task"], row["options"][row["answer"]]) for row in found]
    assert [pair for pair in truths if pair[0] != "defect_localization"] == [
        ("anomaly_discrimination", "Yes."), ("defect_classification", "Rust."),
        ("anomaly_discrimination", "No."), ("object_classification", "Screw."),
    ]  # fmt: skip
    assert found[2]["options"][found[2]["answer"]] in ("Center.", "Middle.")
    assert all(row["references"] == ["images/T/screw/train/good/000.png"] for row in found)
    assert found[0]["description"] == "A screw, red in the middle."
    assert found[0]["knowledge"] == ["It is sound.", "It is red."]
    assert [(f.name, f.file) for f in built.findings] == [("stale-text", "T/cable/train/good/000.png")]
    assert manifest(built)["counts"]["by_component"] == {
        "anomalous_images": 12, "normal_images": 8, "anomalous_texts": 1, "normal_texts": 1,
    }  # fmt: skip


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


@pytest.mark.parametrize(
    "files", [("thesis.tex",), ("manifest.json", "images/logo.png"), ("images/holiday.png",)]
)
def test_a_folder_of_something_else_is_not_touched(tmp_path: Path, files: tuple[str, ...]) -> None:
    for name in files:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(BadInput, match="something else"):
        run(tmp_path, mvtec(tmp_path / "D"))
    assert sorted(content(tmp_path / "out")) == sorted(files)


def test_a_link_in_place_of_the_images_is_refused(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data)
    shutil.move(built.folder / "images", tmp_path / "elsewhere")
    photo(tmp_path / "elsewhere/precious.png", 1)
    (built.folder / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="it is a link"):
        run(tmp_path, data)
    assert (tmp_path / "elsewhere/precious.png").is_file()


def test_what_was_made_from_the_old_rows_goes_with_them(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data, held_out=0.5)
    write_swift(built.folder)
    run(tmp_path, data)
    assert {path.name for path in built.folder.glob("*.jsonl")} == {"train.jsonl", "findings.jsonl"}


def test_the_set_does_not_change_when_a_raw_image_does(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built, linked = run(tmp_path, data), run(tmp_path, data, out="linked", link=True)
    victim = data.root / "screw/test/hole/001.png"
    before = victim.read_bytes()
    with victim.open("r+b") as file:  # as a program that overwrites in place
        file.write(b"changed")
    assert (built.folder / "images/D/screw/test/hole/001.png").read_bytes() == before
    assert (linked.folder / "images/D/screw/test/hole/001.png").read_bytes() != before


def test_images_of_equal_name_size_and_time_are_told_apart(tmp_path: Path) -> None:
    for turn, start in (("a", 0), ("b", 500)):
        root = mvtec(tmp_path / turn / "D", start=start).root
        for path in root.rglob("*.png"):
            if "ground_truth" not in path.parts:
                Image.open(path).save(path.with_suffix(".bmp"))
                path.unlink()
        for path in root.rglob("*.bmp"):
            os.utime(path, (10**9, 10**9))
        built = run(tmp_path, read_mvtec(root))
    for row in rows(built):
        assert (
            hashlib.sha256((built.folder / row["query"]).read_bytes()).hexdigest() == row["source"]["sha256"]
        )


def test_texts_may_not_show_what_is_held_out_or_tested(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D", products=("screw", "cable", "nut"), good=8)
    images = [image.name for image in data.images if image.condition == "normal"]
    texts = Texts({}, tuple(description(data.root, name, None, None) for name in images))
    for split in ("image", "product"):
        built = run(tmp_path, data, text_datasets=[data], texts=texts, held_out=0.5, split=split)
        apart = {row["source"]["sha256"] for row in rows(built, "heldout.jsonl")}
        products = {row["object"] for row in rows(built, "heldout.jsonl")}
        shown = [row for row in rows(built) if row["query"] is None]
        assert shown and not apart & {row["source"]["sha256"] for row in shown}
        if split == "product":
            assert not products & {row["object"] for row in shown}
        assert "held-out" in {finding.name for finding in built.findings}
    taken = texts.descriptions[0].digest
    built = run(tmp_path, data, text_datasets=[data], texts=texts, banned=frozenset({taken}))
    assert taken not in {row["source"]["sha256"] for row in rows(built)}


def test_no_moment_shows_two_builds_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = mvtec(tmp_path / "D", good=8, each=6)
    run(tmp_path, data, held_out=0.5)
    real, done = os.replace, []

    def dying(source: Path, target: Path) -> None:
        if target.suffix == ".jsonl":
            done.append(target.name)
            if len(done) == 2:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, held_out=0.5, seed=1)
    shown = {path.name for path in (tmp_path / "out").glob("*.json*") if not path.name.startswith(".")}
    assert shown == {done[0]}


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


def test_texts_with_odd_line_ends_come_through(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    odd = description(data.root, "screw/train/good/000.png", None, None, text="A\u2028screw\x85.")
    write_texts(tmp_path / "texts", {"D": {"screw": {"good": "It is\u2028sound."}}}, [odd])
    built = run(tmp_path, data, text_datasets=[data], texts=read_texts(tmp_path / "texts"))
    assert len(read_training_set(built.folder / "train.jsonl").samples) == built.rows


@pytest.mark.parametrize("spoil", ["twice", "good", "bytes", "cell", "key"])
def test_texts_that_cannot_be_are_refused(tmp_path: Path, spoil: str) -> None:
    root = mvtec(tmp_path / "D").root
    one = description(root, "screw/train/good/000.png", None, None)
    write_texts(tmp_path, {}, [one, replace(one, number=1)])
    path = tmp_path / "descriptions.jsonl"
    text = path.read_text()
    old, new = {
        "twice": ('"number": 1', '"number": 0'), "good": ('"defect": null', '"defect": "good"'),
        "cell": ('"cell": null', '"cell": 9'), "key": ('"words"', '"wordz"'), "bytes": ("", ""),
    }[spoil]  # fmt: skip
    changed = text.replace(old, new)
    path.write_bytes(b"\xff" if spoil == "bytes" else changed.encode())
    with pytest.raises(BadInput, match=r"descriptions\.jsonl"):
        read_texts(tmp_path)


def test_what_ms_swift_would_take_for_an_image_is_refused(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data, texts=Texts({"D": {"screw": {"good": "An <image> of it."}}}, ()))
    with pytest.raises(BadInput, match="<image>"):
        write_swift(built.folder)


_CHILD = """
import sys
from pathlib import Path
from plugins.layouts.mvtec import read_mvtec
from tests.raw import encoder
from trainers.dataset.build import Settings, build
root = Path(sys.argv[1])
print("ready", flush=True)
build([read_mvtec(root / "D")], root / "out", Settings(), encoder(), root / "kept")
"""


@pytest.mark.slow
def test_killed_anywhere_and_built_again_it_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D", products=("a", "b", "c", "d"), good=20, each=15)
    whole = content(run(tmp_path, data, out="whole").folder)
    shutil.rmtree(tmp_path / "kept")
    for pause in (0.0, 0.1, 0.2, 0.4):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.wait()
        lines = tmp_path / "out/train.jsonl"
        assert not lines.exists() or hashlib.sha256(lines.read_bytes()).hexdigest() == whole["train.jsonl"]
    assert content(run(tmp_path, data).folder) == whole
