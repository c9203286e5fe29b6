"""``emit-bench check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from harness.console import PATH, format_option, print_json
from harness.errors import BadInput, ExitCode


@click.command()
@click.argument("run", metavar="RUN", type=PATH)
@click.option("--baseline", required=True, type=PATH, help="An older run, or a baseline file.")
@click.option("--update", is_flag=True, help="Write RUN's answers into the baseline file, judge nothing.")
@click.option("--margin", type=click.FloatRange(0, 100), help="Points that a score may lose; 1 unless given.")
@click.option("--alpha", type=click.FloatRange(1e-6, 0.5), help="Level of the tests; 0.05 unless given.")
@click.option("--minimum-questions", type=click.IntRange(1), help="Fewer are not judged; 50 unless given.")
@click.option("--models", help="Judge these, with commas; those of the baseline unless given.")
@click.option(
    "--rule", type=click.Choice(("official", "strict", "pooled")), help="Scoring; strict if not given."
)
@click.option(
    "--cluster", type=click.Choice(("image", "object")), help="Resampled whole; image if not given."
)
@click.option(
    "--policy", type=PATH, help="A TOML file; [tool.emit-bench.check] of pyproject.toml if not given."
)
@click.option("--common", is_flag=True, help="Compare the questions that both have.")
@click.option("--resamples", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resampling.")
@click.option("--junit", type=PATH, help="Write JUnit XML there.")
@click.option("--summary", type=PATH, help="Append Markdown there; the job's summary on GitHub if not given.")
@click.option(
    "--annotations/--no-annotations",
    default=None,
    help="Print GitHub's workflow commands; done on GitHub unless told otherwise.",
)
@format_option("table", "json")
def check(run: Path, baseline: Path, update: bool, form: str, **options: Any) -> int:
    """Judge RUN against a baseline: pass (0), regression (1) or inconclusive (4)."""
    from harness.gate import outputs
    from harness.gate import verdict as gate
    from harness.gate.policy import find_policy
    from harness.source_files import read_source

    models = tuple(name.strip() for name in (options["models"] or "").split(",") if name.strip())
    policy = find_policy(options["policy"]).with_options(
        models=models or None,
        **{name: options[name] for name in ("margin", "alpha", "minimum_questions", "rule", "cluster")},
    )
    on_github = os.environ.get("GITHUB_ACTIONS") == "true"
    annotated = on_github if options["annotations"] is None else options["annotations"]
    try:
        source = read_source(run)
        if update:
            return _update(source, baseline, policy.models)
        if not baseline.exists():
            raise BadInput(
                f"{baseline}: there is no such baseline; write it with --update, or name an older run"
            )
        drawn = {name: options[name] for name in ("common", "resamples", "seed")}
        found = gate.check(source, read_source(baseline), policy, **drawn)
    except BadInput as error:
        if annotated:
            click.echo(outputs.refusal(str(error)), err=True)
        raise
    if options["junit"]:
        from harness.jsonfiles import write_text

        write_text(options["junit"], outputs.as_junit(found))
    summary = options["summary"] or (os.environ.get("GITHUB_STEP_SUMMARY") if on_github else None)
    if summary:
        Path(summary).parent.mkdir(parents=True, exist_ok=True)
        with open(summary, "a", encoding="utf-8") as file:
            file.write(outputs.as_markdown(found))
    if annotated:
        for line in outputs.workflow_commands(found):
            click.echo(line, err=True)  # the runner reads both streams; results keep theirs
    if form == "json":
        print_json(found.as_json())
    else:
        click.echo(outputs.as_text(found))
    return found.exit_code


def _update(source: Any, baseline: Path, wanted: tuple[str, ...]) -> int:
    from harness.baseline import write_baseline

    if baseline.is_dir():
        raise BadInput(f"{baseline}: it is a folder; --update writes a file, such as baseline.json")
    missing = [model for model in wanted if model not in source.answers]
    if missing:
        raise BadInput(f"{source.path}: it holds no answers of {', '.join(missing)}; run these models first")
    models = wanted or tuple(source.answers)
    before = _models_of(baseline)
    write_baseline(baseline, source, models)
    if gone := [model for model in before if model not in models]:
        click.echo(f"emit-bench: {baseline} no longer holds {', '.join(gone)}", err=True)
    click.echo(f"{baseline}: {', '.join(models)}, {baseline.stat().st_size / 1024:,.0f} KiB")
    return ExitCode.OK


def _models_of(baseline: Path) -> tuple[str, ...]:
    """The models of a baseline that is about to be replaced; none where there is none, or it is broken."""
    from harness.source_files import read_source

    try:
        return tuple(read_source(baseline).answers) if baseline.is_file() else ()
    except BadInput:
        return ()
