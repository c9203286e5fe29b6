"""The harness's own sub-commands that fit in one file: score, the lists, and data doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.compare_command import compare
from harness.console import PATH, format_option, print_json
from harness.errors import ExitCode
from harness.gate.command import check
from harness.loading_options import DEFAULT_BACKEND, load_request, loading_options, pairs
from harness.parity_command import parity
from harness.run_command import run

if TYPE_CHECKING:
    from harness.estimates import Estimates
    from harness.hookspecs import ModelSpec
    from harness.panel import Cluster
    from harness.plugins import Registry
    from harness.sources import Source


@click.command()
@click.argument("source", metavar="RUN|ANSWERS.json", type=PATH)
@click.option("--rule", default="official", show_default=True, help="official, strict or pooled.")
@click.option("--intervals", is_flag=True, help="With the 95 % interval of every score.")
@click.option(
    "--cluster",
    type=click.Choice(("image", "object")),
    default="image",
    show_default=True,
    help="What intervals resample as a whole.",
)
@format_option("table", "json")
def score(source: Path, rule: str, intervals: bool, cluster: Cluster, form: str) -> int:
    """Score a run's folder or an official answer file."""
    from harness.inspection import inspect
    from harness.scoring import score as score_answers
    from harness.text import score_table

    read = _read(source)
    scores = {model: score_answers(given, rule) for model, given in read.answers.items()}  # type: ignore[arg-type]
    inspected = {model: found for model, given in read.answers.items() if (found := inspect(given))}
    estimates: dict[str, Estimates] = {}
    if intervals:
        from harness.estimates import estimate

        estimates = estimate(read.answers, rule, cluster=cluster)  # type: ignore[arg-type]
    if form == "json":
        tables = {model: scored.as_json() for model, scored in scores.items()}
        for model, table in tables.items():
            table |= {"intervals": estimates[model].as_json()} if model in estimates else {}
            table |= {"inspection": inspected[model].as_json()} if model in inspected else {}
        print_json(next(iter(tables.values())) if len(tables) == 1 else {"models": tables})
        return ExitCode.OK
    for model, scored in scores.items():
        click.echo(f"{model} ({rule}: {scored.n_questions:,} questions, {scored.n_unanswered:,} unanswered)")
        click.echo(score_table(scored, estimates.get(model)))
        if model in inspected:
            click.echo(f"\n{inspected[model].sentence}")
        click.echo()
    if intervals:
        click.echo(f"Below each score: its 95 % interval, from resamples of whole {cluster}s.")
    click.echo(read.sentence)
    return ExitCode.OK


def _read(path: Path) -> Source:
    """Answers to be scored; a run that goes on is worth a word."""
    from harness.source_files import read_source

    source = read_source(path, words=False)
    if not source.finished:
        click.echo(f"emit-bench: {path}: the run is not finished; these are its answers so far", err=True)
    return source


@click.command()
@click.option("--check", is_flag=True, help="Say what would run here, and what is missing.")
@click.option("--models", "patterns", default="all", help="Ids, globs, or all; several with commas.")
@click.option(
    "--world", type=click.Choice(("mini", "real")), help="Whose default weights; both if not given."
)
@loading_options
@format_option("table", "json")
@click.pass_obj
def models(
    registry: Registry, /, form: str, check: bool, patterns: str, world: str | None, **options: Any
) -> None:
    """List the models that --models can name."""
    specs = registry.select_models(patterns)
    if check:
        _check_models(registry, specs, form, world, options)
        return
    rows = [
        {
            "id": spec.id,
            "title": spec.title,
            "family": spec.family,
            "scale": dict(spec.scale),
            "backends": list(spec.backends),
            "weights": dict(spec.weights),
            "summary": spec.summary,
        }
        for spec in specs
    ]
    _print_list(rows, ("id", "title", "scale", "summary"), form)


