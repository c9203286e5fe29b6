"""A table as text, Markdown and CSV; every text in it is untrusted and made harmless for its format."""

from __future__ import annotations

import csv
import io
import re
import textwrap
import unicodedata
from collections.abc import Sequence

from reports.table import Cell, Mark, Table, clipped

#: Characters of one text; a spreadsheet's cell holds 32,767.
_LIMIT, _CSV_LIMIT = 1000, 32_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def printable(text: str) -> str:
    r"""Text as a terminal may print it: one line, without control and direction marks, not endless.

    >>> printable("a\x1b[31m\u202eb\nc")
    'a[31mb c'
    """
    flat = clipped(" ".join(text.split()), _LIMIT)
    return "".join(char for char in flat if not unicodedata.category(char).startswith("C"))


def markdown_escape(text: str) -> str:
    r"""Text as Markdown prints it inside a table cell.

    >>> markdown_escape("a|b *c* <d>")
    'a\\|b \\*c\\* &lt;d&gt;'
    """
    flat = (
        clipped(" ".join(text.split()), _LIMIT)
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", flat)


def csv_safe(text: str) -> str:
    """Text that no spreadsheet runs as a formula: such a cell gets an apostrophe in front (OWASP).

    >>> csv_safe("=1+1"), csv_safe("plain"), csv_safe("-")
    ("'=1+1", 'plain', '-')
    """
    text = clipped(text, _CSV_LIMIT)
    return f"'{text}" if text.startswith(_FORMULA) and text != "-" else text


def _heads(table: Table) -> list[str]:
    """Column titles with their group, in one line."""
    return [f"{column.group} {column.title}".strip() for column in table.columns]


_TEXT_MARKS: dict[Mark, str] = {"best": "*", "second": "+", "dagger": "\u2020"}
_WIDTH = 100


#: A cell in two parts: what is aligned, and the marks behind it.
_Parts = tuple[str, str]


def render_text(table: Table) -> str:
    """Aligned columns for a terminal, group titles above, marks behind the numbers, notes below."""
    return "\n".join([*_lines(table), "", *_legend(table), *_notes(table.footnotes)]).rstrip() + "\n"


def render_texts(tables: Sequence[Table]) -> str:
    """Several tables whose notes, which are mostly the same, stand once, at the end."""
    if len(tables) == 1:
        return render_text(tables[0])
    parts: list[str] = []
    for table in tables:
        parts += [printable(table.title), "", *_lines(table), "", *_legend(table), ""]
    notes = dict.fromkeys(note for table in tables for note in table.footnotes)
    return "\n".join([*parts, *_notes(tuple(notes))]).rstrip() + "\n"


def _lines(table: Table) -> list[str]:
    """The table itself."""
    table = table.widened()
    columns = table.columns
    heads = [[(column.group, "") for column in columns], [(c.short or c.title, "") for c in columns]]
    if not any(column.group for column in columns):
        del heads[0]
    blocks = [[_parts(row) for row in rows] for rows in (table.rows, *(b.rows for b in table.blocks))]
    everything = [*heads, *(row for rows in blocks for row in rows)]
    widths = [[max(len(row[i][part]) for row in everything) for part in (0, 1)] for i in range(len(columns))]

    def line(row: Sequence[_Parts]) -> str:
        cells = [
            (text.rjust(width) if column.numeric else text.ljust(width)) + marks.ljust(room)
            for (text, marks), (width, room), column in zip(row, widths, columns, strict=True)
        ]
        return "  ".join(cells).rstrip()

    written = [line(row) for row in heads]
    written.append("-" * max(len(line(row)) for row in everything))
    written += [line(row) for row in blocks[0]]
    for block, rows in zip(table.blocks, blocks[1:], strict=True):
        written += ["", *_wrapped(f"{block.title}:"), *(line(row) for row in rows)]
    return written


def _parts(row: Sequence[Cell]) -> list[_Parts]:
    return [
        (printable(cell.text), "".join(_TEXT_MARKS[m] for m in _TEXT_MARKS if m in cell.marks))
        for cell in row
    ]


def _legend(table: Table) -> list[str]:
    return _notes([f"{_TEXT_MARKS[mark]} {table.legend[mark]}." for mark in table.shown_marks])


def _notes(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in _wrapped(note)]


def _wrapped(note: str) -> list[str]:
    return textwrap.wrap(printable(note), _WIDTH, subsequent_indent="  ", break_long_words=False)


MEASURED = "measured"
_MARKDOWN_LEGEND: dict[Mark, str] = {"best": "**Bold**", "second": "*Italic*", "dagger": "\u2020"}


def render_markdown(table: Table) -> str:
    """A GitHub table; the best of a column is bold, the second best italic."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def shown(cell: Cell) -> str:
        text = markdown_escape(cell.text)
        text = f"**{text}**" if "best" in cell.marks else f"*{text}*" if "second" in cell.marks else text
        return text + ("\u2020" if "dagger" in cell.marks else "")

    table = table.widened()
    heads = [markdown_escape(head) for head in _heads(table)]
    lines = [
        f"### {markdown_escape(table.title)}",
        "",
        line(heads),
        line(["---:" if column.numeric else ":---" for column in table.columns]),
        *(line([shown(cell) for cell in row]) for row in table.rows),
    ]
    for block in table.blocks:
        lines.append(line([f"*{markdown_escape(block.title)}*", *[""] * (len(heads) - 1)]))
        lines += [line([shown(cell) for cell in row]) for row in block.rows]
    notes = [
        f"{_MARKDOWN_LEGEND[mark]}: {markdown_escape(table.legend[mark])}." for mark in table.shown_marks
    ]
    notes += [markdown_escape(note) for note in table.footnotes]
    lines += ["", *(f"<sub>{note}</sub>  " for note in notes)]
    return "\n".join(lines).rstrip() + "\n"


def render_csv(table: Table) -> str:
    """Numbers unrounded, each with its interval and deviation where it has them; texts neutralised.

    In place of notes, every row says what it is of: a CSV file is soon among others.
    """
    beside = [
        tuple(dict.fromkeys(name for row in table.rows for name in row[i].measures))
        for i in range(len(table.columns))
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    heads = []
    for head, measures in zip(_heads(table), beside, strict=True):
        heads += [head, *(f"{head} {name}" for name in measures)]
    sourced = ["Source"] if table.blocks else []
    writer.writerow([*(csv_safe(head) for head in (*heads, *table.context)), *sourced])

    def write(row: Sequence[Cell], source: str) -> None:
        cells: list[str] = []
        for cell, measures in zip(row, beside, strict=True):
            cells.append(csv_safe(cell.text) if cell.value is None else repr(cell.value))
            cells += [repr(cell.measures[name]) if name in cell.measures else "" for name in measures]
        told = [csv_safe(value) if source == MEASURED else "" for value in table.context.values()]
        writer.writerow([*cells, *told, *([csv_safe(source)] if sourced else [])])

    for row in table.rows:
        write(row, MEASURED)
    for block in table.blocks:
        for row in block.rows:
            write(row, block.title)
    return buffer.getvalue()
