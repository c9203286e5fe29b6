"""The reports plugin: renderers, the ``report`` command, and the report at the end of every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.hookspecs import RendererSpec, hookimpl

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.run_info import RunInfo


_PATH = click.Path(path_type=Path)


def _renderer(name: str) -> Any:
    def render(table: Any) -> str:
        from reports import html, page

        return html.render_html_table(table) if name == "html" else page.FORMATS[name][1](table)

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
    from reports.subject import read_subject

    write_report(read_subject([run.out]), run.out)


@click.command()
@click.argument("runs", metavar="RUN|ANSWERS.json...", nargs=-1, required=True, type=_PATH)
@click.option("--out", type=_PATH, help="Where to write; the run's folder if it is one, else ./report.")
@click.option(
    "--format",
    "formats",
    default="html,latex,markdown,csv,text",
    show_default=True,
    help="Formats, with commas.",
)
@click.option(
    "--rule", type=click.Choice(("official", "strict", "pooled")), default="official", show_default=True
)
@click.option(
    "--published",
    help="Reported numbers to stand beside: paper, mmad, none; the paper's in the real world.",
)
@click.option(
    "--base", help="The model that daggers are against; internvl3-base, else the first, unless given."
)
@click.option("--data", type=_PATH, help="The benchmark's folder, for its images; where the run found it.")
@click.option(
    "--resamples",
    type=click.IntRange(100, 1_000_000),
    default=10_000,
    show_default=True,
    help="Of intervals.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resampling.")
@click.option("--into", type=_PATH, help="Of an experiment: a Markdown page whose marked tables are renewed.")
@click.option("--against", type=_PATH, help="Of an experiment: another one; are differences larger here?")
@click.pass_obj
def report(registry: Registry, /, runs: tuple[Path, ...], out: Path | None, **options: Any) -> None:
    """Write tables and an HTML page of runs and answer files, all their models side by side.

    Of an experiment's results, alone: tables and figures, and no page.
    """
    from harness.errors import BadInput
    from harness.experiments import DESIGN, is_experiment
    from harness.text import number_of
    from reports.page import write_report
    from reports.subject import read_subject

    known = registry.renderers
    renderers = {name: (spec.suffix, spec.render) for name, spec in known.items()}
    formats = _words(options["formats"])
    if not formats or not set(formats) <= set(known):
        raise BadInput(f"--format {options['formats']}: use {', '.join(known)}, with commas between")
    if len(runs) == 1 and is_experiment(runs[0]):
        _refuse_options_of_runs(formats)
        _report_experiment(runs[0], out, formats, known, page=options["into"], against=options["against"])
        return
    if experiments := [run for run in runs if is_experiment(run)]:
        raise BadInput(f"{experiments[0]}: an experiment is reported alone; --against names another")
    if work := [run for run in runs if is_experiment(run / "results")]:
        raise BadInput(f"{work[0]}: an experiment was done here; name its results, {work[0] / 'results'}")
    for name in ("into", "against"):
        if options[name] is not None:
            raise BadInput(f"{runs[0]}: there is no {DESIGN}, and --{name} is for an experiment's results")
    published = None if options["published"] is None else _words(options["published"])
    subject = read_subject(
        runs, options["rule"], options["base"], resamples=options["resamples"], seed=options["seed"]
    )
    alone = len(runs) == 1 and runs[0].is_dir()
    target = out or (runs[0] if alone else Path("report"))
    written = write_report(
        subject,
        target,
        formats,
        renderers,
        published=() if published == ("none",) else published,
        data=options["data"],
    )
    tables = [path for path in written if path.parent.name == "tables"]
    if tables:
        click.echo(f"{tables[0].parent}: {number_of(len(tables), 'file')}")
    for path in written:
        if path not in tables:
            click.echo(path)


def _refuse_options_of_runs(formats: tuple[str, ...]) -> None:
    """An experiment's analysis is fixed beforehand: what would change nothing is refused, not passed over."""
    from harness.errors import BadInput

    context = click.get_current_context()
    for name in ("rule", "published", "base", "data", "resamples", "seed"):
        source = context.get_parameter_source(name)
        if source is not None and source is not click.core.ParameterSource.DEFAULT:
            raise BadInput(f"--{name}: an experiment's tables know no such choice; leave it away")
    if formats == ("html",):
        raise BadInput(
            "--format html: an experiment has tables and no page; use markdown, latex, csv or text"
        )


def _report_experiment(
    folder: Path,
    out: Path | None,
    formats: tuple[str, ...],
    known: Mapping[str, RendererSpec],
    *,
    page: Path | None,
    against: Path | None,
) -> None:
    from harness.experiments import read_experiment
    from harness.text import number_of
    from reports.experiment import experiment_tables, find, put_into, write_experiment

    findings = find(read_experiment(folder))
    other = find(read_experiment(against)) if against is not None else None
    tables = experiment_tables(findings, other)
    chosen = {name: (known[name].suffix, known[name].render) for name in formats if name != "html"}
    if page is not None:
        put_into(tables, page)  # first, for it may be refused
    written = write_experiment(findings, tables, out or folder, chosen)
    shown = next((table for table in tables if table.name == "claims"), tables[0])
    click.echo(known["text"].render(shown))
    for place in dict.fromkeys(path.parent for path in written):
        click.echo(f"{place}: {number_of(sum(path.parent == place for path in written), 'file')}")
    if page is not None:
        click.echo(page)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


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
