"""Plain text for the terminal: aligned columns and the seven-subtask table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.subtasks import SUBTASKS

if TYPE_CHECKING:
    from harness.estimates import Estimates
    from harness.scoring import Scores


def columns(rows: Sequence[Sequence[str]], right_from: int | None = None, right_to: int | None = None) -> str:
    """Rows of cells as lines of aligned columns.

    Args:
        rows: cells; every row equally long.
        right_from: columns from this index on are aligned right (numbers).
        right_to: up to this index, which is not one of them; to the last unless given.

    >>> print(columns([("model", "score"), ("emit", "7.5")], right_from=1))
    model  score
    emit     7.5
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    numbers = range(len(widths) if right_from is None else right_from, right_to or len(widths))
    lines = []
    for row in rows:
        cells = [
            c.rjust(w) if i in numbers else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number_of(count: int, thing: str) -> str:
    """A count with its noun.

    >>> number_of(1, "product"), number_of(1234, "image")
    ('1 product', '1,234 images')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def points(count: float) -> str:
    """Points of a score, with their noun.

    >>> points(1.0), points(2.5)
    ('1 point', '2.5 points')
    """
    return f"{count:g} point{'' if count == 1 else 's'}"


def p_value(p: float) -> str:
    """A p-value with four decimals, and never as nothing.

    >>> p_value(0.0123), p_value(1e-9)
    ('0.0123', '<0.0001')
    """
    return f"{p:.4f}" if p >= 0.00005 else "<0.0001"


def wrapped(text: str, width: int = 100) -> str:
    """A sentence in lines that fit most terminals."""
    return "\n".join(textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False))


def percent(value: float | None) -> str:
    """A percentage with two decimals, or a dash."""
    return "-" if value is None else f"{value:.2f}"


def average_table(scores: Mapping[str, Scores]) -> str:
    """One line a model with its average: what is left to say where no plugin renders tables."""
    rows = [(model, percent(scored.rows["average"]["average"])) for model, scored in scores.items()]
    return columns([("Model", "Average"), *rows], right_from=1)


def score_table(scores: Scores, estimates: Estimates | None = None) -> str:
    """One line a dataset and the average row, with the accuracies on normal and on anomalous images.

    Args:
        scores: of one model.
        estimates: of the same; their intervals stand in a line below each.
    """
    groups = ("", *(subtask.group for subtask in SUBTASKS), "", "Images", "Images")
    heads = ("Dataset", *(subtask.title for subtask in SUBTASKS), "Average", "Normal", "Anomalous")
    rows = []
    for name, row in scores.rows.items():
        rows.append((name, *(percent(value) for value in row.values())))
        if estimates is not None:
            bounds = (estimates.rows[name][column] for column in row)
            rows.append(("", *(f"{b.low:.1f}-{b.high:.1f}" if b else "" for b in bounds)))
    return columns([groups, heads, *rows], right_from=1)
