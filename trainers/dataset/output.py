"""Writing a training set: rows, the images that they name, findings, and the manifest.

The folder can be moved: images are copied (or linked) into it, and rows name them relative to the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness.errors import BadInput
from harness.folders import sha256_of
from harness.jsonfiles import write_json

ROWS = "train.jsonl"
HELD_OUT = "heldout.jsonl"
MANIFEST = "manifest.json"
FINDINGS = "findings.jsonl"
IMAGES = "images"
#: Made from the rows by others; they go when the rows do.
DERIVED = ("stage1.swift.jsonl", "stage2.swift.jsonl", "report/index.html")
MARK = ".emit-bench-training-set"  #: says that the folder is ours to rebuild


@dataclass(frozen=True, slots=True)
class Shown:
    """An image of a row."""

    name: str  #: relative to its dataset's root
    path: Path
    digest: str  #: SHA-256 of its bytes, in hex


class Output:
    """A training set's folder.

    Args:
        folder: made when missing. What an earlier build left in it is replaced, nothing else.
        link: link images instead of copying them: no space, but whoever overwrites a raw image in place
            changes the training set too.

    Raises:
        BadInput: it cannot be written to, or it holds something that is no training set.
    """

    def __init__(self, folder: Path, *, link: bool = False) -> None:
        self.folder = folder
        self.link = link
        require_free(folder)
        try:
            if (folder / IMAGES).is_symlink():
                raise BadInput(f"{folder / IMAGES}: it is a link; name another --out")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARK).touch()
            (folder / IMAGES).mkdir(exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder}: it cannot be made ({error.strerror}); name another --out") from error
        self.brought: set[str] = set()

    def image(self, dataset: str, shown: Shown) -> str:
        """Bring an image into the folder; returns its path relative to it."""
        relative = f"{IMAGES}/{dataset}/{shown.name}"
        if relative not in self.brought:
            self.brought.add(relative)
            bring(shown.path, self.folder / relative, shown.digest, link=self.link)
        return relative

    @contextlib.contextmanager
    def lines(self, name: str) -> Iterator[Lines]:
        """A JSONL file that waits under another name until :meth:`finish`."""
        with _partial(self.folder / name).open("w", encoding="utf-8", newline="\n") as file:
            yield Lines(file)
            file.flush()
            os.fsync(file.fileno())

    def finish(self, manifest: Mapping[str, Any], files: Iterable[str]) -> None:
        """Put the finished files in the place of the old ones, and remove images that no row names.

        The old rows go before the new ones come, so that no moment shows a training file of one build beside
        a held-out file of another.
        """
        for name in (MANIFEST, ROWS, HELD_OUT, FINDINGS, *DERIVED):
            (self.folder / name).unlink(missing_ok=True)
        for name in {ROWS, HELD_OUT, FINDINGS} - set(files):
            _partial(self.folder / name).unlink(missing_ok=True)
        for name in files:
            os.replace(_partial(self.folder / name), self.folder / name)
        write_json(self.folder / MANIFEST, manifest)
        for base, folders, found in os.walk(self.folder / IMAGES, topdown=False):
            for file in found:
                path = Path(base) / file
                if path.relative_to(self.folder).as_posix() not in self.brought:
                    path.unlink()
            for name in folders:
                with contextlib.suppress(OSError):  # it is not empty
                    (Path(base) / name).rmdir()


class Lines:
    """Rows on their way into a JSONL file, with their number and digest."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.count = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        line = json.dumps(row, ensure_ascii=False) + "\n"
        self._file.write(line)
        self._sha256.update(line.encode())
        self.count += 1

    def as_json(self) -> dict[str, Any]:
        """What the manifest says of the file."""
        return {"rows": self.count, "sha256": self._sha256.hexdigest()}


def require_free(folder: Path) -> None:
    """Refuse a folder that holds something else than a training set of ours.

    Raises:
        BadInput: it does.
    """
    ours = folder.is_dir() and ((folder / MARK).is_file() or not any(folder.iterdir()))
    if folder.exists() and not ours:
        raise BadInput(f"{folder}: it holds something else than a training set; name a new folder")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def bring(source: Path, target: Path, digest: str, *, link: bool = False) -> None:
    """Copy a file, or link it; what is there already and has the same bytes stays.

    Args:
        source: the file.
        target: where it goes.
        digest: SHA-256 of the source, in hex.
        link: make a hard link where the file system can.

    Raises:
        BadInput: it cannot be written.
    """
    real = source.resolve()
    try:
        if target.exists() and link == target.samefile(real) and (link or sha256_of(target) == digest):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        partial.unlink(missing_ok=True)
        if not (link and _linked(real, partial)):
            shutil.copyfile(real, partial)
        os.replace(partial, target)
        partial.unlink(missing_ok=True)  # replacing a link by another of the same file does nothing
    except OSError as error:
        raise BadInput(f"{target}: the image cannot be written ({error.strerror})") from error


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        return False
    return True
