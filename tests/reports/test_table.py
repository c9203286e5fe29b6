"""The table model, and every format rendered from it."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from reports.html import render_html_table
from reports.latex import latex_escape, render_latex
from reports.renderers import csv_safe, render_csv, render_markdown, render_text, render_texts
from reports.table import Block, Cell, Column, Mark, Table, number

NASTY = "<b>&_%$#{}~^\\ | *x* \n=1"
LEGEND: dict[Mark, str] = {"best": "the best", "second": "the next", "dagger": "another"}


def cell(value: float | None, *marks: Mark, interval: tuple[float, float] | None = None) -> Cell:
    return Cell(number(value).text, value, interval, frozenset(marks))


def table(rows: list[tuple[str, Cell, Cell]], notes: tuple[str, ...] = (), **more: object) -> Table:
    columns = (
        Column("model", "Model", numeric=False),
        Column("a", "First", "Group"),
        Column("b", "Second", "Group"),
    )
    cells = tuple((Cell(name), a, b) for name, a, b in rows)
    return Table("t", "A title", columns, cells, notes, LEGEND, **more)  # type: ignore[arg-type]


MARKED = table(
    [
        ("x", cell(9.5, "second"), cell(1.0, interval=(0.0, 2.04))),
        ("a longer name", cell(10.0, "best", "dagger"), cell(22.0, interval=(20.0, 24.0))),
    ],
    ("A note.",),
    ranged="b",
    blocks=(Block("Reported: theirs", ((Cell("=y"), number(99.0), number(None)),), "Theirs is old."),),
)


def test_rows_must_be_as_wide_as_the_columns() -> None:
    with pytest.raises(ValueError, match="1 cells under 2 columns"):
        Table("t", "t", (Column("a", "A"), Column("b", "B")), ((Cell("x"),),))


def test_text_columns_line_up() -> None:
    assert render_text(MARKED) == (
        "               Group     Group\n"
        "Model          First    Second  95 % interval\n"
        "---------------------------------------------\n"
        "x               9.50+     1.00  0.0 to 2.0\n"
        "a longer name  10.00*\u2020   22.00  20.0 to 24.0\n"
        "\n"
        "Reported: theirs:\n"
        "=y             99.00         -\n"
        "\n"
        "* the best.\n"
        "+ the next.\n"
        "\u2020 another.\n"
        "A note.\n"
        "Theirs is old.\n"
    )


def test_only_marks_that_are_shown_are_explained() -> None:
    assert "the next" not in render_text(table([("x", cell(1.0, "best"), cell(2.0))]))


def test_several_tables_in_one_text_share_their_notes() -> None:
    text = render_texts([MARKED, MARKED])
    assert text.count("A title") == 2 and text.count("a longer name") == 2
    assert text.count("A note.") == text.count("Theirs is old.") == 1


def test_a_terminal_gets_no_control_character() -> None:
    text = render_text(table([("a\x1b[31m\u202eb\x9b", cell(1.0), cell(2.0))]))
    assert "a[31mb" in text and not {"\x1b", "\u202e", "\x9b"} & set(text)


@pytest.mark.parametrize("render", [render_text, render_markdown, render_latex])
def test_no_text_floods_a_table(render) -> None:
    assert len(render(table([("x" * 10**6, cell(1.0), cell(2.0))]))) < 20_000


def test_latex_escapes_everything_and_balances() -> None:
    text = render_latex(
        table([(NASTY, cell(1.0), cell(2.0, "second")), ("y", cell(2.0, "best"), cell(1.0))], (NASTY,))
    )
    assert (
        r"\textless{}b\textgreater{}\&\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    )
    assert r"\textbf{2.00}" in text and r"\underline{2.00}" in text
    assert r"\multicolumn{2}{c}{Group}" in text and r"\cmidrule(lr){2-3}" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].strip().splitlines()[1:]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in body)
    assert text.count("{") == text.count("}")


def test_latex_turns_line_breaks_into_spaces() -> None:
    assert latex_escape("a\nb") == "a b"


def test_no_latex_row_begins_as_an_argument_of_the_row_before() -> None:
    lines = render_latex(table([("[x]", cell(1.0), cell(2.0)), ("*", cell(2.0), cell(1.0))])).splitlines()
    assert not any(line.startswith(("[", "*")) for line in lines)


def test_markdown_keeps_one_row_a_line() -> None:
    lines = render_markdown(table([(NASTY, cell(1.0), cell(2.0))])).splitlines()
    row = next(line for line in lines if "1.00" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4
    assert "<b>" not in row


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_csv_neutralises_formulas(text: str) -> None:
    assert csv_safe(text) == "'" + text


def test_csv_reads_back_unrounded() -> None:
    third = 100 / 3
    rows = list(csv.reader(io.StringIO(render_csv(table([("=x", cell(third), cell(None))])))))
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
    parser.feed(render_html_table(table([("<script>alert(1)</script>", cell(1.0), cell(2.0))])))
    assert "<script>alert(1)</script>" in parser.texts
    assert parser.tags == {"table", "caption", "thead", "tr", "th", "tbody", "td"}


def test_csv_has_intervals_and_tells_measured_from_reported() -> None:
    rows = list(csv.reader(io.StringIO(render_csv(MARKED))))
    assert rows[0] == [
        "Model",
        "Group First",
        "Group Second",
        "Group Second low",
        "Group Second high",
        "Source",
    ]
    assert rows[1] == ["x", "9.5", "1.0", "0.0", "2.04", "measured"]
    assert rows[3] == ["'=y", "99.0", "-", "", "", "Reported: theirs"]


def test_html_sets_reported_rows_apart_and_explains_its_marks() -> None:
    html = render_html_table(MARKED)
    body, reported = html.split('<tbody class="reported">')
    assert "99.00" in reported and "99.00" not in body
    assert "10.00<sup>\u2020</sup>" in body and "<small>20.0 to 24.0</small>" in body
    assert "the next" in html and "another" in html
