"""Generic rendered scenes for pre-training: random products in random looks, rendered once into a folder.

Each scene is one random product seen three times: a normal reference, a normal query, and a query that is
defective when the product's family belongs to the training world. Defects are never drawn on a family of the
benchmark, and a benchmark product's exact look is skipped.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plugins.mini.catalogue import BENCHMARK, FAMILIES, TRAINING
from plugins.mini.defects import DEFECTS
from plugins.mini.pieces import BACKDROPS, COLOURS, Design, Look
from plugins.mini.render import GRID, Shot, shoot

SIZE = 144  #: pixels a side, as the mini vision tower sees them
NOUNS, KINDS, COLOUR_NAMES = tuple(FAMILIES), tuple(DEFECTS), tuple(COLOURS)
VIEWS = 3


def patch_map(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share of each patch that the mask covers, (GRID, GRID)."""
    cell = mask.shape[0] // GRID
    share: NDArray[np.float32] = mask.reshape(GRID, cell, GRID, cell).mean((1, 3)).astype(np.float32)
    return share


def random_design(rng: np.random.RandomState) -> Design:
    """Any family in any look but a benchmark product's own; training families twice as often."""
    while True:
        noun = NOUNS[int(rng.random_sample() * len(NOUNS))]
        if noun in BENCHMARK and rng.random_sample() < 0.5:
            continue
        look = FAMILIES[noun].random_look(rng)
        if BENCHMARK.get(noun) != look:
            return FAMILIES[noun].design(look)


def render_scene(seed: int) -> tuple[list[Shot], Design]:
    """The three views of scene ``seed``."""
    rng = np.random.RandomState(seed)
    design = random_design(rng)
    kinds = [kind for kind in DEFECTS.values() if kind.fits(design)]
    defect = kinds[int(rng.random_sample() * len(kinds))] if design.family.noun in TRAINING else None
    return [shoot(design, rng, SIZE, wrong) for wrong in (None, None, defect)], design


def _chunk(arguments: tuple[int, int]) -> dict[str, NDArray[np.generic]]:
    first, count = arguments
    rows: dict[str, list[object]] = {
        name: [] for name in ("pixels", "defect", "patches", "body", "cells", "look")
    }
    for seed in range(first, first + count):
        shots, design = render_scene(seed)
        look = design.look
        rows["look"].append(
            [NOUNS.index(design.family.noun), COLOUR_NAMES.index(look.body), COLOUR_NAMES.index(look.trim),
             look.count, tuple(BACKDROPS).index(look.backdrop)]
        )  # fmt: skip
        rows["pixels"].append(np.stack([shot.pixels for shot in shots]))
        rows["defect"].append(
            [-1 if shot.defect is None else KINDS.index(shot.defect.name) for shot in shots]
        )
        rows["patches"].append(np.stack([patch_map(shot.mask) for shot in shots]))
        rows["body"].append(np.stack([patch_map(shot.body) for shot in shots]))
        rows["cells"].append(
            np.stack([shot.mask.reshape(3, SIZE // 3, 3, SIZE // 3).sum((1, 3)) for shot in shots])
        )
    return {name: np.asarray(values) for name, values in rows.items()}


def render_all(folder: Path, scenes: int, workers: int, first: int = 0) -> None:
    """Render ``scenes`` scenes into ``folder`` as ``.npy`` files, opened by :class:`Scenes`."""
    folder.mkdir(parents=True, exist_ok=True)
    step = 100
    jobs = [(first + start, min(step, scenes - start)) for start in range(0, scenes, step)]
    with ProcessPoolExecutor(workers) as pool:
        chunks = list(pool.map(_chunk, jobs))
    for name in chunks[0]:
        np.save(folder / f"{name}.npy", np.concatenate([chunk[name] for chunk in chunks]))
    (folder / "scenes.json").write_text(json.dumps({"scenes": scenes, "first": first, "size": SIZE}))


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes, memory-mapped; axes are (scene, view, ...)."""

    pixels: NDArray[np.uint8]  #: (N, 3, SIZE, SIZE, 3)
    defect: NDArray[np.int64]  #: (N, 3): index into KINDS, -1 for normal
    patches: NDArray[np.float32]  #: (N, 3, GRID, GRID): share of defective pixels
    body: NDArray[np.float32]  #: (N, 3, GRID, GRID): share of product pixels
    cells: NDArray[np.int64]  #: (N, 3, 3, 3): defective pixels in each cell of the 3x3 grid
    look: NDArray[np.int64]  #: (N, 5): noun, body colour, trim colour, count, backdrop

    @staticmethod
    def open(folder: Path) -> Scenes:
        """Open what :func:`render_all` wrote."""
        names = Scenes.__dataclass_fields__
        return Scenes(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})

    def __len__(self) -> int:
        return len(self.look)

    @cached_property
    def faulty(self) -> NDArray[np.bool_]:
        """(N,): whether the third view shows a defect that can be seen; some run off the product at once."""
        area = np.asarray(self.cells[:, 2]).sum((1, 2))
        shown: NDArray[np.bool_] = (np.asarray(self.defect[:, 2]) >= 0) & (area >= SIZE * SIZE // 1500)
        return shown

    @cached_property
    def sound(self) -> NDArray[np.bool_]:
        """(N,): whether the third view shows a normal product, as it does for the benchmark's families."""
        sound: NDArray[np.bool_] = np.asarray(self.defect[:, 2]) < 0
        return sound

    def design(self, scene: int) -> Design:
        """The product of a scene."""
        noun, body, trim, count, backdrop = (int(value) for value in self.look[scene])
        return FAMILIES[NOUNS[noun]].design(
            Look(COLOUR_NAMES[body], COLOUR_NAMES[trim], count, tuple(BACKDROPS)[backdrop])
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=12_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first scene")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    render_all(options.folder, options.scenes, options.workers, options.first)
