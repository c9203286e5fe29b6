"""A training set's folder: whose it is, and what a killed or a changed build leaves in it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from harness.errors import BadInput
from plugins.layouts.mvtec import read_mvtec
from tests.raw import mvtec, photo
from tests.trainers.dataset.building import content, rows, run
from trainers.dataset.swift import write_swift


def test_images_that_no_row_names_go(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    run(tmp_path, data)
    built = run(tmp_path, data, per_type=1, normals=2)
    named = {name for row in rows(built) for name in (row["query"], *row["references"])}
    there = {path.relative_to(built.folder).as_posix() for path in (built.folder / "images").rglob("*.png")}
    assert there == named


@pytest.mark.parametrize(
    "files", [("thesis.tex",), ("manifest.json", "images/logo.png"), ("images/holiday.png",)]
)
def test_a_folder_of_something_else_is_not_touched(tmp_path: Path, files: tuple[str, ...]) -> None:
    for name in files:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(BadInput, match="something else"):
        run(tmp_path, mvtec(tmp_path / "D"))
    assert sorted(content(tmp_path / "out")) == sorted(files)


def test_a_link_in_place_of_the_images_is_refused(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data)
    shutil.move(built.folder / "images", tmp_path / "elsewhere")
    photo(tmp_path / "elsewhere/precious.png", 1)
    (built.folder / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="it is a link"):
        run(tmp_path, data)
    assert (tmp_path / "elsewhere/precious.png").is_file()


def test_what_was_made_from_the_old_rows_goes_with_them(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built = run(tmp_path, data, held_out=0.5)
    write_swift(built.folder)
    run(tmp_path, data)
    assert {path.name for path in built.folder.glob("*.jsonl")} == {"train.jsonl", "findings.jsonl"}


def test_the_set_does_not_change_when_a_raw_image_does(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D")
    built, linked = run(tmp_path, data), run(tmp_path, data, out="linked", link=True)
    victim = data.root / "screw/test/hole/001.png"
    before = victim.read_bytes()
    with victim.open("r+b") as file:  # as a program that overwrites in place
        file.write(b"changed")
    assert (built.folder / "images/D/screw/test/hole/001.png").read_bytes() == before
    assert (linked.folder / "images/D/screw/test/hole/001.png").read_bytes() != before


def test_images_of_equal_name_size_and_time_are_told_apart(tmp_path: Path) -> None:
    for turn, start in (("a", 0), ("b", 500)):
        root = mvtec(tmp_path / turn / "D", start=start).root
        for path in root.rglob("*.png"):
            if "ground_truth" not in path.parts:
                Image.open(path).save(path.with_suffix(".bmp"))
                path.unlink()
        for path in root.rglob("*.bmp"):
            os.utime(path, (10**9, 10**9))
        built = run(tmp_path, read_mvtec(root))
    for row in rows(built):
        assert (
            hashlib.sha256((built.folder / row["query"]).read_bytes()).hexdigest() == row["source"]["sha256"]
        )


def test_no_moment_shows_two_builds_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = mvtec(tmp_path / "D", good=8, each=6)
    run(tmp_path, data, held_out=0.5)
    real, done = os.replace, []

    def dying(source: Path, target: Path) -> None:
        if target.suffix == ".jsonl":
            done.append(target.name)
            if len(done) == 2:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, data, held_out=0.5, seed=1)
    shown = {path.name for path in (tmp_path / "out").glob("*.json*") if not path.name.startswith(".")}
    assert shown == {done[0]}


_CHILD = """
import sys
from pathlib import Path
from plugins.layouts.mvtec import read_mvtec
from tests.raw import encoder
from trainers.dataset.build import Settings, build
root = Path(sys.argv[1])
print("ready", flush=True)
build([read_mvtec(root / "D")], root / "out", Settings(), encoder(), root / "kept")
"""


@pytest.mark.slow
def test_killed_anywhere_and_built_again_it_is_as_if_nothing_had_happened(tmp_path: Path) -> None:
    data = mvtec(tmp_path / "D", products=("a", "b", "c", "d"), good=20, each=15)
    whole = content(run(tmp_path, data, out="whole").folder)
    shutil.rmtree(tmp_path / "kept")
    for pause in (0.0, 0.1, 0.2, 0.4):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.wait()
        lines = tmp_path / "out/train.jsonl"
        assert not lines.exists() or hashlib.sha256(lines.read_bytes()).hexdigest() == whole["train.jsonl"]
    assert content(run(tmp_path, data).folder) == whole
