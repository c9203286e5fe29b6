"""Descriptions in the query's stead: what they show, what they may not show, and what is no text."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from tests.raw import mvtec
from tests.trainers.dataset.building import manifest, rows, run
from trainers.dataset.texts import Description, Texts, read_texts, write_texts
from trainers.samples import read_training_set


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
