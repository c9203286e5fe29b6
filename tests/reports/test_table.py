"""The table model, and every format rendered from it."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from reports.page import render_html_table
from reports.renderers import csv_safe, latex_escape, render_csv, render_latex, render_markdown, render_text
from reports.table import Cell, Column, Table, mark_best, number

NASTY = "<b>&_%$#{}~^\\ | *x* \n=1"


def table(rows: list[tuple[str, float | None, float | None]], notes: tuple[str, ...] = ()) -> Table:
    columns = (
        Column("model", "Model", numeric=False),
        Column("a", "First", "Group"),
        Column("b", "Second", "Group", ranked=False),
    )
    cells = tuple((Cell(name), number(a), number(b)) for name, a, b in rows)
    return mark_best(Table("t", "A title", columns, cells, notes))


def test_best_is_marked_by_value_and_only_in_ranked_columns() -> None:
    marked = table([("x", 9.5, 1.0), ("y", 10.0, 2.0), ("z", None, 3.0)])
    assert [row[1].best for row in marked.rows] == [False, True, False]
    assert not any(row[2].best for row in marked.rows)


def test_values_that_print_alike_are_both_best() -> None:
    marked = table([("x", 50.001, 0.0), ("y", 50.0, 0.0)])
    assert [row[1].best for row in marked.rows] == [True, True]


def test_a_single_row_is_not_best_of_anything() -> None:
    assert not table([("x", 1.0, 1.0)]).rows[0][1].best


def test_rows_must_be_as_wide_as_the_columns() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table("t", "t", (Column("a", "A"), Column("b", "B")), ((Cell("x"),),))


def test_text_columns_line_up() -> None:
    text = render_text(table([("x", 9.5, 1.0), ("a longer name", 10.0, 22.0)], ("A note.",)))
    assert text == (
        "               Group    Group\n"
        "Model          First   Second\n"
        "-----------------------------\n"
        "x               9.50     1.00\n"
        "a longer name  10.00*   22.00\n"
        "\n"
        "A note.\n"
        "* best of its column.\n"
    )


def test_latex_escapes_everything_and_balances() -> None:
    text = render_latex(table([(NASTY, 1.0, 2.0), ("y", 2.0, 1.0)], (NASTY,)))
    assert (
        r"\textless{}b\textgreater{}\&\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    )
    assert r"\textbf{2.00}" in text
    assert r"\multicolumn{2}{c}{Group}" in text and r"\cmidrule(lr){2-3}" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].strip().splitlines()[1:]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in body)
    assert text.count("{") == text.count("}")


def test_latex_turns_line_breaks_into_spaces() -> None:
    assert latex_escape("a\nb") == "a b"


def test_no_latex_row_begins_as_an_argument_of_the_row_before() -> None:
    lines = render_latex(table([("[x]", 1.0, 2.0), ("*", 2.0, 1.0)])).splitlines()
    assert not any(line.startswith(("[", "*")) for line in lines)


def test_markdown_keeps_one_row_a_line() -> None:
    lines = render_markdown(table([(NASTY, 1.0, 2.0)])).splitlines()
    row = next(line for line in lines if "1.00" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert "<b>" not in row


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_csv_neutralises_formulas(text: str) -> None:
    assert csv_safe(text) == "'" + text


def test_csv_reads_back_unrounded() -> None:
    third = 100 / 3
    rows = list(csv.reader(io.StringIO(render_csv(table([("=x", third, None)])))))
    assert rows[0] == ["Model", "Group First", "Group Second"]
    assert rows[1][0] == "'=x" and float(rows[1][1]) == third and rows[1][2] == "-"


def test_html_shows_hostile_text_as_text() -> None:
    class Texts(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.texts: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)

        def handle_data(self, data: str) -> None:
            self.texts.append(data)

    parser = Texts()
    parser.feed(render_html_table(table([("<script>alert(1)</script>", 1.0, 2.0)])))
    assert "<script>alert(1)</script>" in parser.texts
    assert parser.tags == {"table", "thead", "tr", "th", "tbody", "td"}
