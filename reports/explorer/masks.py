"""A defect's ground truth: how much of the image it covers, and an overlay that shows where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadInput
from harness.images import decode_mask

if TYPE_CHECKING:
    from PIL.Image import Image

Mask = NDArray[np.bool_]
#: A colour that products do not have; the inside lets the image through.
_COLOUR, _INSIDE = (255, 45, 149), 56


def read_mask(paths: Sequence[Path]) -> Mask | None:
    """The union of an image's masks, of the first one's size; None where one cannot be read."""
    from PIL import Image as images

    whole: Mask | None = None
    for path in paths:
        try:
            mask = decode_mask(path)
        except BadInput:
            return None
        if whole is not None and mask.shape != whole.shape:
            height, width = whole.shape
            mask = np.asarray(images.fromarray(mask).resize((width, height), images.Resampling.NEAREST))
        whole = mask if whole is None else whole | mask
    return whole


def draw(mask: Mask, longest: int) -> Image:
    """A transparent picture with the defect's outline and a veil over its inside.

    Whatever is marked at all stays visible, however small.

    Args:
        mask: ``(height, width)``.
        longest: pixels of its longer side, at most.
    """
    from PIL import Image as images
    from PIL import ImageFilter

    height, width = mask.shape
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = images.fromarray(mask.astype(np.uint8) * 255)
    small = grey.resize(size, images.Resampling.BOX).point(lambda value: 255 * (value > 0))
    around = small.filter(ImageFilter.MaxFilter(5))
    inside, outline = np.asarray(small) > 0, np.asarray(around) > 0
    indices = np.where(inside, 1, np.where(outline, 2, 0)).astype(np.uint8)
    drawn: Image = images.fromarray(indices).convert("P")
    drawn.putpalette([*_COLOUR, *_COLOUR, *_COLOUR])
    drawn.info["transparency"] = bytes((0, _INSIDE, 255))
    return drawn
