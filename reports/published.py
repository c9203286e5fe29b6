"""Numbers that others reported (``published.toml``), as blocks that stand below what was measured here."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from reports.table import Block, Cell, number


@lru_cache(maxsize=1)
def _sources() -> dict[str, dict[str, Any]]:
    text = (Path(__file__).parent / "published.toml").read_text(encoding="utf-8")
    return {source["key"]: source for source in tomllib.loads(text)["source"]}


def names() -> tuple[str, ...]:
    """The sources there are."""
    return tuple(_sources())


def blocks(table: str, sources: Sequence[str]) -> tuple[Block, ...]:
    """Blocks for a table of three columns or more: model, scale, then numbers.

    Args:
        table: the table's name.
        sources: names of sources; those that have nothing for this table are left out.

    Raises:
        BadInput: there is no such source.
    """
    if unknown := [name for name in sources if name not in _sources()]:
        raise BadInput(f"--published {unknown[0]}: use {', '.join(names())}, none, or several with commas")
    found = []
    for name in sources:
        source = _sources()[name]
        if table in source:
            title = f"Reported, not measured here: {source['title']}"
            note = f"{source['title']}: {source['where']}; {source['protocol']}."
            found.append(Block(title, tuple(_row(row) for row in source[table]), note))
    return tuple(found)


def _row(row: Sequence[Any]) -> tuple[Cell, ...]:
    title, scale, *figures = row
    return (Cell(title), Cell(scale), *(number(float(figure)) for figure in figures))
