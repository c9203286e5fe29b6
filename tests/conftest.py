"""What every test shares: one thread, and small benchmark folders made on the spot."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness
from tests.builders import write_mmad


def pytest_configure() -> None:
    """Import ahead what pytest rewrites as it is imported: the packages that bring plugins of its own.

    Rewriting parses, and two threads of CPython 3.11 that parse at a time can end in a SystemError.
    """
    names = [f"harness.{found.name}" for found in pkgutil.iter_modules(harness.__path__)]
    for name in (*names, "anyio._backends._asyncio"):
        importlib.import_module(name)


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
