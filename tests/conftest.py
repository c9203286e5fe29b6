"""What every test shares: one thread, and small benchmark folders made on the spot."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders import write_mmad


@pytest.fixture
def mmad_folder(tmp_path: Path) -> Path:
    """A sound benchmark folder: 4 datasets, 6 products, 24 images, all seven subtasks."""
    return write_mmad(tmp_path / "mmad")


@pytest.fixture
def broken_mmad(tmp_path: Path) -> Callable[[Callable[[dict[str, Any], Path], None]], Path]:
    """Make a benchmark folder and spoil it: the function gets the parsed mmad.json and the root."""

    def make(spoil: Callable[[dict[str, Any], Path], None]) -> Path:
        return write_mmad(tmp_path / "broken", spoil)

    return make
