"""Names that users type: looked up, and guessed at where they are unknown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from harness.errors import BadInput

Spec = TypeVar("Spec")


def find(table: Mapping[str, Spec], name: str, kind: str) -> Spec:
    """Look a name up; raises :class:`BadInput` with near names when it is unknown."""
    if name in table:
        return table[name]
    raise BadInput(suggest(f"there is no {kind} {name!r}", name, list(table)))


def suggest(sentence: str, name: str, known: Sequence[str]) -> str:
    """A sentence with names that are near, or else with all."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"{sentence}; did you mean {' or '.join(near)}?"
    visible = [word for word in known if not word.startswith("_")]
    return f"{sentence}; there are: {', '.join(visible) or 'none'}"
