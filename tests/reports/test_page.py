"""The report of a run: written by the observer, from the store alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.hookspecs import RendererSpec, hookimpl
from harness.plugins import Registry
from reports.page import write_report
from reports.subject import read_subject
from reports.table import Table
from reports.tables import tables_of


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


def tables(run_folder: Path) -> tuple[Table, ...]:
    return tables_of(read_subject([run_folder], resamples=100))


def test_the_page_stands_alone(run_folder: Path) -> None:
    page = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Random choice" in page and "sha256" in page
    assert not any(word in page for word in ("https:", "<link", "<script src", "@import"))
    assert not re.search(r"url\((?!#)", page)


def test_every_table_says_what_it_shows(run_folder: Path) -> None:
    found = tables(run_folder)
    assert [table.name for table in found[:3]] == ["comparison", "datasets-random-choice", "outcomes"]
    for table in found:
        assert any("Real world" in note for note in table.notes), table.name
        assert any("Protocol emit (think, 1-shot), sha256" in note for note in table.notes), table.name
        for suffix in (".txt", ".md", ".tex"):
            assert "Real world" in (run_folder / f"tables/{table.name}{suffix}").read_text(encoding="utf-8")


def test_in_the_real_world_the_papers_numbers_stand_beside(run_folder: Path) -> None:
    text = (run_folder / "tables/summary.txt").read_text(encoding="utf-8")
    measured, reported = text.split("Reported, not measured here: EMIT paper:")
    assert "Random choice" in measured and "81.95" in reported
    assert run_cli(["report", str(run_folder), "--published", "none", "--format", "text"]) == 0
    assert "Reported" not in (run_folder / "tables/summary.txt").read_text(encoding="utf-8")


def test_a_csv_file_says_what_its_rows_are_of(run_folder: Path) -> None:
    rows = list(csv.DictReader((run_folder / "tables/comparison.csv").open()))
    assert {row["World"] for row in rows if row["Source"] == "measured"} == {"real"}
    assert {row["World"] for row in rows if row["Source"] != "measured"} == {""}
    assert rows[0]["Rule"] == "official" and rows[0]["Questions"] == "108"


def test_the_report_is_made_again_byte_for_byte(run_folder: Path, tmp_path: Path) -> None:
    again = write_report(read_subject([run_folder]), tmp_path / "again")
    for path in again:
        first = run_folder / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == first.read_bytes()


def test_tables_of_models_that_are_gone_go_too(run_folder: Path) -> None:
    (run_folder / "tables/datasets-gone.csv").write_text("old")
    (run_folder / "tables/mine.csv").write_text("not ours")
    assert run_cli(["report", str(run_folder), "--format", "csv"]) == 0
    names = {path.name for path in (run_folder / "tables").iterdir()}
    assert "datasets-gone.csv" not in names and "mine.csv" in names


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


def test_runs_and_answer_files_stand_in_one_report(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side, under names that tell them apart; in ./report unless told otherwise."""
    official = shutil.copy(run_folder / "answers/random-choice.json", tmp_path / "theirs.json")
    other = tmp_path / "second"
    shutil.copytree(run_folder, other)
    monkeypatch.chdir(tmp_path)
    assert run_cli(["report", str(run_folder), str(other), str(official), "--resamples", "100"]) == 0
    assert (tmp_path / "report/report/index.html").is_file()
    rows = list(csv.reader((tmp_path / "report/tables/comparison.csv").open()))
    assert [row[0] for row in rows[1:4]] == ["Random choice (run)", "Random choice (second)", "theirs"]
    assert rows[1][2:9] == rows[2][2:9] == rows[3][2:9]
    notes = (tmp_path / "report/tables/comparison.txt").read_text()
    assert "Without a word on benchmark or protocol: theirs.json." in notes


def test_another_benchmark_is_refused(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "second"
    shutil.copytree(run_folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["benchmark"]["digest"] = "f" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert run_cli(["report", str(run_folder), str(other), "--out", str(tmp_path / "out")]) == 2
    assert "report them one by one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_protocols_may_differ_and_are_told(run_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "second"
    shutil.copytree(run_folder, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["protocol"] |= {"mode": "direct", "digest": "e" * 64}
    (other / "manifest.json").write_text(json.dumps(manifest))
    notes = tables_of(read_subject([run_folder, other], resamples=100))[0].notes
    assert any("(think, 1-shot)" in note and note.endswith("(run).") for note in notes)
    assert any("(direct, 1-shot)" in note and note.endswith("(second).") for note in notes)


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
    assert not any(name in note for note in tables(run_folder)[0].notes)
    manifest["models"][name] |= {"quantize": "nf4", "dtype": "bfloat16", "adapter": "mine", "backend": "vllm"}
    (run_folder / "manifest.json").write_text(json.dumps(manifest))
    wanted = f"{name}: weights in nf4, computed in bfloat16, with the adapter mine, by the backend vllm."
    assert wanted in tables(run_folder)[0].notes
