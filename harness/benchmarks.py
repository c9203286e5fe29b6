"""Loading a benchmark by name or by folder."""

from __future__ import annotations

from pathlib import Path

from harness.hookspecs import Benchmark
from harness.lookup import find
from harness.mmad import QUESTIONS_FILE, read_mmad
from harness.plugins import load_registry


def load_benchmark(path_or_name: str | Path) -> Benchmark:
    """A benchmark by its registered name, or from a folder in MMAD's format.

    Args:
        path_or_name: a name that ``emit-bench benchmarks`` lists, or a folder with ``mmad.json``; a text is
            a name first, so that a folder of the same name nearby changes nothing.

    Raises:
        BadInput: neither a registered name nor a readable folder.
    """
    registered = load_registry().benchmarks
    if isinstance(path_or_name, str) and path_or_name in registered:
        return registered[path_or_name].load(None)
    path = Path(path_or_name)
    if isinstance(path_or_name, Path) or path.is_dir() or path.name == QUESTIONS_FILE:
        return read_mmad(path.parent if path.name == QUESTIONS_FILE else path)
    return find(registered, path_or_name, "benchmark").load(None)
