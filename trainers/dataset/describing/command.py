"""The command ``emit-bench data describe``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.console import format_option, print_json
from harness.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.raw import RawDataset
    from plugins.server.endpoint import Endpoint
    from trainers.dataset.describing.client import ClientSettings
    from trainers.dataset.describing.plan import PlanSettings
    from trainers.dataset.describing.writing import Written
    from trainers.dataset.texts import Knowledge

_PATH = click.Path(path_type=Path)
_SHOWN_MISSING = 10  #: missing texts named on the terminal; the record names all


@click.command()
@click.argument("sources", metavar="[SOURCE]...", nargs=-1)
@click.option("--text-source", "text_sources", multiple=True, metavar="SOURCE", help="Of object texts.")
@click.option("--knowledge", type=_PATH, help="A domain_knowledge.json of the text sources.")
@click.option("--endpoint", metavar="URL", help="Of a server that speaks OpenAI's chat completions.")
@click.option("--model", metavar="NAME", help="The model to ask there.")
@click.option("--describer", metavar="NAME", help="An offline describer of a plugin, in place of a server.")
@click.option("--out", type=_PATH, help="The texts folder; a rerun in it asks for what is missing.")
@click.option("--dry-run", is_flag=True, help="Print what would be asked, and ask nothing.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of images and places.")
@click.option("--images", type=click.IntRange(1), default=5, show_default=True, help="Per product.")
@click.option("--normal-texts", type=click.IntRange(0), default=5, show_default=True, help="Per image.")
@click.option("--defect-texts", type=click.IntRange(0), default=5, show_default=True, help="And per defect.")
@click.option("--limit-per-object", type=click.IntRange(1), help="At most so many object texts a product.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="At a time.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=120, show_default=True, help="Seconds."
)
@click.option("--tries", type=click.IntRange(1), default=5, show_default=True, help="When a server fails.")
@click.option("--attempts", type=click.IntRange(1), default=3, show_default=True, help="At a sound text.")
@click.option("--max-side", type=click.IntRange(28), default=512, show_default=True, help="Pixels sent.")
@click.option("--temperature", type=click.FloatRange(0), default=0.7, show_default=True, help="Of sampling.")
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True, help="Of a reply.")
@click.option(
    "--token-field",
    type=click.Choice(("max_tokens", "max_completion_tokens")),
    default="max_tokens",
    show_default=True,
    help="What the server calls that limit.",
)
@click.option(
    "--max-failed", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share allowed."
)
@format_option("table", "json")
@click.pass_obj
def describe(
    registry: Registry,
    /,
    sources: Sequence[str],
    text_sources: Sequence[str],
    knowledge: Path | None,
    out: Path | None,
    dry_run: bool,
    max_failed: float,
    form: str,
    **options: Any,
) -> int:
    """Have domain knowledge and object texts written by a vision-language model.

    SOURCE is a raw dataset: LAYOUT=DIR, or a folder of a known name. Its defects and its normal condition
    are described. Datasets that MMAD tests count as text sources: of these only normal images are shown,
    and object texts are written that stand in for query images. The key is read from EMIT_BENCH_API_KEY,
    else from OPENAI_API_KEY.
    """
    from trainers.dataset.texts import read_knowledge

    if not (sources or text_sources):
        raise BadInput("no dataset is named; pass a SOURCE or --text-source")
    if out is None and not dry_run:
        raise BadInput("--out is missing; name a folder for the texts")
    datasets, text_datasets = _read(registry, sources, text_sources)
    settings = _plan_settings(options)
    if text_datasets and settings.defect_texts and knowledge is None:
        names = ", ".join(dataset.name for dataset in text_datasets)
        raise BadInput(f"{names}: pass --knowledge FILE, which names the defects, or --defect-texts 0")
    known = read_knowledge(knowledge) if knowledge else {}
    if dry_run:
        _print_estimate(datasets, text_datasets, known, settings, options, form)
        return ExitCode.OK
    assert out is not None
    written = _write(registry, datasets, text_datasets, known, settings, out, options)
    _print_written(out, written, form)
    if not written.results:
        click.echo("emit-bench: nothing was written: the datasets give no text to write", err=True)
        return ExitCode.NOTHING
    if written.missing_share > max_failed:
        return ExitCode.FAILED_ITEMS
    return ExitCode.INCONCLUSIVE if written.missing else ExitCode.OK


def _read(
    registry: Registry, words: Sequence[str], text_words: Sequence[str]
) -> tuple[list[RawDataset], list[RawDataset]]:
    """Datasets to ask about, and text sources; what MMAD tests is never among the first."""
    from trainers.dataset.sources import parse_sources, read_sources

    sources = parse_sources(words, registry.layouts)
    text_sources = parse_sources(text_words, registry.layouts)
    once = tuple(dict.fromkeys((*sources, *text_sources)))
    asked: list[RawDataset] = []
    told: list[RawDataset] = []
    for source, dataset in zip(once, read_sources(once, registry.layouts), strict=True):
        for finding in dataset.findings:
            if finding.left_out:
                click.echo(f"emit-bench: {finding}", err=True)
        if dataset.tested and source not in text_sources:
            click.echo(
                f"emit-bench: MMAD tests {dataset.name}, so it is a text source: no defective image is shown",
                err=True,
            )
        (told if dataset.tested or source in text_sources else asked).append(dataset)
    return asked, told


def _plan_settings(options: dict[str, Any]) -> PlanSettings:
    from trainers.dataset.describing.plan import PlanSettings

    return PlanSettings(
        images=options["images"],
        normal_texts=options["normal_texts"],
        defect_texts=options["defect_texts"],
        limit_per_object=options["limit_per_object"],
    )


def _write(
    registry: Registry,
    datasets: Sequence[RawDataset],
    text_datasets: Sequence[RawDataset],
    known: Knowledge,
    settings: PlanSettings,
    out: Path,
    options: dict[str, Any],
) -> Written:
    """Have the texts written by whom the options name."""
    from harness.lookup import find
    from plugins.server.endpoint import read_endpoint
    from trainers.dataset.describing.server import write_with_server
    from trainers.dataset.describing.writing import write_with_describer

    endpoint, model, describer = options["endpoint"], options["model"], options["describer"]
    if (describer is None) == (endpoint is None) or (endpoint is None) != (model is None):
        raise BadInput("who writes the texts? pass --endpoint URL with --model NAME, or --describer NAME")
    seed = options["seed"]
    if describer is not None:
        spec = find(registry.describers, describer, "describer")
        return write_with_describer(datasets, text_datasets, known, spec, out, seed, settings)
    server: Endpoint = read_endpoint(endpoint, model)
    asking = _client_settings(options)
    return write_with_server(datasets, text_datasets, known, server, asking, out, seed, settings)


def _client_settings(options: dict[str, Any]) -> ClientSettings:
    from trainers.dataset.describing.client import ClientSettings

    return ClientSettings(
        timeout=options["timeout"],
        tries=options["tries"],
        attempts=options["attempts"],
        concurrency=options["concurrency"],
        temperature=options["temperature"],
        max_tokens=options["max_tokens"],
        token_field=options["token_field"],
        max_side=options["max_side"],
    )


def _print_estimate(
    datasets: Sequence[RawDataset],
    text_datasets: Sequence[RawDataset],
    known: Knowledge,
    settings: PlanSettings,
    options: dict[str, Any],
    form: str,
) -> None:
    from harness.text import columns
    from trainers.dataset.describing.estimate import Estimate, estimate
    from trainers.dataset.describing.plan import make_plan, unfit

    plan = make_plan(datasets, text_datasets, known, options["seed"], settings, unfit)
    kinds = {str(kind): found for kind, found in estimate(plan, options["max_side"]).items()}
    total = sum(kinds.values(), Estimate())
    _print_notes(plan.notes)
    if form == "json":
        tables = {kind: asdict(found) for kind, found in kinds.items()}
        print_json({"kinds": tables, "total": asdict(total), "notes": list(plan.notes)})
        return
    heads = ("text", "calls", "images", "text tokens", "image tokens", "reply tokens")
    rows = [
        (kind, *(f"{n:,}" for n in asdict(found).values()))
        for kind, found in {**kinds, "total": total}.items()
    ]
    click.echo(columns([heads, *rows], right_from=1))
    click.echo("Tokens are estimates: 4 characters, or 28 x 28 pixels, a token; replies as long as allowed.")


def _print_written(out: Path, written: Written, form: str) -> None:
    from harness.text import columns

    _print_notes(written.plan.notes)
    for task, checked in written.missing[:_SHOWN_MISSING]:
        click.echo(f"emit-bench: {task} is missing: {checked.reason} [{checked.fault}]", err=True)
    if written.missing:
        click.echo(
            f"emit-bench: {len(written.missing):,} of {len(written.results):,} texts are missing; "
            f"{out}/describe.json lists them, and the same command asks for them again",
            err=True,
        )
    counts = written.counts()
    if form == "json":
        faults = [{"text": str(task), "fault": str(checked.fault)} for task, checked in written.missing]
        print_json({"out": str(out), "texts": counts, "missing": faults})
        return
    rows = [(kind, f"{n['planned']:,}", f"{n['written']:,}") for kind, n in counts.items()]
    click.echo(columns([("text", "planned", "written"), *rows], right_from=1))
    click.echo(out)


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.echo(f"emit-bench: {note}", err=True)
