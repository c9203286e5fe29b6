"""A report on disk: tables in every format, and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reports.latex import render_latex
from reports.renderers import render_csv, render_markdown, render_text, render_texts
from reports.table import Table

if TYPE_CHECKING:
    from reports.subject import Subject

Renderer = Callable[[Table], str]
FORMATS: Mapping[str, tuple[str, Renderer]] = {
    "text": (".txt", render_text),
    "markdown": (".md", render_markdown),
    "csv": (".csv", render_csv),
    "latex": (".tex", render_latex),
}


#: The paper's tables in one text file, which is what a terminal shows at the end of a run.
SUMMARY = "summary"


def write_report(
    subject: Subject,
    out: Path,
    formats: Sequence[str] = ("html", *FORMATS),
    renderers: Mapping[str, tuple[str, Renderer]] = FORMATS,
    *,
    published: Sequence[str] | None = None,
    data: Path | None = None,
) -> list[Path]:
    """Write the tables and the page of a report.

    Args:
        subject: what it is about.
        out: a folder; the tables go into ``tables/``, the page into ``report/``.
        formats: ``html``, which is the page, and names of ``renderers``.
        renderers: format -> suffix and function of a table's file; the built-in ones unless given.
        published: sources of reported numbers that stand beside; unless given the paper's, in the real world.
        data: the benchmark's folder, for its images; unless given, where the run found it.

    Returns:
        What was written, the page last.
    """
    from harness.jsonfiles import write_text
    from reports.tables import PAPER_TABLES, tables_of

    manifest = subject.manifest
    if published is None:
        real = manifest is not None and manifest["benchmark"]["world"] == "real"
        published = ("paper",) if real else ()
    tables = tables_of(subject, published)
    _forget(out / "tables", [table.name for table in tables])
    written = []
    for name in formats:
        if name == "html":
            continue
        suffix, render = renderers[name]
        for table in tables:
            path = out / "tables" / f"{table.name}{suffix}"
            write_text(path, render(table))
            written.append(path)
        if name == "text":
            path = out / "tables" / f"{SUMMARY}{suffix}"
            write_text(path, render_texts([table for table in tables if table.name in PAPER_TABLES]))
            written.append(path)
    if "html" in formats:
        from harness.audits import read_results
        from reports.explorer import write_page

        runs = [source.path for source in subject.sources if source.path.is_dir()]
        audits = [result for run in runs for result in read_results(run)]
        written.append(write_page(subject, tables, out, data=data, audits=audits))
    return written


def _forget(folder: Path, names: Sequence[str]) -> None:
    """Take away tables of an earlier report that this one does not have: other models, other numbers."""
    from reports.tables import DATASETS, TABLE_NAMES

    suffixes = {suffix for suffix, _ in FORMATS.values()}
    for path in folder.iterdir() if folder.is_dir() else ():
        ours = path.stem in TABLE_NAMES or path.stem.startswith(DATASETS)
        if ours and path.suffix in suffixes and path.stem not in names:
            path.unlink()
