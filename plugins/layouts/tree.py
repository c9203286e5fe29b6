"""Listing the folders of a raw dataset: every entry is an image, a folder, or a finding."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from harness.errors import BadInput
from harness.folders import IMAGE_SUFFIXES
from harness.raw import Finding

#: Files that belong in a dataset's root and are read by others.
EXPECTED = frozenset({"names.json", "domain_knowledge.json"})


class Tree:
    """The folders of one dataset, each listed once and in order.

    Args:
        root: of the dataset; its name is the dataset's, with which findings begin.

    Raises:
        BadInput: the root's name is not printable.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset = root.resolve().name
        self.findings: list[Finding] = []
        self._listed: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        if not self.dataset.isprintable():
            raise BadInput(f"{printable(str(root))}: the folder's name is not printable UTF-8; rename it")

    def report(self, name: str, file: str, sentence: str, *, left_out: bool) -> None:
        """Note a finding about a path relative to the root."""
        self.findings.append(Finding(name, f"{self.dataset}/{printable(file)}", sentence, left_out))

    def folders(self, place: str = "") -> tuple[str, ...]:
        """Names of the folders in a folder that holds nothing else; files in it become findings."""
        folders, files = self._list(place)
        for file in files:
            if file not in EXPECTED:
                path = f"{place}/{file}" if place else file
                self.report(
                    "unexpected-file", path, "no file is expected here; it is not read", left_out=True
                )
        return folders

    def images(self, place: str) -> tuple[str, ...]:
        """Names of the images in a folder that holds nothing else; whatever else lies there is a finding."""
        folders, _ = self._list(place)
        for folder in folders:
            self.unexpected(f"{place}/{folder}")
        return self.flat(place)

    def flat(self, place: str) -> tuple[str, ...]:
        """Names of the images directly in a folder; other files become findings."""
        _, files = self._list(place)
        found = [file for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES]
        for file in files:
            if file not in found:
                self.report(
                    "not-an-image", f"{place}/{file}", "no image by its suffix; it is not read", left_out=True
                )
        self._check_case(place, found)
        return tuple(found)

    def inside(self, place: str) -> tuple[str, ...]:
        """Names of the folders in a folder that may hold files too."""
        return self._list(place)[0]

    def unexpected(self, path: str, why: str = "no folder is expected here") -> None:
        """Note a folder that is not read."""
        self.report("unexpected-folder", path, f"{why}; it is not read", left_out=True)

    def _list(self, place: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Folders and files of a folder by name; those that cannot be used become findings."""
        if place in self._listed:
            return self._listed[place]
        folders: list[str] = []
        files: list[str] = []
        for entry in self._entries(place):
            path = f"{place}/{entry.name}" if place else entry.name
            try:
                kind = folders if entry.is_dir() else files if entry.is_file() else None
            except OSError:  # a link that leads to itself
                kind = None
            if kind is None:
                self.report("dead-link", path, "the link leads nowhere; restore the file", left_out=True)
            elif self._named_well(path, entry.name):
                kind.append(entry.name)
        self._listed[place] = (tuple(folders), tuple(files))
        return self._listed[place]

    def _named_well(self, path: str, name: str) -> bool:
        if not name.isprintable():  # control characters, and bytes that are no UTF-8
            self.report("broken-name", path, "the name is not printable UTF-8; rename it", left_out=True)
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
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            where = printable(str(self.root / place))
            raise BadInput(
                f"{where}: the folder cannot be listed ({error.strerror}); check its permissions"
            ) from error


def printable(text: str) -> str:
    r"""A text with everything that a terminal may act on, or no file can hold, escaped.

    >>> printable("a\x1b[2J.png")
    'a\\x1b[2J.png'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )
