"""What a training writes about itself: metrics a line a step, its work beside them, curves at the end.

``metrics.jsonl`` holds nothing that depends on the machine's speed or on what was in a cache, so that an
interrupted and resumed training ends with the same file as one that ran through. ``work.jsonl`` has seconds
and images encoded. TensorBoard gets the metrics where it is installed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.jsonfiles import write_text

METRICS, WORK = "metrics.jsonl", "work.jsonl"


class Journal:
    """The record of one training in its folder.

    Args:
        folder: of the training.
        done: steps that are done already; lines of later ones were written by a run that was cut off.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, WORK):
            _cut(folder / name, done)
        self._board = _tensorboard(folder, done)
        self._started = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float], work: Mapping[str, float]) -> None:
        """One step's lines, handed to the system when this returns."""
        line = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        _append(self.folder / METRICS, line)
        seconds = round(time.monotonic() - self._started, 3)
        _append(self.folder / WORK, {"step": step, "seconds": seconds, **work})
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Have the lines on disk before a checkpoint that counts on them."""
        for name in (METRICS, WORK):
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Draw the curves and let TensorBoard go."""
        if self._board is not None:
            self._board.close()
        draw_curves(self.folder)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a training's ``metrics.jsonl``."""
    path = folder / METRICS
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )


def draw_curves(folder: Path) -> Path | None:
    """``curves.png`` from a training's metrics: one small plot a number that moves; None without any."""
    rows = read_metrics(folder)
    names = [name for name in (rows[-1] if rows else {}) if name != "step"]
    names = [
        name for name in names if not name.startswith("drawn_") and len({row.get(name) for row in rows}) > 1
    ]
    if len(rows) < 2 or not names:
        return None
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    columns = 4
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.3 * lines), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(lines, columns, place)
        values = [row.get(name, float("nan")) for row in rows]
        axes.plot([row["step"] for row in rows], values, color="#9db8d6", linewidth=0.8)
        axes.plot([row["step"] for row in rows], _smooth(values), color="#1f4e8c", linewidth=1.6)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    return path


def _smooth(values: list[float], share: float = 0.9) -> list[float]:
    found: list[float] = []
    for value in values:
        found.append(
            value if not found or found[-1] != found[-1] else share * found[-1] + (1 - share) * value
        )
    return found


def _append(path: Path, line: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _cut(path: Path, done: int) -> None:
    """Drop the lines of steps that will be done again, and a last line that was not finished."""
    if not path.is_file():
        return
    kept = []
    before = path.read_text(encoding="utf-8")
    for line in before.splitlines():
        try:
            if json.loads(line)["step"] <= done:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            break
    after = "".join(line + "\n" for line in kept)
    if after != before:
        write_text(path, after)  # in one step: a kill loses no line


def _tensorboard(folder: Path, done: int) -> Any:
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
