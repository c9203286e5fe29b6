"""Readers of raw datasets: the same records from every layout, and a finding for whatever does not pair."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.plugins import load_registry
from harness.raw import RawDataset, RawImage
from tests.raw import mask, photo
from trainers.dataset.sources import parse_sources, read_sources

LAYOUTS = load_registry().layouts
BOX = (0, 0, 4, 4)


def read(layout: str, root: Path) -> RawDataset:
    return LAYOUTS[layout].read(root)


def by_name(dataset: RawDataset) -> dict[str, RawImage]:
    return {image.name: image for image in dataset.images}


def findings(dataset: RawDataset) -> dict[str, str]:
    """File -> name of its finding."""
    return {finding.file: finding.name for finding in dataset.findings}


def test_the_papers_seven_datasets_have_a_layout() -> None:
    assert {"vision", "real-iad", "mpdd", "mvtec-ad", "mvtec-loco", "visa", "goodsad", "mvtec"} <= set(
        LAYOUTS
    )
    assert {name for name, spec in LAYOUTS.items() if spec.tested} == {
        "mvtec-ad",
        "mvtec-loco",
        "visa",
        "goodsad",
    }


@pytest.mark.parametrize(
    ("layout", "kind", "masks"),
    [
        ("mvtec-ad", "broken_large", ["000_mask.png"]),
        ("mpdd", "bend_and_parts_mismatch", ["000_mask.png"]),
        ("visa", "bad", ["000.png"]),
        ("goodsad", "surface_damage", ["000.png"]),
        ("mvtec-loco", "logical_anomalies", ["000/000.png", "000/001.png"]),
    ],
)
def test_layouts_like_mvtecs(tmp_path: Path, layout: str, kind: str, masks: list[str]) -> None:
    root = tmp_path / "Data"
    suffix = ".JPG" if layout == "visa" else ".png"
    photo(root / f"pcb1/train/good/000{suffix}", 1)
    photo(root / f"pcb1/test/good/000{suffix}", 2)
    photo(root / f"pcb1/test/{kind}/000{suffix}", 3)
    for name in masks:
        mask(root / f"pcb1/ground_truth/{kind}/{name}", BOX)
    found = read(layout, root)
    assert not found.findings
    normal, defective = (
        by_name(found)[f"pcb1/train/good/000{suffix}"],
        by_name(found)[f"pcb1/test/{kind}/000{suffix}"],
    )
    assert len(found.images) == 3
    assert (normal.condition, normal.defect, normal.masks, normal.split) == ("normal", "", (), "train")
    assert (defective.dataset, defective.object, defective.noun) == ("Data", "pcb1", "pcb")
    assert (defective.condition, defective.defect, defective.split) == ("defective", kind, "test")
    assert [
        path.relative_to(root / f"pcb1/ground_truth/{kind}").as_posix() for path in defective.masks
    ] == masks
    nameless = kind in ("bad", "logical_anomalies")
    assert defective.kind == ("" if nameless else kind.replace("_", " "))


def test_one_products_own_folder(tmp_path: Path) -> None:
    photo(tmp_path / "Gear Box/train/good/0.png", 1)
    photo(tmp_path / "Gear Box/test/ok/0.png", 2)
    photo(tmp_path / "Gear Box/test/crack/0.png", 3)
    found = by_name(read("mvtec", tmp_path / "Gear Box"))
    assert {image.object for image in found.values()} == {"Gear Box"}
    assert {name: image.condition for name, image in found.items()} == {
        "train/good/0.png": "normal", "test/ok/0.png": "normal", "test/crack/0.png": "defective",
    }  # fmt: skip


def test_real_iad(tmp_path: Path) -> None:
    root = tmp_path / "Real-IAD"
    photo(root / "audiojack/OK/S0001/a.jpg", 1)
    photo(root / "audiojack/NG/HS/S0002/seen.jpg", 2)
    mask(root / "audiojack/NG/HS/S0002/seen.png", BOX)
    photo(root / "audiojack/NG/HS/S0002/unseen.jpg", 3)
    mask(root / "audiojack/NG/HS/S0003/lonely.png", BOX)
    photo(root / "audiojack/NG/XX/S0004/strange.jpg", 4)
    mask(root / "audiojack/NG/XX/S0004/strange.png", BOX)
    found = read("real-iad", root)
    images = by_name(found)
    assert set(images) == {
        "audiojack/OK/S0001/a.jpg", "audiojack/NG/HS/S0002/seen.jpg", "audiojack/NG/XX/S0004/strange.jpg",
    }  # fmt: skip
    assert images["audiojack/OK/S0001/a.jpg"].condition == "normal"
    assert images["audiojack/NG/HS/S0002/seen.jpg"].kind == "scratch"
    assert images["audiojack/NG/XX/S0004/strange.jpg"].kind == ""
    assert findings(found) == {
        "Real-IAD/audiojack/NG/HS/S0002/unseen.jpg": "mask-missing",
        "Real-IAD/audiojack/NG/HS/S0003/lonely.png": "image-missing",
        "Real-IAD/audiojack/NG/XX": "unknown-code",
    }


def test_vision_says_nothing_of_condition(tmp_path: Path) -> None:
    photo(tmp_path / "V/Cable/train/1.jpg", 1)
    photo(tmp_path / "V/Cable/val/2.jpg", 2)
    found = read("vision", tmp_path / "V")
    assert [(image.name, image.condition, image.noun) for image in found.images] == [
        ("Cable/train/1.jpg", "unknown", "cable"), ("Cable/val/2.jpg", "unknown", "cable"),
    ]  # fmt: skip


def test_whatever_does_not_pair_is_listed(tmp_path: Path) -> None:
    root = tmp_path / "D"
    photo(root / "nut/test/hole/lonely.png", 1)
    photo(root / "nut/test/hole/00 ü.png", 2)
    photo(root / "nut/test/hole/shout.PNG", 3)
    mask(root / "nut/ground_truth/hole/00 ü_mask.png", BOX)
    mask(root / "nut/ground_truth/hole/shout_mask.png", BOX)
    mask(root / "nut/ground_truth/hole/gone_mask.png", BOX)
    mask(root / "nut/ground_truth/crack/never.png", BOX)
    (root / "nut/test/hole/notes.txt").write_text("x")
    (root / "nut/test/hole/deeper").mkdir()
    (root / "nut/test/hole/link.png").symlink_to(tmp_path / "nowhere")
    (root / "extra").mkdir()
    found = read("mvtec", root)
    assert findings(found) == {
        "D/nut/test/hole/lonely.png": "mask-missing",
        "D/nut/test/hole/00 ü.png": "odd-name",
        "D/nut/ground_truth/hole/00 ü_mask.png": "odd-name",
        "D/nut/test/hole/shout.PNG": "extension-case",
        "D/nut/ground_truth/hole/gone_mask.png": "image-missing",
        "D/nut/ground_truth/crack/never.png": "image-missing",
        "D/nut/test/hole/notes.txt": "not-an-image",
        "D/nut/test/hole/deeper": "unexpected-folder",
        "D/nut/test/hole/link.png": "dead-link",
        "D/extra": "unexpected-folder",
    }
    assert {name.rsplit("/", 1)[1]: bool(image.masks) for name, image in by_name(found).items()} == {
        "lonely.png": False, "00 ü.png": True, "shout.PNG": True,
    }  # fmt: skip


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "D/nut/train/good"
    source = photo(folder / "fine.png", 1)
    os.rename(photo(tmp_path / "x.png", 2), os.fsencode(folder) + b"/bad\xff.png")
    (folder / "line\nbreak.png").write_bytes(source.read_bytes())
    found = read("mvtec", tmp_path / "D")
    assert [image.name for image in found.images] == ["nut/train/good/fine.png"]
    assert sorted(findings(found).values()) == ["broken-name", "broken-name"]
    json.dumps([finding.file for finding in found.findings], ensure_ascii=False).encode()  # can be written


def test_names_file_says_what_codes_mean(tmp_path: Path) -> None:
    root = tmp_path / "D"
    photo(root / "A17/test/F03/0.png", 1)
    photo(root / "A17/test/misc/0.png", 2)
    names = {"objects": {"A17": "gear housing"}, "kinds": {"F03": "porosity", "misc": None}}
    (root / "names.json").write_text(json.dumps(names))
    found = by_name(read("mvtec", root))
    assert found["A17/test/F03/0.png"].noun == "gear housing"
    assert [image.kind for image in found.values()] == ["porosity", ""]


@pytest.mark.parametrize("content", ["[]", '{"kind": {}}', '{"kinds": {"a": 3}}', '{"objects": {"a": null}}'])
def test_an_unfit_names_file_is_refused(tmp_path: Path, content: str) -> None:
    photo(tmp_path / "D/nut/train/good/0.png", 1)
    (tmp_path / "D/names.json").write_text(content)
    with pytest.raises(BadInput, match=r"names\.json"):
        read("mvtec", tmp_path / "D")


def test_sources_are_recognised_by_name(tmp_path: Path) -> None:
    for name in ("MPDD", "VISION", "something"):
        (tmp_path / "world" / name).mkdir(parents=True)
    world = tmp_path / "world"
    assert parse_sources([str(world)], LAYOUTS) == (("mpdd", world / "MPDD"), ("vision", world / "VISION"))
    assert parse_sources([str(world / "MPDD")], LAYOUTS) == (("mpdd", world / "MPDD"),)
    assert parse_sources([f"mvtec={world / 'something'}"], LAYOUTS) == (("mvtec", world / "something"),)


@pytest.mark.parametrize(
    ("word", "told"), [("{}/something", "which layout"), ("{}/nowhere", "no folder"), ("mvtek={}", "mvtec")]
)
def test_sources_that_cannot_be_read_are_refused(tmp_path: Path, word: str, told: str) -> None:
    (tmp_path / "something").mkdir()
    with pytest.raises(BadInput, match=told):
        parse_sources([word.format(tmp_path)], LAYOUTS)


@pytest.mark.parametrize(
    ("layout", "name", "expected"),
    [
        ("mvtec", "VisA", True), ("mvtec", "mvtec_anomaly_detection", True), ("mvtec", "DS-MVTec", True),
        ("mvtec", "mvtec_loco_anomaly_detection", True), ("mvtec", "VisA_20220922", True),
        ("visa", "renamed", True), ("mvtec", "mine", False),
    ],
)  # fmt: skip
def test_what_mmad_tests_is_known_by_layout_and_by_name(
    tmp_path: Path, layout: str, name: str, expected: bool
) -> None:
    photo(tmp_path / name / "nut/train/good/0.png", 1)
    (dataset,) = read_sources([(layout, tmp_path / name)], LAYOUTS)
    assert dataset.tested is expected


def test_nothing_is_skipped_in_silence(tmp_path: Path) -> None:
    root = tmp_path / "D"
    photo(root / "nut/train/good/0.png", 1)
    stray = ("root.png", "nut/stray.png", "nut/test/direct.png", "nut/ground_truth/x.png")
    for number, name in enumerate(stray, 2):
        photo(root / name, number)
    photo(root / "nut/Test/hole/0.png", 8)
    photo(root / "nut/val/good/0.png", 9)
    mask(root / "nut/ground_truth/good/0_mask.png", BOX)
    found = findings(read("mvtec", root))
    assert found == {
        **{f"D/{name}": "unexpected-file" for name in stray},
        "D/nut/Test": "unexpected-folder", "D/nut/val": "unexpected-folder",
        "D/nut/ground_truth/good/0_mask.png": "mask-of-normal",
    }  # fmt: skip
    photo(tmp_path / "R/nut/OK/loose.jpg", 10)
    photo(tmp_path / "R/nut/OK/S1/0.jpg", 11)
    assert findings(read("real-iad", tmp_path / "R")) == {"R/nut/OK/loose.jpg": "unexpected-file"}
    photo(tmp_path / "V/nut/test/0.jpg", 12)
    photo(tmp_path / "V/nut/train/0.jpg", 13)
    assert findings(read("vision", tmp_path / "V")) == {"V/nut/test": "unexpected-folder"}


def test_codes_are_no_names(tmp_path: Path) -> None:
    for name in ("A17/test/F01", "A17/test/F02", "A17/train/good"):
        photo(tmp_path / "D" / name / "0.png", len(name))
    found = read("mvtec", tmp_path / "D")
    assert {(image.noun, image.kind) for image in found.images} == {("", "")}
    codes = {file for file, name in findings(found).items() if name == "unknown-code"}
    assert codes == {"D/A17/", "D/A17/test/F01", "D/A17/test/F02"}


def test_links_that_go_in_circles_and_names_that_speak_to_terminals(tmp_path: Path) -> None:
    root = tmp_path / "D"
    photo(root / "nut/train/good/0.png", 1)
    (root / "nut/train/self").symlink_to("self")
    os.makedirs(os.fsencode(root) + b"/nut/test/h\xff")
    photo(root / "nut/train/good" / "\x1b]0;pwned\x07.png", 2)
    found = read("mvtec", root)
    assert sorted(findings(found).values()) == ["broken-name", "broken-name", "dead-link"]
    assert all(finding.file.isprintable() for finding in found.findings)
    json.dumps([finding.file for finding in found.findings], ensure_ascii=False).encode()


def test_an_empty_source_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a/D/nut/train").mkdir(parents=True)
    with pytest.raises(BadInput, match="no image in the layout mvtec"):
        read_sources([("mvtec", tmp_path / "a/D")], LAYOUTS)
    photo(tmp_path / "a/D/nut/train/good/0.png", 1)
    photo(tmp_path / "b/D/nut/train/good/0.png", 2)
    with pytest.raises(BadInput, match="two sources are called D"):
        read_sources([("mvtec", tmp_path / "a/D"), ("mvtec", tmp_path / "b/D")], LAYOUTS)
