"""Plain text for the terminal: aligned columns and the seven-subtask table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.subtasks import SUBTASKS

if TYPE_CHECKING:
    from harness.estimates import Estimates
    from harness.scoring import Scores


def columns(rows: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """Rows of cells as lines of aligned columns.

    Args:
        rows: cells; every row equally long.
        right_from: columns from this index on are aligned right (numbers).

    >>> print(columns([("model", "score"), ("emit", "7.5")], right_from=1))
    model  score
    emit     7.5
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    numbers = len(widths) if right_from is None else right_from
    lines = []
    for row in rows:
        cells = [
            c.rjust(w) if i >= numbers else c.ljust(w)
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
