from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import BadInput
from plugins.mmad import emit_bench_benchmarks, emit_bench_protocols, load
from tests.builders import write_mmad


def test_the_folder_comes_from_the_option_or_the_environment(mmad_folder: Path, monkeypatch) -> None:
    monkeypatch.delenv("EMIT_BENCH_DATA", raising=False)
    benchmark = load(mmad_folder)
    assert (benchmark.name, benchmark.world, len(benchmark.items)) == ("mmad", "real", 24)
    monkeypatch.setenv("EMIT_BENCH_DATA", "/nowhere")
    assert load(mmad_folder).digest == benchmark.digest
    monkeypatch.setenv("EMIT_BENCH_DATA", str(mmad_folder))
    assert load(None).digest == benchmark.digest


def test_somebodys_own_benchmark_goes_by_its_folders_name(tmp_path: Path) -> None:
    def rename(table: dict[str, Any], root: Path) -> None:
        for key in list(table):
            entry = table.pop(key)
            if key.startswith("VisA"):
                table[key.replace("VisA", "Line")] = entry
        (root / "VisA").rename(root / "Line")
        for entry in table.values():
            for name in ("similar_templates", "random_templates"):
                entry[name] = [path.replace("VisA", "Line") for path in entry[name]]

    assert load(write_mmad(tmp_path / "my line (2)", rename)).name == "my-line-2"


def test_without_a_folder_it_says_what_to_do(monkeypatch) -> None:
    monkeypatch.delenv("EMIT_BENCH_DATA", raising=False)
    with pytest.raises(BadInput, match="pass --data DIR or set EMIT_BENCH_DATA"):
        load(None)


def test_it_provides_one_benchmark_and_two_protocols() -> None:
    assert [spec.name for spec in emit_bench_benchmarks()] == ["mmad"]
    assert [protocol.name for protocol in emit_bench_protocols()] == ["emit", "mmad", "anomalyr1"]
