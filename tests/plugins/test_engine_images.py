from __future__ import annotations

import torch
from PIL import Image

from harness.records import Picture
from plugins.engine.images import FeatureCache, tile_pixels
from tests import tiny


def test_the_cache_keeps_the_most_recent_up_to_its_limit() -> None:
    cache, made = FeatureCache(limit=3 * 40), []

    def get(key: str, size: int = 10) -> None:
        def make() -> tuple[torch.Tensor]:
            made.append(key)
            return (torch.zeros(size),)

        cache.get(key, make, lambda value: value)

    for key in "abca":
        get(key)
    assert made == list("abc") and cache.bytes == 120
    get("d")  # b is the one used longest ago
    get("a")
    get("c")
    assert made == list("abcd")
    get("b")
    assert made == list("abcdb")
    get("huge", 1000)
    assert cache.bytes == 4000
    get("a")
    assert cache.bytes == 40


def test_tiles_end_with_the_whole_image() -> None:
    parts, image = tiny.processor(), tiny.image(0, 120, 60)
    whole = tile_pixels(parts, Picture("d", image), 1)
    tiles = tile_pixels(parts, Picture("d", image), 6)
    assert whole.shape == (1, 3, 56, 56)
    assert tiles.shape[0] > 2
    assert tiles[-1].equal(whole[0])
    left = image.resize((112, 56), Image.Resampling.BICUBIC).crop((0, 0, 56, 56))
    torch.testing.assert_close(tiles[0], tile_pixels(parts, Picture("e", left), 1)[0], atol=0.05, rtol=0)


def test_a_small_square_image_is_one_tile() -> None:
    parts = tiny.processor()
    assert tile_pixels(parts, Picture("d", tiny.image(0, 56, 56)), 6).shape[0] == 1
