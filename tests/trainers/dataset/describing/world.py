"""Two small raw datasets on disk: one that is asked about, and one that MMAD tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from harness.plugins import load_registry
from harness.raw import RawDataset
from trainers.dataset.sources import read_sources

#: Texts of the world: 2 on defects, 1 on the normal condition, 2 x (1 normal + 2 kinds x 2) object texts.
N_KNOWLEDGE, N_OBJECT = 3, 10
FEW = ("--images", "2", "--normal-texts", "1", "--defect-texts", "2")


def write(root: Path) -> Path:
    """A folder with ``MPDD``, ``MVTec-AD`` and ``domain_knowledge.json``."""
    tube, bottle = root / "MPDD" / "metal_tube", root / "MVTec-AD" / "bottle"
    for number in range(3):
        picture(tube / "train" / "good" / f"{number}.png", number)
        picture(bottle / "train" / "good" / f"{number}.png", 10 + number)
    picture(bottle / "test" / "good" / "0.png", 20)
    picture(bottle / "test" / "broken_large" / "0.png", 21)
    for kind in ("bent_end", "scratch"):
        for number in range(2):
            picture(tube / "test" / kind / f"{number}.png", 30 + number)
            mask(tube / "ground_truth" / kind / f"{number}_mask.png")
    known = {
        "MVTec": {
            "bottle": {
                "good": " <Normal>\n Description: A round dark opening.",
                "contamination": " <Contamination>\n Description: Bright residue inside.",
                "broken_large": " <Large breakage>\n Description: A large piece of the rim is gone.",
            },
            "cable": {"good": " <Normal>\n Description: Three wires."},
        },
        "VisA": {"candle": {"good": " <Normal>\n Description: Four candles."}},
    }
    (root / "domain_knowledge.json").write_text(json.dumps(known))
    return root


def picture(path: Path, seed: int, width: int = 60, height: int = 40) -> Path:
    """A random RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def mask(path: Path, width: int = 60, height: int = 40, marked: bool = True) -> Path:
    """A mask with one marked rectangle, or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width), dtype=np.uint8)
    if marked:
        pixels[2:9, 30:50] = 255
    Image.fromarray(pixels).save(path)
    return path


def datasets(root: Path) -> tuple[list[RawDataset], list[RawDataset]]:
    """The world as readers give it: what is asked about, and the text source."""
    sources = (("mpdd", root / "MPDD"), ("mvtec-ad", root / "MVTec-AD"))
    asked, told = read_sources(sources, load_registry().layouts)
    return [asked], [told]
