"""Pictures as a server gets them: PNG data URLs, upright, RGB or black and white, small."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from harness.images import decode, decode_mask
from plugins.server.pictures import data_url as encoded
from plugins.server.pictures import fitted, shrunk
from trainers.dataset.describing.prompts import Picture

if TYPE_CHECKING:
    from PIL.Image import Image


@lru_cache(maxsize=64)  # the texts on one image follow each other
def data_url(picture: Picture, max_side: int) -> str:
    """The picture as a PNG data URL.

    Raises:
        BadInput: a file cannot be read.
    """
    return encoded(_masks(picture, max_side) if picture.masks else shrunk(decode(picture.path), max_side))


def _masks(picture: Picture, max_side: int) -> Image:
    """The masks merged by maximum at the size of their image; a defect of one pixel stays visible."""
    import numpy as np
    from PIL import Image as images

    size = fitted(*decode(picture.path).size, max_side)
    merged = np.zeros(size[::-1], dtype=bool)
    for path in picture.masks:
        marked = images.fromarray(decode_mask(path).astype(np.float32))
        merged |= np.asarray(marked.resize(size, images.Resampling.BOX)) > 0
    return images.fromarray(np.where(merged, 255, 0).astype(np.uint8))
