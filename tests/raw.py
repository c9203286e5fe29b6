"""Raw datasets for tests: small pictures in the folders of a layout, and an encoder that needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from harness.raw import RawDataset
from plugins.layouts.mvtec import read_mvtec
from trainers.dataset.encoders import Encoder, Parts

SIZE = (24, 18)  #: width, height


def photo(path: Path, number: int, size: tuple[int, int] = SIZE) -> Path:
    """A picture whose pixels depend on ``number`` alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(number).randint(0, 256, (size[1], size[0], 3))
    Image.fromarray(noise.astype(np.uint8)).save(path)
    return path


def mask(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> Path:
    """A mask that marks a box (left, top, right, bottom)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size, 0)
    image.paste(255, box)
    image.save(path)
    return path


def mvtec(
    root: Path, products: Sequence[str] = ("screw", "cable"), good: int = 4,
    kinds: Sequence[str] = ("scratch", "hole"), each: int = 3, start: int = 0,
) -> RawDataset:  # fmt: skip
    """Write products in MVTec layout and read them; half of the good images are in ``train``."""
    number = start
    for product in products:
        for i in range(good):
            number += 1
            photo(root / product / ("train" if i % 2 == 0 else "test") / "good" / f"{i:03}.png", number)
        for kind in kinds:
            for i in range(each):
                number += 1
                photo(root / product / "test" / kind / f"{i:03}.png", number)
                left, top = 8 * (number % 3), 6 * (number // 3 % 3)
                box = (left, top, left + 8, top + 6)
                mask(root / product / "ground_truth" / kind / f"{i:03}_mask.png", box)
    return read_mvtec(root)


def encoder() -> Encoder:
    """Four by four mean colours."""

    def prepare(image: Image.Image) -> NDArray[np.float32]:
        return np.asarray(image.resize((4, 4)), np.float32).transpose(2, 0, 1) + 1

    def read() -> Parts:
        return Parts(prepare, lambda batch: batch.flatten(1), torch.device("cpu"))

    return Encoder("tiny", "no weights", read)
