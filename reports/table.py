"""The one table model: every format is rendered from it, so they cannot disagree.

A table is rows of cells under grouped columns. A cell keeps its number beside its text, so that the best of
a column is marked by value and never by reading text back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.scoring import ANOMALY_ACCURACY, AVERAGE, NORMAL_ACCURACY, Scores
from harness.subtasks import SUBTASKS

DASH = "-"
SHORT = {
    "Discrimination": "Discrim.",
    "Classification": "Classif.",
    "Localization": "Local.",
    "Description": "Descr.",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column and how its cells are read."""

    key: str
    title: str
    group: str = ""  #: spans neighbouring columns of the same group
    numeric: bool = True
    ranked: bool = True  #: whether its best cell is marked (higher is better)
    short: str = ""  #: the title where a line is short: a terminal, a printed page


@dataclass(frozen=True, slots=True)
class Cell:
    """What one cell shows."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table with footnotes; ``rows`` are as wide as ``columns``."""

    name: str  #: file name without suffix, and label
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
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


def number(value: float | None, digits: int = 2) -> Cell:
    """A numeric cell; None is shown as a dash.

    >>> number(50.0).text, number(None).text
    ('50.00', '-')
    """
    return Cell(DASH if value is None else f"{value:.{digits}f}", value)


def mark_best(table: Table) -> Table:
    """The same table with the highest value of every ranked column marked; ties are all marked.

    A single row has nothing to be better than, so it is left alone. Values tie when they print alike.
    """
    if len(table.rows) < 2:
        return table
    rows = [list(row) for row in table.rows]
    for i, column in enumerate(table.columns):
        values = [row[i].value for row in rows if row[i].value is not None]
        if not (column.numeric and column.ranked and values):
            continue
        best = number(max(value for value in values if value is not None)).text
        for row in rows:
            row[i] = replace(row[i], best=row[i].text == best)
    return replace(table, rows=tuple(tuple(row) for row in rows))


def _subtask_columns() -> tuple[Column, ...]:
    return tuple(
        Column(subtask.key, subtask.title, subtask.group, short=SHORT.get(subtask.title, ""))
        for subtask in SUBTASKS
    )


def comparison(
    titles: Mapping[str, str], scores: Mapping[str, Scores], scales: Mapping[str, str], notes: Sequence[str]
) -> Table:
    """The paper's Table 1: one row a model, one column a subtask, and the average.

    Args:
        titles: model id -> name, in the order of the rows.
        scores: model id -> its scores.
        scales: model id -> parameters, as printed.
        notes: what is said under the table.
    """
    columns = (
        Column("model", "Model", numeric=False),
        Column("scale", "Scale", numeric=False),
        *_subtask_columns(),
        Column(AVERAGE, "Average"),
    )
    rows = []
    for model, title in titles.items():
        row = scores[model].rows[AVERAGE]
        figures = (number(row[column.key]) for column in columns[2:])
        rows.append((Cell(title), Cell(scales.get(model, DASH)), *figures))
    return mark_best(Table("comparison", "Accuracy (%) by subtask", columns, tuple(rows), tuple(notes)))


def by_dataset(model: str, title: str, scores: Scores, notes: Sequence[str] = ()) -> Table:
    """One model's accuracy per dataset, with the accuracies on normal and on anomalous images."""
    columns = (
        Column("dataset", "Dataset", numeric=False),
        *_subtask_columns(),
        Column(AVERAGE, "Average", ranked=False),
        Column(NORMAL_ACCURACY, "Normal", "Images", ranked=False),
        Column(ANOMALY_ACCURACY, "Anomalous", "Images", ranked=False),
    )
    rows = []
    for name, row in scores.rows.items():
        label = "Average" if name == AVERAGE else name
        rows.append((Cell(label), *(number(row[column.key]) for column in columns[1:])))
    return Table(f"datasets-{model}", f"{title}: accuracy (%) by dataset", columns, tuple(rows), tuple(notes))
