"""A table as text, Markdown, CSV and LaTeX; every text in it is untrusted and escaped for its format."""

from __future__ import annotations

import csv
import io
import re

from reports.table import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "[": "{[}", "]": "{]}", "*": "{*}",  # bare, they may be arguments of \\
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def latex_escape(text: str) -> str:
    r"""Text as LaTeX prints it; line breaks become spaces.

    >>> latex_escape("a_b & 50%")
    'a\\_b \\& 50\\%'
    """
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def markdown_escape(text: str) -> str:
    r"""Text as Markdown prints it inside a table cell.

    >>> markdown_escape("a|b *c* <d>")
    'a\\|b \\*c\\* &lt;d&gt;'
    """
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", flat)


def csv_safe(text: str) -> str:
    """Text that no spreadsheet runs as a formula: such a cell gets an apostrophe in front (OWASP).

    >>> csv_safe("=1+1"), csv_safe("plain"), csv_safe("-")
    ("'=1+1", 'plain', '-')
    """
    return f"'{text}" if text.startswith(_FORMULA) and text != "-" else text


def _heads(table: Table) -> list[str]:
    """Column titles with their group, in one line."""
    return [f"{column.group} {column.title}".strip() for column in table.columns]


def render_text(table: Table) -> str:
    """Aligned columns for a terminal, group titles above; the best of a column carries a star."""
    columns = table.columns
    heads = [[column.group for column in columns], [column.short or column.title for column in columns]]
    if not any(heads[0]):
        del heads[0]
    starred = any(cell.best for row in table.rows for cell in row)
    lines = [
        [text + " " * (starred and column.numeric) for text, column in zip(head, columns, strict=True)]
        for head in heads
    ]
    for row in table.rows:
        marks = (
            "*" if cell.best else " " * (starred and column.numeric)
            for cell, column in zip(row, columns, strict=True)
        )
        lines.append([cell.text + mark for cell, mark in zip(row, marks, strict=True)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    shown = []
    for line in lines:
        cells = [
            text.rjust(width) if column.numeric else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ]
        shown.append("  ".join(cells).rstrip())
    shown.insert(len(heads), "-" * max(len(line) for line in shown))
    notes = (*table.notes, "* best of its column.") if starred else table.notes
    return "\n".join([*shown, "", *notes]).rstrip() + "\n"


def render_markdown(table: Table) -> str:
    """A GitHub table; the best of a column is bold."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    def shown(cell: Cell) -> str:
        text = markdown_escape(cell.text)
        return f"**{text}**" if cell.best else text

    rules = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [
        f"### {markdown_escape(table.title)}",
        "",
        line([markdown_escape(h) for h in _heads(table)]),
        line(rules),
    ]
    lines += [line([shown(cell) for cell in row]) for row in table.rows]
    lines += ["", *(f"<sub>{markdown_escape(note)}</sub>  " for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def render_csv(table: Table) -> str:
    """Numbers unrounded, texts neutralised; the notes are left to the manifest."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_safe(head) for head in _heads(table)])
    for row in table.rows:
        writer.writerow([csv_safe(cell.text) if cell.value is None else repr(cell.value) for cell in row])
    return buffer.getvalue()


def render_latex(table: Table) -> str:
    """A ``table*`` with booktabs rules; needs the package booktabs and nothing else."""
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% Needs \\usepackage{booktabs}.",
        "\\begin{table*}[t]",
        "\\centering",
        "\\small",
        "\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{latex_escape(table.title)}.}}",
        f"\\label{{tab:{re.sub(r'[^A-Za-z0-9:-]+', '-', table.name)}}}",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
    ]
    if any(group for group, _ in table.groups):
        lines += _latex_groups(table)
    lines.append(" & ".join(latex_escape(column.short or column.title) for column in table.columns) + " \\\\")
    lines.append("\\midrule")
    for row in table.rows:
        shown = (f"\\textbf{{{latex_escape(c.text)}}}" if c.best else latex_escape(c.text) for c in row)
        lines.append(" & ".join(shown) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}"]
    if table.notes:
        lines += [
            "",
            "\\vspace{2pt}",
            "\\raggedright\\footnotesize " + " ".join(latex_escape(note) for note in table.notes),
        ]
    return "\n".join([*lines, "\\end{table*}"]) + "\n"


def _latex_groups(table: Table) -> list[str]:
    cells, rules, start = [], [], 1
    for group, span in table.groups:
        cells.append(f"\\multicolumn{{{span}}}{{c}}{{{latex_escape(group)}}}" if group else "")
        if group:
            rules.append(f"\\cmidrule(lr){{{start}-{start + span - 1}}}")
        start += span
    return [" & ".join(cells) + " \\\\", " ".join(rules)]
