"""The rendered benchmark: 14 products on disk in exactly MMAD's format, for the real reader to read.

Everything follows from a seed: pictures, masks, questions, order. Each picture has a random stream of its
own, named by its path, so that one can be drawn again without the others.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.mini.catalogue import BENCHMARK, FAMILIES
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.pieces import Design
from plugins.mini.png import png_bytes
from plugins.mini.questions import (
    Choice,
    anomaly_question,
    class_question,
    defect_questions,
    knowledge,
    object_questions,
)
from plugins.mini.render import Shot, shoot

SEED = 7
#: Of the larger benchmark that experiments are judged on: nothing was chosen by looking at it.
LARGE_SEED, LARGE_TIMES = 11, 3
#: Of the benchmark whose defects are hard to see, and between what strengths they are.
HARD_SEED, FAINT = 13, (0.15, 0.5)
SIZE = 224  #: pixels a side
TEMPLATES = 8  #: normal reference pictures a product
NORMAL, DEFECTIVE = 7, 12  #: query pictures a product
KINDS = 5  #: defect kinds a product
LISTED = 5  #: templates listed a query
OBJECT_QUESTIONS = 2  #: structure and detail questions a normal picture, of four


def stream(seed: int, name: str) -> np.random.RandomState:
    """The random stream of one picture."""
    return np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))


@dataclass(frozen=True, slots=True)
class Product:
    """One benchmark product and the defects it may show."""

    design: Design
    kinds: tuple[Defect, ...]

    @property
    def folder(self) -> str:
        """``Assemblies/pill_pack``."""
        return f"{self.design.family.dataset}/{self.design.family.noun.replace(' ', '_')}"


def products(seed: int = SEED) -> list[Product]:
    """The benchmark's products with their defect kinds: half structural where the product allows."""
    found = []
    for noun, look in BENCHMARK.items():
        design = FAMILIES[noun].design(look)
        rng = stream(seed, noun)
        fitting = [kind for kind in DEFECTS.values() if kind.fits(design)]
        structural = [kind for kind in fitting if kind.change]
        surface = [kind for kind in fitting if kind.draw]
        chosen = [structural[i] for i in rng.permutation(len(structural))[:2]]
        chosen += [surface[i] for i in rng.permutation(len(surface))[: KINDS - len(chosen)]]
        found.append(Product(design, tuple(sorted(chosen, key=lambda kind: kind.name))))
    return found


#: Strengths between which defects on the surface are drawn; 1 is as they are.
Strengths = tuple[float, float]
PLAIN: Strengths = (1.0, 1.0)


def strength_of(seed: int, name: str, strengths: Strengths) -> float:
    """How well a picture's defect shows, drawn from seed and name apart from all else about the picture."""
    low, high = strengths
    return low + (high - low) * float(stream(seed, f"{name} strength").random_sample())


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What pictures are compared by: sums over a 16x16 grid, (16, 16, 3)."""
    side = 16
    cell = pixels.shape[0] // side
    sums: NDArray[np.int64] = pixels.astype(np.int64).reshape(side, cell, side, cell, 3).sum((1, 3))
    return sums


def nearest(query: NDArray[np.int64], references: list[NDArray[np.int64]]) -> list[int]:
    """Indices of the references, the most similar thumbnail first."""
    gaps = [int(np.abs(query - reference).sum()) for reference in references]
    return sorted(range(len(references)), key=lambda i: (gaps[i], i))


def _conversation(shot: Shot, rng: np.random.RandomState) -> list[dict[str, Any]]:
    choices: list[Choice] = [anomaly_question(shot.defect)]
    if shot.defect is None:
        details = object_questions(shot.design)
        choices += [
            class_question(shot.design),
            *(details[i] for i in rng.permutation(len(details))[:OBJECT_QUESTIONS]),
        ]
    else:
        choices += defect_questions(shot)
    return [choice.deal(rng) for choice in choices]


def files(
    seed: int = SEED, size: int = SIZE, times: int = 1, strengths: Strengths = PLAIN
) -> Iterator[tuple[str, bytes]]:
    """Every file of the benchmark: (path relative to its root, bytes).

    Args:
        seed: of everything.
        size: pixels a side.
        times: as many queries a product as usual.
        strengths: between which defects on the surface are drawn.
    """
    entries: dict[str, Any] = {}
    texts: dict[str, dict[str, dict[str, str]]] = {}
    for product in products(seed):
        dataset, name = product.folder.split("/")
        texts.setdefault(dataset, {})[name] = knowledge(product.design, product.kinds)
        references, paths = [], []
        for number in range(TEMPLATES):
            path = f"{product.folder}/train/good/{number:03d}.png"
            pixels = shoot(product.design, stream(seed, path), size).pixels
            references.append(thumbnail(pixels))
            paths.append(path)
            yield path, png_bytes(pixels)
        shots: list[tuple[str, Defect | None]] = [(f"good/{n:03d}", None) for n in range(times * NORMAL)]
        for number in range(times * DEFECTIVE):
            kind = product.kinds[number % len(product.kinds)]
            shots.append((f"{kind.folder}/{number // len(product.kinds):03d}", kind))
        for stem, defect in shots:
            key = f"{product.folder}/image/{stem}.png"
            rng = stream(seed, key)
            shot = visible_shot(product.design, rng, size, defect, strength_of(seed, key, strengths))
            yield key, png_bytes(shot.pixels)
            mask = ""
            if defect is not None:
                mask = f"rbg_mask/{stem}_rbg_mask.png"
                yield f"{product.folder}/{mask}", png_bytes(shot.mask.astype(np.uint8) * np.uint8(255))
            order = nearest(thumbnail(shot.pixels), references)
            entries[key] = {
                "image_path": f"image/{stem}.png",
                "mask_path": mask,
                "similar_templates": [paths[i] for i in order[:LISTED]],
                "random_templates": [paths[i] for i in rng.permutation(len(paths))[:LISTED]],
                "conversation": _conversation(shot, rng),
            }
    yield "mmad.json", _json_bytes(entries)
    yield "domain_knowledge.json", _json_bytes(texts)


def visible_shot(
    design: Design, rng: np.random.RandomState, size: int, defect: Defect | None, strength: float = 1.0
) -> Shot:
    """Draw until the defect is on the product: a scratch that runs off it at once is no question."""
    least = size * size // 1500
    while True:
        shot = shoot(design, rng, size, defect, strength=strength)
        if defect is None or int(np.count_nonzero(shot.mask)) >= least:
            return shot


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def write_benchmark(folder: Path, seed: int = SEED, times: int = 1, strengths: Strengths = PLAIN) -> str:
    """Write the benchmark into an empty folder; returns the SHA-256 over all its files in order."""
    digest = hashlib.sha256()
    for name, data in files(seed, times=times, strengths=strengths):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digest.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()
