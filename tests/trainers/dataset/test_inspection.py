"""Inspection: damaged files end in a named finding, sound ones in facts, and nothing is opened twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import BadInput
from harness.raw import RawImage
from tests.raw import SIZE, mask, mvtec, photo
from trainers.dataset.inspection import Inspected, Inspector

Spoil = Callable[[Path, Path], None]  #: image, mask


def inspect(tmp_path: Path, *images: RawImage) -> list[Inspected]:
    with Inspector(tmp_path / "kept/facts.sqlite") as inspector:
        return list(inspector.inspect(images))


def defective(folder: Path, name: str = "0.png") -> RawImage:
    photo(folder / name, 1)
    mask(folder / "mask.png", (0, 0, 8, 6))
    return RawImage(
        "D", "nut", "nut", name, folder / name, "defective", "test", "hole", "hole", (folder / "mask.png",)
    )


def truncate(image: Path, mask_file: Path) -> None:
    image.write_bytes(image.read_bytes()[:-60])


def turned(image: Path, mask_file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(image).save(image, exif=exif)


def mode(name: str) -> Spoil:
    def spoil(image: Path, mask_file: Path) -> None:
        Image.open(image).convert(name).save(image)

    return spoil


def sixteen_bit(image: Path, mask_file: Path) -> None:
    Image.fromarray((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE[::-1]) * 97).astype(np.uint16)).save(image)


@pytest.mark.parametrize(
    ("spoil", "name", "left_out"),
    [
        (truncate, "broken-image", True),
        (lambda image, m: image.write_bytes(b"no image"), "broken-image", True),
        (lambda image, m: image.write_bytes(b""), "broken-image", True),
        (lambda image, m: image.unlink(), "broken-image", True),
        (lambda image, m: mask(m, (0, 0, 2, 2), (12, 9)), "mask-size", True),
        (lambda image, m: mask(m, (0, 0, 0, 0)), "mask-empty", True),
        (lambda image, m: mask(m, (0, 0, *SIZE)), "mask-full", True),
        (lambda image, m: mask(m, (0, 0, SIZE[0], SIZE[1] - 3)), "mask-large", False),
        (lambda image, m: truncate(m, image), "broken-mask", True),
        (lambda image, m: m.unlink(), "broken-mask", True),
        (turned, "mask-rotated", True),
        (sixteen_bit, "sixteen-bit", False),
        (mode("RGBA"), "alpha", False),
        (mode("P"), "palette", False),
    ],
)  # fmt: skip
def test_every_damage_has_a_name(tmp_path: Path, spoil: Spoil, name: str, left_out: bool) -> None:
    raw = defective(tmp_path)
    spoil(raw.path, raw.masks[0])
    (found,) = inspect(tmp_path, raw)
    assert (name, left_out) in [(finding.name, finding.left_out) for finding in found.findings]
    assert found.usable is not left_out
    assert all(str(tmp_path) not in finding.sentence for finding in found.findings)


def test_a_rotated_normal_image_is_turned_and_told(tmp_path: Path) -> None:
    path = photo(tmp_path / "0.png", 1)
    turned(path, path)
    (found,) = inspect(tmp_path, RawImage("D", "nut", "nut", "0.png", path, "normal", "train"))
    assert [(f.name, f.left_out) for f in found.findings] == [("rotated", False)]
    assert (found.facts.width, found.facts.height) == SIZE[::-1]


def test_a_sound_image_has_facts_and_no_finding(tmp_path: Path) -> None:
    (found,) = inspect(tmp_path, defective(tmp_path))
    assert found.findings == ()
    assert (found.facts.width, found.facts.height) == SIZE
    assert found.mask is not None and found.mask.cells == (48, 0, 0, 0, 0, 0, 0, 0, 0)


def test_masks_are_merged(tmp_path: Path) -> None:
    raw = defective(tmp_path)
    other = mask(tmp_path / "mask_1.png", (4, 0, 12, 6))
    both = replace(raw, masks=(*raw.masks, other))
    (found,) = inspect(tmp_path, both)
    assert found.mask is not None and found.mask.marked == 12 * 6


def test_a_jpeg_mask_is_cut_at_half(tmp_path: Path) -> None:
    raw = defective(tmp_path)
    lossy = tmp_path / "mask.jpg"
    Image.open(raw.masks[0]).save(lossy, quality=40)
    assert (np.asarray(Image.open(lossy)) > 0).sum() > 48  # JPEG's ringing
    jpeg = replace(raw, masks=(lossy,))
    (found,) = inspect(tmp_path, jpeg)
    assert found.mask is not None and abs(found.mask.marked - 48) <= 6


def test_nothing_is_opened_twice_and_a_change_is_seen(tmp_path: Path) -> None:
    images = mvtec(tmp_path / "D").images
    work = []
    for turn in range(3):
        if turn == 2:
            photo(images[0].path, 999)
        with Inspector(tmp_path / "facts.sqlite") as inspector:
            before = list(inspector.inspect(images))
        work.append(dict(inspector.counters))
    different = len({path.read_bytes() for image in images for path in image.masks})
    assert len(before) == 20 and different > 3
    assert work == [
        {"files_hashed": 32, "images_decoded": 20, "masks_decoded": different},
        {"files_hashed": 0, "images_decoded": 0, "masks_decoded": 0},
        {"files_hashed": 1, "images_decoded": 1, "masks_decoded": 0},
    ]


def test_a_broken_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "facts.sqlite").write_bytes(b"not a database, at all" * 50)
    with pytest.raises(BadInput, match="delete it"):
        Inspector(tmp_path / "facts.sqlite")


def test_what_is_kept_survives_a_process_that_dies(tmp_path: Path) -> None:
    images = mvtec(tmp_path / "D").images
    inspector = Inspector(tmp_path / "facts.sqlite")
    list(inspector.inspect(images))
    other = sqlite3.connect(tmp_path / "facts.sqlite")  # without closing the first: as after a kill
    assert other.execute("SELECT COUNT(*) FROM files").fetchone() == (32,)


def test_a_passing_fault_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = defective(tmp_path)
    real = Image.open

    def exhausted(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files", str(raw.path))

    monkeypatch.setattr(Image, "open", exhausted)
    (found,) = inspect(tmp_path, raw)
    assert [finding.name for finding in found.findings] == ["broken-image"]
    assert str(tmp_path) not in found.findings[0].sentence
    monkeypatch.setattr(Image, "open", real)
    assert inspect(tmp_path, raw)[0].usable


def test_missing_masks_are_not_taken_for_each_other(tmp_path: Path) -> None:
    raws = [defective(tmp_path / name) for name in ("a", "b")]
    for raw in raws:
        raw.masks[0].unlink()
    assert not any(found.usable for found in inspect(tmp_path, *raws))
    mask(raws[0].masks[0], (0, 0, 8, 6))
    assert [found.usable for found in inspect(tmp_path, *raws)] == [True, False]


def test_two_processes_can_share_the_cache(tmp_path: Path) -> None:
    images = mvtec(tmp_path / "D").images
    with Inspector(tmp_path / "facts.sqlite") as first, Inspector(tmp_path / "facts.sqlite") as second:
        seen = [
            one for pair in zip(first.inspect(images), second.inspect(images), strict=True) for one in pair
        ]
    assert all(one.usable for one in seen)
    assert first.counters["images_decoded"] + second.counters["images_decoded"] == 20
