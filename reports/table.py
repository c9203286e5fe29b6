"""The one table model: every format is rendered from it, so they cannot disagree.

A table is rows of cells under grouped columns, and perhaps blocks of rows that somebody else reported. A cell
keeps its number, interval and marks beside its text, so that nothing is ever read back from text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.subtasks import SUBTASKS

DASH = "-"
SHORT = {
    "Discrimination": "Discrim.",
    "Classification": "Classif.",
    "Localization": "Local.",
    "Description": "Descr.",
}
#: How a cell stands out: the best of its column (or as good as told), the second best, another than the base.
Mark = Literal["best", "second", "dagger"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column and how its cells are read."""

    key: str
    title: str
    group: str = ""  #: spans neighbouring columns of the same group
    numeric: bool = True
    short: str = ""  #: the title where a line is short: a terminal, a printed page


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell shows."""

    text: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    marks: frozenset[Mark] = frozenset()
    deviation: float | None = None  #: standard deviation over seeds

    @property
    def measures(self) -> Mapping[str, float]:
        """What is known of the value beside itself, in the order in which a CSV file has it."""
        ends = dict(zip(("low", "high"), self.interval, strict=True)) if self.interval else {}
        return ends if self.deviation is None else {"s.d.": self.deviation, **ends}


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that were not measured here: they stand below, say where they are from, and are never ranked."""

    title: str
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""  #: source and protocol, for the footnotes


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table with footnotes; all rows are as wide as ``columns``."""

    name: str  #: file name without suffix, and label
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    legend: Mapping[Mark, str] = field(default_factory=dict)  #: what a mark means
    blocks: tuple[Block, ...] = ()
    #: What a file that goes its own way has to say of its rows: name -> value, such as the world.
    context: Mapping[str, str] = field(default_factory=dict)
    ranged: str = ""  #: key of a column whose intervals are worth a column of their own

    def __post_init__(self) -> None:
        for row in (*self.rows, *(row for block in self.blocks for row in block.rows)):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.name}: a row of {len(row)} cells under {len(self.columns)} columns"
                )

    @property
    def groups(self) -> tuple[tuple[str, int], ...]:
        """Column groups in order, each with the number of columns that it spans."""
        spans: list[tuple[str, int]] = []
        for column in self.columns:
            if spans and spans[-1][0] == column.group and column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        return tuple(spans)

    @property
    def footnotes(self) -> tuple[str, ...]:
        """The notes, and where the blocks are from."""
        return (*self.notes, *(block.note for block in self.blocks if block.note))

    def widened(self) -> Table:
        """For formats whose cells have no room for intervals: those of one column in a column behind it."""
        keys = [column.key for column in self.columns]
        if self.ranged not in keys or not any(row[keys.index(self.ranged)].interval for row in self.rows):
            return self
        at = keys.index(self.ranged) + 1
        more = Column(f"{self.ranged}-interval", "95 % interval", numeric=False)

        def wider(row: tuple[Cell, ...]) -> tuple[Cell, ...]:
            return (*row[:at], Cell(interval_text(row[at - 1])), *row[at:])

        return replace(
            self,
            columns=(*self.columns[:at], more, *self.columns[at:]),
            rows=tuple(wider(row) for row in self.rows),
            blocks=tuple(replace(b, rows=tuple(wider(row) for row in b.rows)) for b in self.blocks),
            ranged="",
        )

    @property
    def shown_marks(self) -> tuple[Mark, ...]:
        """The marks that stand on some cell and have a meaning, in the order of the legend."""
        there = {mark for row in self.rows for cell in row for mark in cell.marks}
        return tuple(mark for mark in self.legend if mark in there)


def number(value: float | None, digits: int = 2) -> Cell:
    """A numeric cell; None is shown as a dash.

    >>> number(50.0).text, number(None).text
    ('50.00', '-')
    """
    return Cell(DASH if value is None else f"{value:.{digits}f}", value)


def interval_text(cell: Cell) -> str:
    """A cell's interval as a range, or nothing.

    >>> interval_text(Cell("50.00", 50.0, (45.0, 55.25)))
    '45.0 to 55.2'
    """
    return f"{cell.interval[0]:.1f} to {cell.interval[1]:.1f}" if cell.interval else ""


def clipped(text: str, limit: int) -> str:
    """Text of at most ``limit`` characters, with dots where it was cut.

    >>> clipped("abcdef", 4)[:3], len(clipped("abcdef", 4)), clipped("abcd", 4)
    ('abc', 4, 'abcd')
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}\u2026"


def subtask_columns() -> tuple[Column, ...]:
    """The seven subtasks as the paper heads them."""
    return tuple(
        Column(subtask.key, subtask.title, subtask.group, short=SHORT.get(subtask.title, ""))
        for subtask in SUBTASKS
    )
