"""The mini base from nothing: render, teach, ship. ``python -m trainers.pretraining WORK [--ship]``.

Each phase leaves a file or folder in ``WORK`` and is skipped when that is there: an interrupted making goes
on with the phase it was in. About an hour and a half on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from trainers.pretraining import joint, language, scenes, vision, words
from trainers.pretraining.ship import ship

PARTS = (("scenes", 0), ("scenes2", 100_000))  #: folder, seed of its first scene


def make(work: Path, threads: int, scene_count: int) -> Path:
    """Make the mini base in ``work``; returns its folder."""
    torch.set_num_threads(threads)
    for name, first in PARTS:
        if not (work / name).is_dir():
            scenes.render_all(work / name, scene_count, threads, first)
    folders = [work / name for name, _ in PARTS]
    processor, tower, speech = work / "processor", work / "vision.safetensors", work / "language.safetensors"
    base = work / "internvl3-base"
    if not processor.is_dir():
        words.build_processor(words.build_tokenizer()).save_pretrained(processor)
    if not tower.is_file():
        vision.train(scenes.Scenes.open(folders[0]), tower, vision.STEPS, batch=32, seed=1)
    if not speech.is_file():
        language.train(processor, speech, language.Settings(), seed=2)
    if not base.is_dir():
        joint.train(folders, processor, [tower, speech], base, joint.STEPS, joint.ROWS, seed=3)
    return base


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=12_000, help="of each of two parts")
    parser.add_argument("--ship", action="store_true", help="put the result into the package")
    options = parser.parse_args()
    made = make(options.work, options.threads, options.scenes)
    if options.ship:
        ship(made, "internvl3-base")
