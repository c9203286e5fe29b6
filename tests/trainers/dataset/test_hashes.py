"""Near-duplicates: copies are found in every orientation, other shots of the same product are not."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from PIL.Image import Transpose

from plugins.mini.benchmark import SIZE, products, stream
from plugins.mini.render import shoot
from trainers.dataset import hashes
from trainers.dataset.hashes import BITS, NEAR, ORIENTATIONS, SIDE, Look, find_near, look, oriented

TURNS: dict[str, Transpose | None] = {
    name: None if name == "upright" else Transpose[name.upper().replace("-", "_")] for name in ORIENTATIONS
}


def jpeg(image: Image.Image, quality: int = 60) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def turned(image: Image.Image, orientation: str) -> Image.Image:
    method = TURNS[orientation]
    return image if method is None else image.transpose(method)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same pixels": lambda image: image,
    "jpeg 60": jpeg,
    "jpeg 30": lambda image: jpeg(image, 30),
    "half": half,
    "half and jpeg 60": lambda image: jpeg(half(image)),
    "double": lambda image: image.resize((2 * image.width, 2 * image.height)),
    "squeezed": lambda image: image.resize((image.width, image.height * 2 // 3)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    "without colour": lambda image: image.convert("L").convert("RGB"),
}


@pytest.fixture(scope="module")
def shots() -> list[Image.Image]:
    """Six shots of each of five products, normal ones and two defective."""
    found = []
    for product in products()[::3]:
        for number in range(6):
            kind = product.kinds[number - 4] if number >= 4 else None
            shot = shoot(product.design, stream(5, f"{product.folder}/{number}"), SIZE, kind)
            found.append(Image.fromarray(shot.pixels))
    return found


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_found_and_nothing_else(shots: list[Image.Image], copy: str) -> None:
    found = list(find_near([look(COPIES[copy](image)) for image in shots], [look(image) for image in shots]))
    assert [(one.first, one.second, one.orientation) for one in found] == [
        (n, n, "upright") for n in range(len(shots))
    ]
    assert all(one.difference <= NEAR for one in found)


def test_a_margin_lies_between_copies_and_shots(shots: list[Image.Image]) -> None:
    looks = [look(image) for image in shots]
    copies = [one.difference for copy in COPIES.values() for one in _same(looks, shots, copy)]
    others = [one.difference for one in find_near(looks, looks, 100) if one.first != one.second]
    assert len(copies) == len(shots) * len(COPIES)
    assert max(copies) < NEAR - 0.5 and min(others) > NEAR + 0.5


def _same(
    looks: list[Look], shots: list[Image.Image], copy: Callable[[Image.Image], Image.Image]
) -> list[hashes.Near]:
    copied = [look(copy(image)) for image in shots]
    return [one for one in find_near(copied, looks, 100) if one.first == one.second]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_orientation_is_named(shots: list[Image.Image], orientation: str) -> None:
    originals = [look(image) for image in shots]
    copies = [look(jpeg(turned(image, orientation))) for image in shots]
    found = list(find_near(copies, originals))
    assert [(one.first, one.second) for one in found] == [(n, n) for n in range(len(shots))]
    told = [one.orientation == orientation for one in found]
    assert sum(told) >= len(shots) - 2  # some products look the same from two sides


def random_picture(seed: int, side: int) -> Image.Image:
    """Random, but smooth as a photograph is."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_equal_pixels_have_equal_hashes_in_each_orientation(seed: int, first: str, second: str) -> None:
    original = turned(
        random_picture(seed, SIDE), first
    )  # of the thumbnail's size, so that nothing is rounded
    copy = turned(original, second)
    plain, other = look(original).grey[None], look(copy).grey[None]
    back = oriented(plain, ORIENTATIONS.index(second))
    np.testing.assert_array_equal(back, other)
    np.testing.assert_array_equal(hashes.hashes(back), hashes.hashes(other))
    (found,) = find_near([look(copy)], [look(original)])
    assert found == hashes.Near(0, 0, second, 0, 0.0)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_hashes_know_pictures_apart(seed: int) -> None:
    first, second = (hashes.hashes(look(random_picture(n, 100)).grey[None]) for n in (seed, seed + 1))
    assert int(np.bitwise_count(first ^ second).sum()) > BITS / 5


def test_turning_follows_pillow() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(1, 2, 6).repeat(3, 1)
    for n, name in enumerate(ORIENTATIONS):
        np.testing.assert_array_equal(
            oriented(picture, n)[0], np.asarray(turned(Image.fromarray(picture[0]), name))
        )


def painted(levels: np.ndarray) -> Look:
    """A grey picture from a thumbnail."""
    return look(Image.fromarray(levels.astype(np.uint8)).convert("RGB"))


def test_one_other_place_is_enough() -> None:
    picture = np.asarray(random_picture(1, SIDE).convert("L")).copy()
    spoilt = picture.copy()
    spoilt[8:12, 20:24] = np.where(spoilt[8:12, 20:24] > 128, 60, 200)  # 16 of 2,304 pixels
    assert [one.difference for one in find_near([painted(picture)], [painted(picture)])] == [0]
    assert not list(find_near([painted(spoilt)], [painted(picture)]))


def test_pictures_without_structure_are_the_same_at_one_level() -> None:
    flat = [painted(np.full((60, 80), level)) for level in (100, 103, 140)]
    pairs = [(one.first, one.second) for one in find_near(flat, flat)]
    assert pairs == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]
    noise = [np.random.default_rng(n).integers(99, 102, (SIDE, SIDE)) for n in range(2)]
    textured = [painted(levels.repeat(2, 0).repeat(2, 1)) for levels in noise]
    assert all(one.first == one.second for one in find_near(textured, textured, 1.0))


def test_another_colour_is_another_thing() -> None:
    grey = np.asarray(random_picture(2, 100).convert("L")).astype(float)
    red, blue = (
        look(Image.fromarray(np.stack([grey * k for k in tint], -1).astype(np.uint8)))
        for tint in ((1.0, 0.55, 0.55), (0.55, 0.55, 1.0))
    )
    assert [one.first for one in find_near([red], [red])] == [0]
    assert not list(find_near([red], [blue], 100))


def test_blocks_and_batches_change_nothing(shots: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    looks, steps = [look(image) for image in shots], []
    whole = list(find_near(looks, looks, 100))
    assert len(whole) > len(shots)
    monkeypatch.setattr(hashes, "_PAIRS", 3 * len(shots))
    monkeypatch.setattr(hashes, "_BATCH", 2)
    assert list(find_near(looks, looks, 100, steps.append)) == whole
    assert steps == [3] * (len(shots) // 3)
    assert not list(find_near([], looks)) and not list(find_near(looks, []))
