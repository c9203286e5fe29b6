"""Pictures and maps that point at something: marked at random, drawn in signs or in light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plugins.mini.render import GRID
from trainers.pretraining.scenes import SIZE


def random_mark(rng: np.random.RandomState) -> tuple[NDArray[np.float32], int | None]:
    """Shares of a mark somewhere, (GRID, GRID), and the cell of the 3x3 grid that holds most of it."""
    share = np.zeros((GRID, GRID), np.float32)
    if rng.random_sample() < 0.25:
        return share, None
    y, x = rng.randint(0, GRID - 1, 2)
    high, wide = rng.randint(1, 5, 2)
    share[y : y + high, x : x + wide] = 0.3 + 0.7 * rng.random_sample(share[y : y + high, x : x + wide].shape)
    third = GRID // 3
    return share, int(share.reshape(3, third, 3, third).sum((1, 3)).argmax())


SIGNS = "-=#"  #: nothing, something, much; one token each


def sign_map(rng: np.random.RandomState, share: NDArray[np.float32]) -> str:
    """A map of 6 x 6 signs, row by row, of what is marked in ``share`` (GRID, GRID), with some noise."""
    side = GRID // 2
    level = share.reshape(side, 2, side, 2).max((1, 3)) * (0.3 + 1.5 * rng.random_sample((side, side)))
    noise = 0.3 * rng.random_sample() * rng.random_sample((side, side)) ** 2
    return "".join(SIGNS[int(value > 0.12) + int(value > 0.3)] for value in np.maximum(level, noise).flat)


def pointer_picture(rng: np.random.RandomState, share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A dim picture of 12 x 12 squares, brighter the more of a square is marked in ``share``."""
    noise = rng.random_sample((GRID, GRID)) * (0.1 + 0.35 * rng.random_sample())
    marked = np.minimum(1, 2.5 * share) * (0.45 + 0.55 * rng.random_sample((GRID, GRID)))
    levels = (20 + 200 * np.maximum(noise, marked)).repeat(SIZE // GRID, 0).repeat(SIZE // GRID, 1)
    tint = 0.75 + rng.random_sample(3) * 0.25
    picture: NDArray[np.uint8] = np.clip(levels[..., None] * tint, 0, 255).astype(np.uint8)
    return picture


def spot_picture(rng: np.random.RandomState, there: bool) -> tuple[NDArray[np.uint8], int | None]:
    """A generic scene: a dim ground, and perhaps a bright spot in one cell of the 3x3 grid."""
    axis = (np.arange(SIZE) + 0.5) / SIZE
    ground = (
        rng.random_sample() * 60
        + rng.random_sample((12, 12)).repeat(SIZE // 12, 0).repeat(SIZE // 12, 1) * 40
    )
    cell = None
    if there:
        y, x = 0.06 + rng.random_sample(2) * 0.88
        width = 0.03 + rng.random_sample() * 0.07
        gap = (axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2
        ground = ground + (110 + rng.random_sample() * 90) * np.exp(-gap / width**2)
        cell = int(y * 3) * 3 + int(x * 3)
    tint = 0.75 + rng.random_sample(3) * 0.25
    return np.clip(ground[..., None] * tint, 0, 255).astype(np.uint8), cell
