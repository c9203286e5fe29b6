"""What audits found, as tables of the page: in a set order, with numbers under their headings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from reports.table import DASH

#: The usual order; what others bring comes after it, by name.
ORDER = ("positions", "reference", "blind", "repeat")
_NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
#: Numbers that an audit has written itself: with a sign, as an interval, with other decimals.
_WRITTEN = re.compile(rf"{_NUMBER}(?: %)?(?: to {_NUMBER}(?: %)?)?")


class AuditResult(Protocol):
    """What an audit of the benchmark found: a small table with a sentence."""

    @property
    def audit(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def sentence(self) -> str: ...  # noqa: D102

    @property
    def columns(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def rows(self) -> Sequence[Sequence[Any]]: ...  # noqa: D102

    @property
    def n_questions(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class AuditTable:
    """An audit as the page shows it."""

    title: str  #: the name by which it is asked for, and what it does
    sentence: str
    columns: tuple[tuple[str, bool], ...]  #: title, and whether numbers stand below it
    rows: tuple[tuple[str, ...], ...]
    n_questions: int


def audit_tables(results: Sequence[AuditResult]) -> list[AuditTable]:
    """The audits in their order, every cell as text."""
    ranks = {name: place for place, name in enumerate(ORDER)}
    ordered = sorted(results, key=lambda result: (ranks.get(result.audit, len(ORDER)), result.audit))
    return [_table(result) for result in ordered]


def _table(result: AuditResult) -> AuditTable:
    numeric = [at > 0 and _all_numbers([row[at] for row in result.rows]) for at in range(len(result.columns))]
    return AuditTable(
        f"{result.audit}: {_uncapitalized(result.title)}",
        result.sentence,
        tuple(zip(map(str, result.columns), numeric, strict=True)),
        tuple(
            tuple(_text(cell, number) for cell, number in zip(row, numeric, strict=True))
            for row in result.rows
        ),
        result.n_questions,
    )


def _all_numbers(cells: Sequence[Any]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(
        isinstance(cell, int | float) or _WRITTEN.fullmatch(str(cell)) for cell in known
    )


def _text(cell: Any, number: bool) -> str:
    """A cell's text: two decimals unless the audit wrote it otherwise, a dash for nothing."""
    if cell is None:
        return DASH
    text = f"{cell:,.2f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)
    return text.replace("-", "\u2212") if number else text


def _uncapitalized(title: str) -> str:
    """The title as it stands within a line; abbreviations stay.

    >>> _uncapitalized("Options turned"), _uncapitalized("OCR off")
    ('options turned', 'OCR off')
    """
    return title if title[1:2].isupper() else f"{title[:1].lower()}{title[1:]}"
