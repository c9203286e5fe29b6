"""Every table compiles with pdflatex, whatever stands in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from reports.latex import latex_escape, render_latex
from reports.published import names
from reports.subject import read_subject
from reports.table import Block, Cell, Column, Table, number
from reports.tables import tables_of
from tests.reports.families import write_family

PDFLATEX = shutil.which("pdflatex")
needs_pdflatex = pytest.mark.skipif(
    PDFLATEX is None, reason="pdflatex is not installed (texlive-latex-recommended)"
)
HOSTILE = (
    "\\input{/etc/passwd}",
    "\\write18{id} \\immediate\\openout3=x",
    "}\\end{tabular}\\end{document}",
    "%comment & $math$ #1 ~^_{",
    "\u202eright to left\u202c \u4e2d\u6587 \U0001f600 \u00e9\u00fe\u0142 \x00\x1b",
    "^^5cinput{x}",
    "long " * 200_000,
)
DOCUMENT = r"""\documentclass{article}
\usepackage[a4paper,landscape,margin=12mm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}
%s
\end{document}
"""


def compile_page(source: str, folder: Path, document: str = DOCUMENT) -> str:
    (folder / "page.tex").write_text(document % source, encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "page.log").read_text(encoding="utf-8", errors="replace")
    assert "Overfull \\hbox" not in log
    assert (folder / "page.pdf").is_file()
    return log


@needs_pdflatex
def test_all_tables_of_a_report_compile_and_fit_the_page(tmp_path: Path) -> None:
    subject = read_subject(write_family(tmp_path), resamples=200)
    tables = tables_of(subject, names())
    assert {"comparison", "ablation-training", "ablation-inputs", "outcomes"} <= {
        table.name for table in tables
    }
    compile_page("\\clearpage\n".join(render_latex(table) for table in tables), tmp_path)


@needs_pdflatex
def test_tables_fit_a_paper_of_two_columns(tmp_path: Path) -> None:
    subject = read_subject(write_family(tmp_path), resamples=200)
    source = "\\clearpage\n".join(render_latex(table) for table in tables_of(subject, names()))
    narrow = DOCUMENT.replace("{article}", "[twocolumn]{article}").replace(
        "a4paper,landscape,margin=12mm", "a4paper"
    )
    compile_page(source, tmp_path, narrow)


@needs_pdflatex
def test_hostile_texts_are_printed_and_not_obeyed(tmp_path: Path) -> None:
    columns = (Column("a", HOSTILE[0], numeric=False), Column("b", "B", HOSTILE[2]))
    rows = tuple((Cell(text), number(1.0)) for text in HOSTILE)
    block = Block(HOSTILE[2], ((Cell(HOSTILE[1]), number(2.0)),), HOSTILE[3])
    table = Table(HOSTILE[2], HOSTILE[4], columns, rows, HOSTILE[:5], blocks=(block,))
    source = render_latex(table).replace(
        "long " * 20, ""
    )  # the rest is one line that no page is wide enough for
    log = compile_page(source, tmp_path)
    assert "/etc/passwd)" not in log and not (tmp_path / "x.tex").exists()


@pytest.mark.parametrize("text", HOSTILE)
def test_no_command_and_no_line_break_passes_the_escape(text: str) -> None:
    escaped = latex_escape(text)
    assert "\n" not in escaped and "^^" not in escaped and len(escaped) < 20_000
    for word in ("input", "write", "end", "openout"):
        assert f"\\{word}" not in escaped


def test_escape_leaves_what_every_font_has() -> None:
    assert latex_escape("caf\u00e9 \u2020 \u202e!") == r"caf\u00e9 $\dagger$ !".replace("\\u00e9", "\u00e9")
