"""A run's folder that is in use, full, damaged, or somebody else's."""

from __future__ import annotations

import errno
import fcntl
import json
import sqlite3
from pathlib import Path

import pytest

from harness import BadInput, ExitCode
from harness.hookspecs import Benchmark
from harness.mmad import read_mmad
from harness.records import PromptGroup
from harness.run import execute, read_run
from harness.run_folder import is_held, locked
from tests.harness.scripted import Scripted, no_plugins, planned


@pytest.fixture
def benchmark(mmad_folder: Path) -> Benchmark:
    return read_mmad(mmad_folder)


def run(out: Path, benchmark: Benchmark, model: Scripted, **options):
    fresh = options.pop("fresh", False)
    return execute(planned(out, benchmark, model.spec(), **options), no_plugins(), fresh=fresh)


def test_a_folder_in_use_is_refused(tmp_path: Path, benchmark: Benchmark) -> None:
    out = tmp_path / "out"
    model = Scripted()

    def before(group: PromptGroup) -> None:
        if len(model.groups) == 1:
            with pytest.raises(BadInput, match="another run is writing to it"):
                run(out, benchmark, Scripted())

    model.before = before
    assert run(out, benchmark, model).exit_code == ExitCode.OK


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    tmp_path: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, connect = tmp_path / "out", sqlite3.connect

    def small_disk(*arguments, **options):
        database = connect(*arguments, **options)
        database.execute("PRAGMA max_page_count = 16")
        return database

    monkeypatch.setattr(sqlite3, "connect", small_disk)
    model = Scripted()
    with pytest.raises(BadInput, match=r"answers\.sqlite: it cannot be used \(database or disk is full\)"):
        run(out, benchmark, model)
    monkeypatch.undo()
    kept = sum(map(len, read_run(out)[1].values()))
    rest = Scripted()
    assert len(run(out, benchmark, rest).answers["scripted"]) == 108
    assert len(rest.asked) == 108 - kept


def test_a_damaged_store_is_one_sentence(tmp_path: Path, benchmark: Benchmark) -> None:
    out = tmp_path / "out"
    run(out, benchmark, Scripted())
    file = out / "answers.sqlite"
    content = bytearray(file.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    file.write_bytes(content)
    for use in (lambda: run(out, benchmark, Scripted()), lambda: read_run(out)):
        with pytest.raises(BadInput, match=r"answers\.sqlite: it is no answer store, or a damaged one"):
            use()
    assert run(out, benchmark, Scripted(), fresh=True).exit_code == ExitCode.OK


@pytest.mark.parametrize("field", ["models", "status", "benchmark", "protocol"])
def test_a_manifest_that_lacks_something_is_one_sentence(
    tmp_path: Path, benchmark: Benchmark, field: str
) -> None:
    run(tmp_path / "out", benchmark, Scripted())
    file = tmp_path / "out/manifest.json"
    manifest = json.loads(file.read_text())
    for content in ({**manifest, field: 3}, {k: v for k, v in manifest.items() if k != field}):
        file.write_text(json.dumps(content))
        with pytest.raises(BadInput, match=rf"manifest\.json: {field} is missing or of the wrong kind"):
            read_run(tmp_path / "out")


def test_a_folder_in_the_stores_place_is_one_sentence(tmp_path: Path, benchmark: Benchmark) -> None:
    (tmp_path / "out/answers.sqlite").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"answers\.sqlite: it cannot be used \(unable to open"):
        run(tmp_path / "out", benchmark, Scripted())


def test_wrong_folders(tmp_path: Path, benchmark: Benchmark) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BadInput, match="it is a file; name a folder"):
        run(file, benchmark, Scripted())
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/answers.sqlite").write_text("no database at all, certainly not")
    with pytest.raises(BadInput, match="it is no answer store"):
        run(tmp_path / "odd", benchmark, Scripted())
    assert run(tmp_path / "odd", benchmark, Scripted(), fresh=True).exit_code == ExitCode.OK
    with sqlite3.connect(tmp_path / "odd/answers.sqlite") as db:
        db.execute("UPDATE meta SET value = '99'")
    with pytest.raises(BadInput, match="its format is version 99"):
        run(tmp_path / "odd", benchmark, Scripted())
    with pytest.raises(BadInput, match=r"there is no manifest\.json"):
        read_run(tmp_path)


def test_fresh_deletes_nothing_where_no_run_was(tmp_path: Path, benchmark: Benchmark) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report/thesis.tex").write_text("years of work")
    run(tmp_path, benchmark, Scripted(), fresh=True)
    assert (tmp_path / "report/thesis.tex").read_text() == "years of work"


def test_a_folder_that_cannot_be_locked_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    assert not is_held(tmp_path)
    with locked(tmp_path):
        assert is_held(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(BadInput, match="cannot be locked"):
        is_held(tmp_path)
