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


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """``emit-bench report``."""
    cli.add_command(report)
