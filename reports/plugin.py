"""The reports plugin: renderers, the ``report`` command, and the report at the end of every run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.hookspecs import RendererSpec, hookimpl

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.run import RunInfo


def _renderer(name: str) -> Any:
    def render(table: Any) -> str:
        from reports import page

        return page.render_html_table(table) if name == "html" else page.FORMATS[name][1](table)

    return render


@hookimpl
def emit_bench_renderers() -> Iterable[RendererSpec]:
    """Text, Markdown, CSV, LaTeX and HTML."""
    suffixes = {"text": ".txt", "markdown": ".md", "csv": ".csv", "latex": ".tex", "html": ".html"}
    return [RendererSpec(name, suffix, _renderer(name)) for name, suffix in suffixes.items()]


@hookimpl
def emit_bench_run_finished(run: RunInfo) -> None:
    """Write ``tables/`` and ``report/index.html`` into the run's folder."""
    if run.n_questions == 0:
        return
    from reports.page import write_report

    write_report(run.out)


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where to write; the run's own folder unless given."
)
@click.option(
    "--format",
    "formats",
    default="html,latex,markdown,csv,text",
    show_default=True,
    help="Formats, with commas.",
)
@click.pass_obj
def report(registry: Registry, runs: tuple[Path, ...], out: Path | None, formats: str) -> None:
    """Write the tables and the HTML page of finished runs."""
    from harness.errors import BadInput
    from reports.page import write_report

    known = registry.renderers
    renderers = {name: (spec.suffix, spec.render) for name, spec in known.items()}
    names = tuple(name.strip() for name in formats.split(",") if name.strip())
    if not names or not set(names) <= set(known):
        raise BadInput(f"--format {formats}: use {', '.join(known)}, with commas between")
    titles = [run.resolve().name for run in runs]
    if out is not None and len(set(titles)) < len(titles):
        raise BadInput(f"--out {out}: two of the runs have the same name; report them one by one")
    for run, title in zip(runs, titles, strict=True):
        target = out / title if out is not None and len(runs) > 1 else out
        for path in write_report(run, target, names, renderers):
            click.echo(path)


@click.command()
@click.argument("place", metavar="SET", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page; report/index.html in the set's folder."
)
@click.option("--products", is_flag=True, help="Print a line a product too.")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def stats(place: Path, out: Path | None, products: bool, form: str) -> None:
    """Count a training set, beside the paper's, and draw its composition.

    SET is a training set's folder, or a training file.
    """
    import json

    from reports.dataset import read_stats, stats_tables, write_page
    from reports.renderers import render_text

    found = read_stats(place)
    if found.stale:
        click.echo(f"emit-bench: {found.file}: its manifest tells of other rows; build it again", err=True)
    page = write_page(found, out or found.file.parent / "report" / "index.html")
    if form == "json":
        click.echo(json.dumps({**found.counts, "page": str(page)}, indent=2, ensure_ascii=False))
        return
    for table in stats_tables(found):
        if products or table.name != "products":
            click.echo(render_text(table))
    click.echo(page)


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """``emit-bench report`` and ``emit-bench data stats``."""
    cli.add_command(report)
    data = cli.commands["data"]
    assert isinstance(data, click.Group)
    data.add_command(stats)
