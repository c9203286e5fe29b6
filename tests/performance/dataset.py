"""How a training set's build scales: exact counts of work, and the most memory the process ever had.

``python -m tests.performance.dataset 20000`` writes so many images with their masks into a temporary folder
and builds three times: from nothing, again, and after one image has changed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.raw import encoder, photo
from trainers.dataset.build import Settings, build

SIDE = 64  #: pixels a side
PRODUCTS, KINDS = 20, 8


def write_images(root: Path, count: int) -> None:
    """Four fifths defective with masks, one fifth normal, in MVTec layout."""
    rng = np.random.RandomState(0)
    noise = rng.randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    for number in range(count):
        product, turn = f"product_{number % PRODUCTS:02d}", number // PRODUCTS
        kind = "good" if turn % 5 == 0 else f"kind_{'abcdefgh'[turn % KINDS]}"
        pixels = noise.copy()
        pixels.flat[:4] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)  # no two have the same bytes
        path = root / product / "test" / kind / f"{turn:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=0)
        if kind != "good":
            marked = np.zeros((SIDE, SIDE), np.uint8)
            marked[number // 50 % 50 :, number % 50 :][:9, :9] = 255
            marked[0, :16] = [255 * (number >> bit & 1) for bit in range(16)]  # nor have two masks
            path = root / product / "ground_truth" / kind / f"{turn:05d}_mask.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(marked).save(path, compress_level=0)


def one_build(folder: Path) -> dict[str, Any]:
    """Build once in this process; returns counts, seconds and the peak of memory."""
    from plugins.layouts.mvtec import read_mvtec

    started = time.perf_counter()
    settings = Settings(per_type=10**6, normals=10**6)
    built = build([read_mvtec(folder / "raw")], folder / "set", settings, encoder(), folder / "kept")
    return {
        **built.work,
        "rows": built.rows,
        "seconds": time.perf_counter() - started,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(folder: Path, count: int) -> list[dict[str, Any]]:
    """The three builds, each in a process of its own."""
    write_images(folder / "raw", count)
    results = []
    for turn in range(3):
        if turn == 2:
            photo(folder / "raw/product_00/test/good/00000.png", 10**6, (SIDE, SIDE))
        command = [sys.executable, "-m", "tests.performance.dataset", "--in", str(folder)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results.append(json.loads(done.stdout))
    return results


def main(arguments: list[str]) -> None:
    """Measure, or build once where ``--in`` names the folder."""
    if arguments[:1] == ["--in"]:
        print(json.dumps(one_build(Path(arguments[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        for title, result in zip(
            ("from nothing", "again", "one changed"), measure(Path(folder), int(arguments[0])), strict=True
        ):
            print(title, json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
