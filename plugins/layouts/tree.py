"""Listing the folders of a raw dataset: every entry is an image, a folder, or a finding."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from harness.errors import BadInput
from harness.folders import IMAGE_SUFFIXES
from harness.raw import Finding


class Tree:
    """The folders of one dataset, each listed once and in order.

    Args:
        root: of the dataset.
        dataset: its name, with which findings begin.
    """

    def __init__(self, root: Path, dataset: str) -> None:
        self.root = root
        self.dataset = dataset
        self.findings: list[Finding] = []

    def report(self, name: str, file: str, sentence: str, *, left_out: bool) -> None:
        """Note a finding about a path relative to the root."""
        printable = file.encode("utf-8", "backslashreplace").decode()
        self.findings.append(Finding(name, f"{self.dataset}/{printable}", sentence, left_out))

    def folders(self, place: str = "") -> tuple[str, ...]:
        """Names of the folders in a folder, in order; empty if it is none."""
        return tuple(entry.name for entry in self._entries(place) if entry.is_dir())

    def images(self, place: str) -> tuple[str, ...]:
        """Names of the images in a folder, in order; whatever else lies there becomes a finding."""
        found = []
        for entry in self._entries(place):
            path = f"{place}/{entry.name}"
            if entry.is_dir():
                self.report(
                    "unexpected-folder", path, "no folder is expected here; it is not read", left_out=True
                )
            elif not entry.is_file():
                self.report("dead-link", path, "the link leads nowhere; restore the file", left_out=True)
            elif Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
                self.report("not-an-image", path, "no image by its suffix; it is not read", left_out=True)
            elif self._named_well(path, entry.name):
                found.append(entry.name)
        self._check_case(place, found)
        return tuple(found)

    def _named_well(self, path: str, name: str) -> bool:
        if not name.isprintable():  # control characters, and bytes that are no UTF-8
            sentence = "the name is not printable UTF-8; rename the file"
            self.report("broken-name", path, sentence, left_out=True)
            return False
        if not name.isascii() or any(letter.isspace() for letter in name):
            sentence = "the name holds a space or a letter outside ASCII; it is read all the same"
            self.report("odd-name", path, sentence, left_out=False)
        return True

    def _check_case(self, place: str, names: list[str]) -> None:
        """One spelling of a suffix is a habit; two in one folder are a trap for other tools."""
        suffixes = Counter(Path(name).suffix for name in names)
        for name in names:
            suffix = Path(name).suffix
            usual = max(suffixes, key=lambda other: (other.lower() == suffix.lower(), suffixes[other], other))
            if usual != suffix:
                sentence = f"the suffix is spelled {suffix} and not {usual}; it is read all the same"
                self.report("extension-case", f"{place}/{name}", sentence, left_out=False)

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.root / place) as entries:
                return sorted(
                    (e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BadInput(
                f"{self.root / place}: the folder cannot be listed ({error.strerror}); check its permissions"
            ) from error
