"""The MMAD benchmark in a folder that the user downloaded, and the two protocols for it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput
from harness.hookspecs import Benchmark, BenchmarkSpec, hookimpl
from harness.mmad import read_mmad
from harness.protocol import Protocol, shipped_protocols
from harness.records import TrainingSource

DATA_VARIABLE = "EMIT_BENCH_DATA"
#: A folder in MMAD's format that holds none of these is somebody's own benchmark, and called by its name.
DATASETS = frozenset({"DS-MVTec", "MVTec-LOCO", "VisA", "GoodsAD"})


def load(data: Path | None) -> Benchmark:
    """MMAD, or a benchmark in its format, from ``--data`` or from the folder that the environment names.

    Raises:
        BadInput: no folder is named, or it is not a sound copy of MMAD.
    """
    folder = data or os.environ.get(DATA_VARIABLE)
    if not folder:
        raise BadInput(
            f"benchmark mmad: no data folder is named; download MMAD's ALL_DATA and pass --data DIR "
            f"or set {DATA_VARIABLE}"
        )
    benchmark = read_mmad(Path(folder), "mmad", "real")
    if any(item.dataset in DATASETS for item in benchmark.items):
        return benchmark
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(folder).resolve().name).strip("-.") or "folder"
    return replace(benchmark, name=own)


def training(data: Path | None) -> TrainingSource:
    """A training set of the real world: the file that ``--data`` names.

    Raises:
        BadInput: none is named.
    """
    if data is None:
        raise BadInput("a training for the real world needs a training set; pass --data FILE.jsonl")
    return TrainingSource(data, "real")


@hookimpl
def emit_bench_benchmarks() -> Iterable[BenchmarkSpec]:
    """The benchmark ``mmad``."""
    return [
        BenchmarkSpec(
            name="mmad",
            title="MMAD",
            summary="39,672 questions on 8,366 images of 38 products; needs --data DIR or EMIT_BENCH_DATA.",
            world="real",
            load=load,
            training=training,
        )
    ]


@hookimpl
def emit_bench_protocols() -> Iterable[Protocol]:
    """The protocols of the EMIT paper and of the benchmark's own scripts."""
    return shipped_protocols()
