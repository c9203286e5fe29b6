"""Pictures as a server gets them: PNG data URLs, upright, RGB or black and white, small."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.images import decode, decode_mask
from trainers.dataset.describing.prompts import Picture

if TYPE_CHECKING:
    from PIL.Image import Image


def fitted(width: int, height: int, max_side: int) -> tuple[int, int]:
    """Width and height in pixels once the longest side is at most ``max_side``; nothing is enlarged.

    >>> fitted(1024, 700, 512), fitted(100, 3000, 512), fitted(40, 30, 512)
    ((512, 350), (17, 512), (40, 30))
    """
    scale = min(1.0, max_side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


@lru_cache(maxsize=64)  # the texts on one image follow each other
def data_url(picture: Picture, max_side: int) -> str:
    """The picture as a PNG data URL.

    Raises:
        BadInput: a file cannot be read.
    """
    shown = _masks(picture, max_side) if picture.masks else _image(picture.path, max_side)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _image(path: Path, max_side: int) -> Image:
    from PIL import Image as images

    full = decode(path)
    size = fitted(*full.size, max_side)
    return full if size == full.size else full.resize(size, images.Resampling.LANCZOS)


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
