"""What folders call things, in words: ``bent_lead`` is a bent lead, ``bad`` says nothing.

A ``names.json`` in a dataset's root says it better than a rule can, for folders that are codes::

    {"objects": {"A17": "gear housing"}, "kinds": {"F03": "porosity", "misc": null}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import BadInput
from harness.jsonfiles import read_json

NAMES_FILE = "names.json"
NORMAL = frozenset({"good", "ok", "normal"})
#: Folders that say that something is wrong, and not what.
NAMELESS = frozenset({
    "abnormal", "anomalies", "anomalous", "anomaly", "bad", "combined", "defect", "defective", "defects",
    "general", "ko", "logical anomalies", "mixed", "ng", "other", "others", "structural anomalies", "unknown",
})  # fmt: skip
_SEPARATORS = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W\d_]{2,}")  # two letters: "F03" names nothing
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def in_words(folder: str) -> str:
    """A folder's name in lower-case words, without the number at its end; empty for a code.

    >>> in_words("Bent_Lead"), in_words("pcb2"), in_words("missingPart-03"), in_words("F03")
    ('bent lead', 'pcb', 'missing part', '')
    """
    words = _SEPARATORS.sub(" ", _HUMP.sub(" ", folder)).strip().lower()
    words = re.sub(r"\s*\d+$", "", words)
    return words if _WORD.search(words) else ""


@dataclass(frozen=True, slots=True)
class Names:
    """Products and kinds of defect in words: what ``names.json`` says, else the folder's own name."""

    objects: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def noun(self, folder: str) -> str:
        """A product in words; empty when its name is a code."""
        return self.objects.get(folder, in_words(folder))

    def kind(self, folder: str) -> str:
        """A kind of defect in words; empty when its name is a code or says nothing."""
        words = self.kinds.get(folder, in_words(folder))
        return "" if words in NAMELESS else words

    def code(self, folder: str) -> bool:
        """Whether a folder's name is a code that nobody has explained."""
        return folder not in self.objects and folder not in self.kinds and not in_words(folder)


def read_names(root: Path, kinds: Mapping[str, str] | None = None) -> Names:
    """The names of a dataset.

    Args:
        root: of the dataset.
        kinds: what a dataset's codes mean unless its ``names.json`` says otherwise.

    Raises:
        BadInput: ``names.json`` is unfit.
    """
    path = root / NAMES_FILE
    table = read_json(path)[0] if path.is_file() else {}
    if not isinstance(table, dict) or not set(table) <= {"objects", "kinds"}:
        raise BadInput(f"{path}: it must be an object with objects and kinds; correct the file")
    for part in table.values():
        if not isinstance(part, dict) or not all(isinstance(v, str | None) for v in part.values()):
            raise BadInput(f"{path}: objects and kinds must map folders to words or null; correct the file")
    said = {
        part: {key: value or "" for key, value in table.get(part, {}).items()}
        for part in ("objects", "kinds")
    }
    empty = next((key for key, value in said["objects"].items() if not value.strip()), None)
    if empty is not None:
        raise BadInput(f"{path}: object {empty!r} has no words; write what the product is called")
    return Names(said["objects"], {**(kinds or {}), **said["kinds"]})
