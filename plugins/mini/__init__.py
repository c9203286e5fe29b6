"""The ``mini`` benchmark: rendered on first use from a seed, read by the same reader as the real one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.hookspecs import Benchmark, BenchmarkSpec, hookimpl

NAME = "mini"
#: Raised whenever a picture or a question changes, so that an old cache is not read.
VERSION = "1"


def folder() -> Path:
    """Where the rendered benchmark lies; rendered now if it does not yet."""
    from harness.cache import cached_folder
    from plugins.mini.benchmark import SEED, write_benchmark

    return cached_folder(f"mini-{VERSION}-{SEED}", lambda path: write_benchmark(path) and None)


def load(data: Path | None) -> Benchmark:
    """The mini benchmark, from ``data`` if that is given, else from the cache."""
    from harness.mmad import read_mmad

    return read_mmad(folder() if data is None else data, NAME, "mini")


@hookimpl
def emit_bench_benchmarks() -> Iterable[BenchmarkSpec]:
    """``--benchmark mini``, the default."""
    return [
        BenchmarkSpec(
            name=NAME,
            title="Mini world",
            summary="14 rendered products, 10 kinds of defect, seven subtasks, in MMAD's format; made on first use.",
            world="mini",
            load=load,
        )
    ]
