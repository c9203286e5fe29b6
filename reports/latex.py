r"""A table as LaTeX for pdflatex: needs the packages booktabs and graphicx; every text is escaped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from reports.table import Cell, Mark, Table, clipped

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "[": "{[}", "]": "{]}", "*": "{*}",  # bare, they may be arguments of \\
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedblright{}", "\u2020": r"$\dagger$", "\u2026": r"\ldots{}",
    "\u00b7": r"$\cdot$", "\u2013": "--", "\u2014": "---", "\u2018": "`", "\u2019": "'",
}  # fmt: skip
#: Letters beyond ASCII that every font of pdflatex has; ð and þ are not among them.
_LATIN = frozenset(map(chr, range(0xC0, 0x100))) - set("\u00d0\u00d7\u00de\u00f0\u00f7\u00fe")
_LEGEND: dict[Mark, str] = {
    "best": r"\textbf{Bold}",
    "second": r"\underline{Underlined}",
    "dagger": r"$\dagger$",
}
_LIMIT = 1000  #: characters of one text: pdflatex has a limit on lines


def latex_escape(text: str) -> str:
    r"""Text as LaTeX prints it; line breaks become spaces, and what no font has becomes its code point.

    >>> latex_escape("a_b & 50%")
    'a\\_b \\& 50\\%'
    >>> latex_escape("\u202eé \u4e2d")
    'é {[}U+4E2D{]}'
    """
    return "".join(_letter(char) for char in clipped(" ".join(text.split()), _LIMIT))


def _letter(char: str) -> str:
    if char in _LATEX:
        return _LATEX[char]
    if (char.isascii() and char.isprintable()) or char in _LATIN:
        return char
    if unicodedata.category(char).startswith("C"):  # control and direction marks
        return ""
    return f"{{[}}U+{ord(char):04X}{{]}}"


def render_latex(table: Table) -> str:
    """A ``table*`` with booktabs rules."""
    table = table.widened()
    spec = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}; a table wider than the page is shrunk to it.",
        "\\begin{table*}[t]",
        "\\centering",
        "\\small",
        "\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{latex_escape(table.title)}.}}",
        f"\\label{{tab:{re.sub(r'[^A-Za-z0-9:-]+', '-', table.name)}}}",
        "\\resizebox{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}{!}{%",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
    ]
    if any(group for group, _ in table.groups):
        lines += _groups(table)
    lines.append(_line([latex_escape(column.short or column.title) for column in table.columns]))
    lines += ["\\midrule", *(_row(row) for row in table.rows)]
    for block in table.blocks:
        title = f"\\multicolumn{{{len(table.columns)}}}{{l}}{{\\itshape {latex_escape(block.title)}}}"
        lines += ["\\midrule", _line([title]), *(_row(row) for row in block.rows)]
    lines += ["\\bottomrule", "\\end{tabular}}"]
    notes = [f"{_LEGEND[mark]}: {latex_escape(table.legend[mark])}." for mark in table.shown_marks]
    notes += [latex_escape(note) for note in table.footnotes]
    if notes:
        lines += ["", "\\vspace{2pt}", "\\raggedright\\footnotesize " + "\n".join(notes)]
    return "\n".join([*lines, "\\end{table*}"]) + "\n"


def _row(row: Sequence[Cell]) -> str:
    return _line([_cell(cell) for cell in row])


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + " \\\\"


def _cell(cell: Cell) -> str:
    text = latex_escape(cell.text)
    if "best" in cell.marks:
        text = f"\\textbf{{{text}}}"
    elif "second" in cell.marks:
        text = f"\\underline{{{text}}}"
    # Takes no room, so that numbers stay under each other.
    return text + ("\\rlap{$^\\dagger$}" if "dagger" in cell.marks else "")


def _groups(table: Table) -> list[str]:
    cells, rules, start = [], [], 1
    for group, span in table.groups:
        cells.append(f"\\multicolumn{{{span}}}{{c}}{{{latex_escape(group)}}}" if group else "")
        if group:
            rules.append(f"\\cmidrule(lr){{{start}-{start + span - 1}}}")
        start += span
    return [_line(cells), " ".join(rules)]
