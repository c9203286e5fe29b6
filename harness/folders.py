"""Files of a folder by names that somebody else wrote: they may not lead out of it.

Each directory is listed once, so that looking up the hundred thousand names of a whole benchmark takes
seconds even on a network drive.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

Kind = Literal["file", "folder", "escape"]
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class UnsafePath(Exception):
    """A name leads out of the folder; the message completes a sentence that starts with the name."""


class Folder:
    """Looks names up below a root folder.

    Args:
        root: the folder; names are relative to it, with forward slashes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = os.path.realpath(root)
        self._listings: dict[str, dict[str, Kind]] = {}

    def file(self, name: str) -> Path | None:
        """The file of that name, or None; raises :class:`UnsafePath` when it lies outside the root."""
        return self.root / name if self._kind(name) == "file" else None

    def files(self, name: str) -> tuple[Path, ...]:
        """The file of that name, or the images of the folder of that name in order; empty if there is none.

        Raises:
            UnsafePath: it lies outside the root.
        """
        kind = self._kind(name)
        if kind == "file":
            return (self.root / name,)
        if kind != "folder":
            return ()
        inside = self._listing(name.strip("/"))
        return tuple(
            self.root / name / child
            for child in sorted(inside)
            if inside[child] == "file" and Path(child).suffix.lower() in IMAGE_SUFFIXES
        )

    def _kind(self, name: str) -> Kind | None:
        if not name or "\0" in name:
            raise UnsafePath("is no path")
        if name.startswith(("/", "\\")) or (len(name) > 1 and name[1] == ":"):
            raise UnsafePath("is an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise UnsafePath("climbs out with '..'")
        here = ""
        for depth, part in enumerate(parts, 1):
            kind = self._listing(here).get(part)
            if kind == "escape":
                raise UnsafePath("is a link that leaves the folder")
            if kind is None or depth == len(parts):
                return kind
            if kind == "file":
                return None
            here = f"{here}/{part}" if here else part
        return None

    def _listing(self, folder: str) -> dict[str, Kind]:
        listing = self._listings.get(folder)
        if listing is None:
            try:
                with os.scandir(self.root / folder) as entries:
                    listing = {entry.name: kind for entry in entries if (kind := self._classify(entry))}
            except OSError:  # it cannot be listed, so nothing in it can be used
                listing = {}
            self._listings[folder] = listing
        return listing

    def _classify(self, entry: os.DirEntry[str]) -> Kind | None:
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if os.path.commonpath([self._real, target]) != self._real:
                return "escape"
        if entry.is_file():
            return "file"
        return "folder" if entry.is_dir() else None
