"""Writing a training set: rows, the images that they name, findings, and the manifest.

The folder can be moved: images are linked into it, or copied where the file system cannot link, and rows name
them relative to the file. The rows appear whole, after everything that they name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from harness.errors import BadInput
from harness.jsonfiles import write_json

ROWS = "train.jsonl"
HELD_OUT = "heldout.jsonl"
MANIFEST = "manifest.json"
FINDINGS = "findings.jsonl"
IMAGES = "images"


class Output:
    """A training set's folder.

    Args:
        folder: made when missing. Another training set's images in it are removed, nothing else.

    Raises:
        BadInput: it cannot be written to, or it holds something that is no training set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if folder.exists() and not (folder.is_dir() and _ours(folder)):
            raise BadInput(f"{folder}: it holds something else than a training set; name a new folder")
        try:
            (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder}: it cannot be made ({error.strerror}); name another --out") from error
        self.linked: set[str] = set()

    def image(self, dataset: str, name: str, source: Path) -> str:
        """Bring an image into the folder; returns its path relative to it."""
        relative = f"{IMAGES}/{dataset}/{name}"
        if relative not in self.linked:
            self.linked.add(relative)
            link(source, self.folder / relative)
        return relative

    @contextlib.contextmanager
    def lines(self, name: str) -> Iterator[Lines]:
        """A JSONL file that appears under its name when it is whole."""
        partial = self.folder / f".{name}.partial"
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            lines = Lines(file)
            yield lines
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / name)

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest and remove images that no row names any more."""
        write_json(self.folder / MANIFEST, manifest)
        for base, folders, files in os.walk(self.folder / IMAGES, topdown=False):
            for file in files:
                path = Path(base) / file
                if path.relative_to(self.folder).as_posix() not in self.linked:
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


def _ours(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or {path.name for path in folder.iterdir()} <= {
        IMAGES, ROWS, HELD_OUT, FINDINGS, f".{ROWS}.partial", f".{HELD_OUT}.partial", f".{FINDINGS}.partial",
    }  # fmt: skip


def link(source: Path, target: Path) -> None:
    """A hard link, else a copy; what is there already and is the same file stays."""
    real = source.resolve()
    try:
        if target.exists() and (target.samefile(real) or _same(target, real)):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(real, partial)
        except OSError:  # another file system, or one without links
            shutil.copyfile(real, partial)
            shutil.copystat(real, partial)
        os.replace(partial, target)
        partial.unlink(missing_ok=True)  # replacing a link by another of the same file does nothing
    except OSError as error:
        raise BadInput(f"{target}: the image cannot be written ({error.strerror})") from error


def _same(copy: Path, original: Path) -> bool:
    """Whether a copy made earlier is still one."""
    one, other = copy.stat(), original.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