def _check_models(
    registry: Registry,
    specs: Sequence[ModelSpec],
    form: str,
    world: str | None,
    options: Mapping[str, Any],
) -> None:
    """Each model's configuration and processor, without its weights."""
    weights, adapters = (pairs(f"--{name}", options[name]) for name in ("weights", "adapter"))
    rows = []
    for each in ("mini", "real"):
        for spec in specs:
            if (each not in spec.weights and each != "real") or world not in (None, each):
                continue
            request = load_request(registry, each, DEFAULT_BACKEND, options, strict=False)
            request = replace(
                request,
                weights=weights.get(spec.id),
                adapter=adapters.get(spec.id),
                resources={**request.resources, "base_urls": tuple(options["base_url"])},
            )
            found = dict(spec.check(request)) if spec.check else {"runs": "anywhere"}
            rows.append({"id": spec.id, "world": each, "memory": "-", "weights": "-", "missing": "", **found})
    if form == "json":
        print_json(rows)
        return
    shown = [{**row, "weights or what is missing": row["missing"] or row["weights"]} for row in rows]
    _print_list(shown, ("id", "world", "runs", "memory", "weights or what is missing"), form)
    click.echo()
    for backend in registry.backends.values():
        lacking = backend.available()
        if lacking:
            click.echo(f"Backend {backend.name}: {lacking}.")
    if not options["base_url"]:
        click.echo("Backend server: with --base-url, any model that a server knows; see also `served`.")


@click.command()
@format_option("table", "json")
@click.pass_obj
def plugins(registry: Registry, form: str) -> None:
    """List plugins with their origin, version, hooks and state."""
    rows = [
        {
            "name": plugin.name,
            "origin": plugin.origin,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "state": plugin.state,
            "hooks": [hook.removeprefix("emit_bench_") for hook in plugin.hooks],
            "error": plugin.error,
        }
        for plugin in registry.plugins
    ]
    _print_list(rows, ("name", "origin", "distribution", "version", "state", "hooks", "error"), form)


@click.command()
@format_option("table", "json")
@click.pass_obj
def benchmarks(registry: Registry, form: str) -> None:
    """List the benchmarks that --benchmark can name."""
    rows = [
        {"name": spec.name, "title": spec.title, "world": spec.world, "summary": spec.summary}
        for spec in registry.benchmarks.values()
    ]
    _print_list(rows, ("name", "title", "world", "summary"), form)


@click.command()
@format_option("table", "json")
@click.pass_obj
def protocols(registry: Registry, form: str) -> None:
    """List the protocols that --protocol can name."""
    from dataclasses import asdict

    rows = [{"digest": found.digest, **asdict(found)} for found in registry.protocols.values()]
    _print_list(rows, ("name", "mode", "shots", "reference", "knowledge", "digest", "summary"), form)


def _print_list(rows: Sequence[Mapping[str, Any]], shown: Sequence[str], form: str) -> None:
    from harness.text import columns

    if form == "json":
        print_json(list(rows))
        return

    def cell(name: str, value: Any) -> str:
        if isinstance(value, Mapping):
            value = [f"{entry} ({key})" for key, entry in value.items()]
        text = ", ".join(value) if isinstance(value, list) else str(value)
        return text[:12] if name == "digest" else text

    click.echo(columns([tuple(shown), *(tuple(cell(name, row[name]) for name in shown) for row in rows)]))


@click.group()
def data() -> None:
    """Look after benchmark data."""


@data.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--deep", is_flag=True, help="Decode every image fully, which finds truncated files.")
@format_option("table", "json")
def doctor(folder: Path, deep: bool, form: str) -> int:
    """List everything that is wrong with a benchmark folder, and its counts beside the published ones."""
    from harness.doctor import as_text, diagnose

    found = diagnose(folder, deep=deep)
    if form == "json":
        print_json(found.as_json())
    else:
        click.echo(as_text(found))
    return ExitCode.OK if found.healthy else ExitCode.USAGE


COMMANDS: tuple[click.Command, ...] = (
    run,
    score,
    compare,
    check,
    parity,
    models,
    plugins,
    benchmarks,
    protocols,
    data,
)
