"""The mini training world: other products than the benchmark's, in the raw layouts of three datasets.

What the dataset builder finds in the field, it finds here:

- MPDD: ``<object>/train/good``, ``<object>/test/<good|defect>`` and ``<object>/ground_truth/<defect>``;
- Real-IAD: ``<object>/OK/<id>/*.png`` and ``<object>/NG/<code>/<id>/X.jpg`` beside the mask ``X.png``;
- VISION: ``<class>/train`` and ``<class>/val``, pictures only.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugins.mini.benchmark import stream
from plugins.mini.catalogue import FAMILIES, TRAINING
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.pieces import Design
from plugins.mini.png import png_bytes
from plugins.mini.render import shoot

SEED = 11
SIZE = 224
#: Products of each source: (noun, number of looks).
SOURCES: dict[str, tuple[str, ...]] = {
    "MPDD": ("bracket", "bearing", "pulley", "plate", "tile"),
    "Real-IAD": ("button card", "fuse block", "candle box", "relay board", "capacitor board"),
    "VISION": ("switch board", "jar", "tube", "tin"),
}
#: Real-IAD's codes of the kinds that its products show.
CODES: dict[str, str] = {
    "AK": "hole", "BX": "dent", "HS": "scratch", "PS": "chip", "QS": "missing part",
    "YW": "foreign body", "ZW": "stain",
}  # fmt: skip


def designs(seed: int = SEED) -> dict[str, Design]:
    """One product of each training family: noun -> design, its look drawn from the seed."""
    return {noun: FAMILIES[noun].design(FAMILIES[noun].random_look(stream(seed, noun))) for noun in TRAINING}


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _mask(mask: NDArray[np.bool_]) -> bytes:
    return png_bytes(mask.astype(np.uint8) * np.uint8(255))


def _kinds(design: Design) -> list[Defect]:
    return [kind for kind in DEFECTS.values() if kind.fits(design)]


def _mpdd(design: Design, folder: str, seed: int) -> Iterator[tuple[str, bytes]]:
    for split, count in (("train/good", 12), ("test/good", 6)):
        for number in range(count):
            path = f"{folder}/{split}/{number:03d}.png"
            yield path, png_bytes(shoot(design, stream(seed, path), SIZE).pixels)
    for kind in _kinds(design):
        for number in range(5):
            path = f"{folder}/test/{kind.folder}/{number:03d}.png"
            shot = shoot(design, stream(seed, path), SIZE, kind)
            yield path, png_bytes(shot.pixels)
            yield f"{folder}/ground_truth/{kind.folder}/{number:03d}_mask.png", _mask(shot.mask)


def _real_iad(design: Design, folder: str, seed: int) -> Iterator[tuple[str, bytes]]:
    for number in range(9):
        for view in range(2):
            path = f"{folder}/OK/S{number:04d}/view_{view}.jpg"
            yield path, _jpeg(shoot(design, stream(seed, path), SIZE).pixels)
    kinds = {kind.name for kind in _kinds(design)}
    for code, name in CODES.items():
        if name not in kinds:
            continue
        for number in range(5):
            path = f"{folder}/NG/{code}/S{number:04d}/view_0"
            shot = shoot(design, stream(seed, path), SIZE, DEFECTS[name])
            yield f"{path}.jpg", _jpeg(shot.pixels)
            yield f"{path}.png", _mask(shot.mask)


def _vision(design: Design, folder: str, seed: int) -> Iterator[tuple[str, bytes]]:
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            path = f"{folder}/{split}/{number:05d}.jpg"
            yield path, _jpeg(shoot(design, stream(seed, path), SIZE).pixels)


def files(seed: int = SEED) -> Iterator[tuple[str, bytes]]:
    """Every file of the training world: (path relative to its root, bytes)."""
    writers = {"MPDD": _mpdd, "Real-IAD": _real_iad, "VISION": _vision}
    found = designs(seed)
    for source, nouns in SOURCES.items():
        for noun in nouns:
            yield from writers[source](found[noun], f"{source}/{noun.replace(' ', '_')}", seed)


def write_training_world(folder: Path, seed: int = SEED) -> int:
    """Write the training world into a folder; returns the number of files."""
    count = 0
    for name, data in files(seed):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        count += 1
    return count
