"""The report of a run: written by the observer, from the store alone."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.hookspecs import RendererSpec, hookimpl
from harness.plugins import Registry
from reports.page import run_tables, write_report


@pytest.fixture
def run_folder(mmad_folder: Path, tmp_path: Path) -> Path:
    """A finished run of the drawing baseline on the small benchmark."""
    out = tmp_path / "run"
    assert run_cli(["run", "--models", "random-choice", "--data", str(mmad_folder), "--out", str(out)]) == 0
    return out


def test_a_run_leaves_page_and_tables(run_folder: Path) -> None:
    names = {path.relative_to(run_folder).as_posix() for path in run_folder.rglob("*") if path.is_file()}
    assert {
        "report/index.html",
        "tables/comparison.tex",
        "tables/comparison.csv",
        "tables/comparison.md",
    } <= names


def test_the_page_stands_alone(run_folder: Path) -> None:
    page = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Random choice" in page and "sha256" in page
    assert not any(word in page for word in ("<script", "src=", "href=", "@import", "url("))


def test_every_table_says_what_it_shows(run_folder: Path) -> None:
    _, tables = run_tables(run_folder)
    assert [table.name for table in tables[:3]] == ["comparison", "datasets-random-choice", "outcomes"]
    for table in tables:
        assert any("Real world" in note for note in table.notes), table.name
        assert any("Protocol emit (think, 1-shot), sha256" in note for note in table.notes), table.name
        for suffix in (".txt", ".md", ".tex"):
            assert "Real world" in (run_folder / f"tables/{table.name}{suffix}").read_text(encoding="utf-8")


def test_the_report_is_made_again_byte_for_byte(run_folder: Path, tmp_path: Path) -> None:
    again = write_report(run_folder, tmp_path / "again")
    for path in again:
        first = run_folder / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == first.read_bytes()


def test_the_report_takes_a_plugins_format(run_folder: Path, tmp_path: Path) -> None:
    class Titles:
        @hookimpl
        def emit_bench_renderers(self) -> list[RendererSpec]:
            return [RendererSpec("titles", ".titles", lambda table: table.title)]

    class Point(EntryPoint):
        def load(self) -> Titles:
            return Titles()

    registry = Registry([*entry_points(group="emit_bench"), Point("titles", "x", "emit_bench")])
    command = ["report", str(run_folder), "--out", str(tmp_path / "out"), "--format", "titles,csv"]
    assert run_cli(command, registry) == 0
    tables = tmp_path / "out/tables"
    assert (tables / "comparison.titles").read_text() == "Accuracy (%) by subtask"
    assert {path.suffix for path in tables.iterdir()} == {".titles", ".csv"}


def test_reports_of_several_runs_have_a_folder_each(run_folder: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "elsewhere" / run_folder.name
    shutil.copytree(run_folder, other)
    command = ["report", str(run_folder), "--format", "csv", "--out", str(tmp_path / "out")]
    assert run_cli([*command, str(other)]) == 2
    assert "two of the runs have the same name" in capsys.readouterr().err
    assert run_cli([*command, str(other.rename(tmp_path / "second"))]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"run", "second"}


def test_report_refuses_an_unknown_format(run_folder: Path) -> None:
    assert run_cli(["report", str(run_folder), "--format", "pdf"]) == 2


def test_a_run_that_was_cut_off_is_reported_as_far_as_it_came(run_folder: Path) -> None:
    """A model that has not come to its end has answers, and no part in the manifest yet."""
    manifest = json.loads((run_folder / "manifest.json").read_text())
    manifest["models"].pop(next(iter(manifest["models"])))
    manifest["status"] = "running"
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    assert run_cli(["report", str(run_folder)]) == 0
    assert "The run is not finished" in (run_folder / "tables/comparison.txt").read_text()


def test_what_is_not_loaded_as_usual_is_told_under_the_tables(run_folder: Path) -> None:
    manifest = json.loads((run_folder / "manifest.json").read_text())
    name = next(iter(manifest["models"]))
    assert not any(name in note for note in run_tables(run_folder)[1][0].notes)
    manifest["models"][name] |= {"quantize": "nf4", "dtype": "bfloat16", "adapter": "mine", "backend": "vllm"}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    wanted = f"{name}: weights in nf4, computed in bfloat16, with the adapter mine, by the backend vllm."
    assert wanted in run_tables(run_folder)[1][0].notes
