"""An experiment's tables and figures as files, and in a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.jsonfiles import write_text
from reports.experiment.figures import experiment_figures
from reports.experiment.findings import Findings
from reports.experiment.tables import CONTRAST, NAMES
from reports.renderers import render_markdown
from reports.table import Table

FIGURES, TABLES = "figures", "tables"
_BEGIN = re.compile(r"<!--\s*table:\s*([^<>]*?)\s*-->")
#: From a marker to its own end: one that lacks it must not take what follows up to another's.
_MARKED = re.compile(rf"{_BEGIN.pattern}(?:(?!<!--\s*table:).)*?<!--\s*end\s*-->", re.DOTALL)


def write_experiment(
    findings: Findings, tables: Sequence[Table], out: Path, renderers: Mapping[str, tuple[str, Any]]
) -> list[Path]:
    """Write every table in every format, and the figures, into folders of ``out``; returns the files."""
    written = []
    for table in tables:
        for suffix, render in renderers.values():
            written.append(out / TABLES / f"{table.name}{suffix}")
            write_text(written[-1], render(table))
    for name, drawn in experiment_figures(findings).items():
        written.append(out / FIGURES / f"{name}.svg")
        write_text(written[-1], drawn)
    return written


def put_into(tables: Sequence[Table], page: Path) -> None:
    """Renew the tables of a Markdown page: each stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.

    Raises:
        BadInput: the page cannot be read, or names a table that no experiment has.
    """
    known = {table.name: table for table in tables}
    try:
        text = page.read_bytes().decode("utf-8")  # with the page's own ends of lines
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{page}: it cannot be read ({error}); name a Markdown page") from error
    begun, whole = ({found.start(): found[1] for found in kind.finditer(text)} for kind in (_BEGIN, _MARKED))
    if not begun:
        raise BadInput(f"{page}: it marks no place for a table; write <!-- table: NAME --> <!-- end -->")
    if endless := [name for place, name in begun.items() if place not in whole]:
        raise BadInput(f"{page}: <!-- table: {endless[0]} --> has no <!-- end --> of its own; write it")

    def renewed(match: re.Match[str]) -> str:
        if match[1] == CONTRAST and match[1] not in known:
            raise BadInput(f"{page}: the table {CONTRAST!r} needs another experiment; name it with --against")
        if match[1] not in NAMES:
            raise BadInput(f"{page}: there is no table {match[1]!r}; use {', '.join(NAMES)}")
        content = render_markdown(known[match[1]]) if match[1] in known else "Nothing yet.\n"
        whole = f"<!-- table: {match[1]} -->\n{content}<!-- end -->"
        return whole.replace("\n", "\r\n") if "\r\n" in text else whole

    write_text(page, _MARKED.sub(renewed, text))
