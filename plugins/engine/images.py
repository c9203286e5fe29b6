"""Images to features: each distinct image passes the vision tower once while it stays in the cache."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.records import Picture
from plugins.checkpoint import tiled

#: Enough for all images of the mini world and for some forty of InternVL3's, so that references shared by
#: consecutive image pairs are encoded once.
CACHE_BYTES = 1 << 30


@dataclass(frozen=True)
class PreparedImage:
    """An image as the vision tower takes it, on the CPU."""

    text: str  #: what stands for it in a prompt, a token an embedding
    inputs: Mapping[str, Tensor]  #: arguments of ``get_image_features``


@dataclass(frozen=True)
class EncodedImage:
    """What is kept of an image."""

    features: Tensor  #: ``(..., d)``, for the language model; leading dimensions in the order of its tokens
    whole: Tensor | None = None  #: ``(3, S, S)``: pixels of the last tile, which shows the whole image
    patches: tuple[Tensor, ...] = ()  #: of the whole image, a layer each ``(H, W, D)``; EMIT compares them
    text: str = ""  #: see :class:`PreparedImage`
    grid: Tensor | None = None  #: ``(1, 3)``: time, height and width in patches, where positions need them

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything that takes memory."""
        return (self.features, *(() if self.whole is None else (self.whole,)), *self.patches)


class FeatureCache:
    """The most recently used values under their keys, up to a number of bytes.

    Args:
        limit: bytes; a single value larger than this is kept until the next one comes.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self._values: OrderedDict[str, tuple[Any, int]] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, make: Callable[[], Any], tensors: Callable[[Any], tuple[Tensor, ...]]) -> Any:
        """The value under ``key``, made when it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key][0]
        value = make()
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(value))
        self._values[key] = (value, size)
        while len(self._values) > 1 and self.bytes > self.limit:
            self._values.popitem(last=False)
        return value

    @property
    def bytes(self) -> int:
        """Memory held by the values."""
        return sum(size for _, size in self._values.values())

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()


def tile_pixels(processor: Any, picture: Picture, tiles: int) -> Tensor:
    """Pixel values ``(T, 3, S, S)`` of an image of InternVL cut into at most ``tiles`` tiles.

    With more than one tile, a thumbnail of the whole image follows them; with one, it is the only one. So the
    last is always the whole image.
    """
    batch = processor.image_processor(images=[picture.pixels], return_tensors="pt", **tiled(tiles))
    pixels: Tensor = batch["pixel_values"]
    return pixels
