from __future__ import annotations

from pathlib import Path

import pytest

from harness import BadInput
from plugins.mmad import emit_bench_benchmarks, emit_bench_protocols, load


def test_the_folder_comes_from_the_option_or_the_environment(mmad_folder: Path, monkeypatch) -> None:
    monkeypatch.delenv("EMIT_BENCH_DATA", raising=False)
    benchmark = load(mmad_folder)
    assert (benchmark.name, benchmark.world, len(benchmark.items)) == ("mmad", "real", 24)
    monkeypatch.setenv("EMIT_BENCH_DATA", "/nowhere")
    assert load(mmad_folder).digest == benchmark.digest
    monkeypatch.setenv("EMIT_BENCH_DATA", str(mmad_folder))
    assert load(None).digest == benchmark.digest


def test_without_a_folder_it_says_what_to_do(monkeypatch) -> None:
    monkeypatch.delenv("EMIT_BENCH_DATA", raising=False)
    with pytest.raises(BadInput, match="pass --data DIR or set EMIT_BENCH_DATA"):
        load(None)


def test_it_provides_one_benchmark_and_two_protocols() -> None:
    assert [spec.name for spec in emit_bench_benchmarks()] == ["mmad"]
    assert [protocol.name for protocol in emit_bench_protocols()] == ["emit", "mmad"]
