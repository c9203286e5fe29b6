"""``emit-bench run``."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.console import DOWNLOADED_BENCHMARK, EMBEDDED_BENCHMARK, PATH, format_option, print_json
from harness.errors import BadInput, ExitCode
from harness.loading_options import DEFAULT_BACKEND, load_request, loading_options, pairs

if TYPE_CHECKING:
    from harness.audits.conduct import Conducted, PlannedAudit
    from harness.hookspecs import ModelSpec
    from harness.plugins import Registry
    from harness.protocol import Protocol
    from harness.records import LoadRequest
    from harness.run import RunResult
    from harness.run_info import RunInfo

#: What observers leave in a run's folder, named at the end of a run when it is there.
_PAGES = ("report/index.html", "tables/comparison.tex")
#: The tables that the reports plugin leaves there.
_TABLES = "tables/summary.txt"


@click.command()
@click.option("--models", required=True, help="Ids, globs such as emit*, or all; several with commas.")
@click.option("--benchmark", help=f"A benchmark's name; {EMBEDDED_BENCHMARK} unless --data is given.")
@click.option("--data", type=PATH, help="Folder of the benchmark's data (mmad.json and images).")
@click.option("--protocol", default="emit", show_default=True, help="A protocol's name, or a TOML file.")
@click.option("--mode", type=click.Choice(("direct", "think", "logits")), help="How models answer.")
@click.option("--shots", type=click.IntRange(0, 8), help="Normal reference images per query.")
@click.option("--backend", default=DEFAULT_BACKEND, show_default=True, help="What runs the models.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many questions, a stratified sample.")
@click.option("--out", type=PATH, help="The run's folder; runs/<benchmark>-<protocol>-<mode> unless given.")
@click.option("--fresh", is_flag=True, help="Forget what the run's folder holds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample and of models that draw.")
@click.option(
    "--workers", type=click.IntRange(1, 512), default=1, show_default=True, help="Processes with the model."
)
@click.option(
    "--executor",
    type=click.Choice(("local", "ray")),
    default="local",
    show_default=True,
    help="Processes here, or Ray actors.",
)
@click.option(
    "--image-threads",
    type=click.IntRange(0, 64),
    default=2,
    show_default=True,
    help="That open images, per worker.",
)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Image pairs at a time.")
@loading_options
@click.option(
    "--max-failed", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share allowed."
)
@click.option("--share-prefix/--no-share-prefix", default=True, help="Compute a group's prompt prefix once.")
@click.option("--verify-sharing", is_flag=True, help="Compare every shared prefix with none.")
@click.option(
    "--audit",
    "audits",
    multiple=True,
    help="Ask again in other ways: positions, reference, blind, repeat; with commas, or all.",
)
@format_option("table", "json")
@click.pass_obj
def run(registry: Registry, /, form: str, fresh: bool, audits: tuple[str, ...], **options: Any) -> int:
    """Ask models a benchmark's questions, store the answers, print the table."""
    from harness.audits import select_audits
    from harness.audits.conduct import plan_audit
    from harness.run import execute

    chosen = select_audits(audits)
    planned = _plan(registry, **options)
    to_audit = [plan_audit(audit, planned) for audit in chosen]
    for product in planned.without_knowledge:
        click.echo(f"emit-bench: no domain knowledge for {product}; its prompts go without", err=True)
    kinds = {item.normal for item in planned.items}
    if len(kinds) == 1 and len({item.normal for item in planned.benchmark.items}) == 2:
        missing = "anomalous" if kinds == {True} else "normal"
        click.echo(
            f"emit-bench: --limit {planned.limit} left no {missing} image, so Anomaly Discrimination is of "
            "one kind alone; ask more",
            err=True,
        )
    if planned.substituted_references:
        click.echo(
            f"emit-bench: {planned.substituted_references:,} images list no {planned.protocol.reference} "
            "reference; references of the other kind are shown",
            err=True,
        )
    result = execute(planned, registry, fresh=fresh)
    if form == "table":
        _print_run(planned, result)
    _tell_troubles(planned, result)
    audited = [] if result.exit_code == ExitCode.NOTHING else _audit(to_audit, result, registry, form)
    if form == "json":
        _print_run_as_json(planned, result, audited)
    if result.exit_code == ExitCode.OK and any(one.failures for one in audited):
        return ExitCode.FAILED_ITEMS
    if result.exit_code == ExitCode.OK and result.broken_observers:
        return ExitCode.INTERNAL
    return result.exit_code


def _audit(
    planned: Sequence[PlannedAudit], base: RunResult, registry: Registry, form: str
) -> list[Conducted]:
    """Conduct audits one after the other, and print what each finds as soon as it is known."""
    from harness.audits.conduct import as_text, conduct

    found = []
    for one in planned:
        done = conduct(one, base, registry)
        found.append(done)
        if form == "table":
            click.echo(f"\n{as_text(done.result)}\n\n{done.path}")
        for failure in done.failures:
            click.echo(f"emit-bench: audit {one.audit.name}: {failure}", err=True)
    if found:  # pages of the run can show now what its audits found
        for plugin in registry.notify("emit_bench_run_finished", run=planned[0].base):
            click.echo(f"emit-bench: a plugin failed after the audits: {plugin}: {plugin.error}", err=True)
    return found


def _tell_troubles(planned: RunInfo, result: RunResult) -> None:
    """What went wrong during a run, on standard error."""
    for message in result.broken_observers:
        click.echo(f"emit-bench: a plugin failed while it watched the run: {message}", err=True)
    for model, share in result.failed_share.items():
        if share > planned.max_failed:
            failed = (one.reason for one in result.answers[model] if one.outcome == "failed")
            (reason, _), *_ = Counter(failed).most_common(1)
            click.echo(
                f"emit-bench: {model}: {share:.1%} of its questions failed, {planned.max_failed:.1%} are "
                f"allowed; most of them because: {reason} ({planned.out}/answers/{model}.json has all "
                "reasons, and the same command asks them again)",
                err=True,
            )
    if result.exit_code == ExitCode.NOTHING:
        click.echo("emit-bench: nothing was evaluated: the benchmark asks no question", err=True)


def _plan(registry: Registry, **options: Any) -> RunInfo:
    from harness.lookup import find
    from harness.protocol import find_protocol
    from harness.run import plan_run
    from harness.run_info import Labour

    data: Path | None = options["data"]
    name = options["benchmark"] or (DOWNLOADED_BENCHMARK if data else EMBEDDED_BENCHMARK)
    models = registry.select_models(options["models"])
    protocol = find_protocol(registry.protocols, options["protocol"]).with_options(
        options["mode"], options["shots"]
    )
    benchmark = find(registry.benchmarks, name, "benchmark").load(data)
    request = load_request(
        registry,
        benchmark.world,
        options["backend"],
        options,
        seed=options["seed"],
        share_prefix=options["share_prefix"],
        verify_sharing=options["verify_sharing"],
    )
    weights = pairs("--weights", options["weights"])
    models = _present(models, options["models"], request, weights)
    return plan_run(
        out=options["out"] or _default_out(benchmark.name, protocol, options["limit"], options["seed"]),
        benchmark=benchmark,
        protocol=protocol,
        models=models,
        request=request,
        weights=weights,
        adapters=pairs("--adapter", options["adapter"]),
        limit=options["limit"],
        seed=options["seed"],
        max_failed=options["max_failed"],
        labour=Labour(options["workers"], options["executor"], options["image_threads"], options["batch"]),
        command=("emit-bench", *sys.argv[1:]),
    )


def _present(
    models: Sequence[ModelSpec], patterns: str, request: LoadRequest, weights: Mapping[str, str]
) -> tuple[ModelSpec, ...]:
    """The models without those that only a glob names and that have no weights here; each is told."""
    named = {word.strip() for word in patterns.split(",")}
    present: list[ModelSpec] = []
    bare: list[str] = []  # models that have no weights of this world anywhere
    for spec in models:
        asked = spec.id in named or spec.id in weights
        if not asked and spec.backends and request.world not in spec.weights:
            bare.append(spec.id)
            continue
        try:
            if not asked:
                spec.fingerprint(request)
        except BadInput as error:
            click.echo(f"emit-bench: {spec.id} is left out: {error}", err=True)
        else:
            present.append(spec)
    if bare:
        click.echo(
            f"emit-bench: without weights for the {request.world} world, and left out: {', '.join(bare)} "
            "(--weights NAME=FOLDER brings one in)",
            err=True,
        )
    if not present:
        raise BadInput(f"--models {patterns}: none of these has weights here; name one to see what it needs")
    return tuple(present)


def _default_out(benchmark: str, protocol: Protocol, limit: int | None, seed: int) -> Path:
    """The same question asked twice finds its answers in the same folder."""
    parts = [benchmark, protocol.name, protocol.mode]
    parts += [f"{protocol.shots}shot"] if protocol.shots != 1 else []
    parts += [f"limit{limit}"] if limit else []
    parts += [f"seed{seed}"] if seed else []
    return Path("runs") / "-".join(parts)


def _print_run(planned: RunInfo, result: RunResult) -> None:
    from harness.scoring import score
    from harness.text import average_table

    table = planned.out / _TABLES
    if table.is_file():
        click.echo(table.read_text(encoding="utf-8"))
    else:
        click.echo(average_table({model: score(answers) for model, answers in result.answers.items()}))
    for page in _pages(planned):
        click.echo(page)


def _print_run_as_json(planned: RunInfo, result: RunResult, audited: Sequence[Conducted]) -> None:
    from harness.scoring import score

    audits = {"audits": [one.result.as_json() for one in audited]} if audited else {}
    print_json(
        {
            "out": str(planned.out),
            "benchmark": planned.benchmark.name,
            "world": planned.benchmark.world,
            "protocol": planned.protocol.name,
            "protocol_digest": planned.protocol.digest,
            "pages": _pages(planned),
            "models": {model: score(answers).as_json() for model, answers in result.answers.items()},
            **audits,
        }
    )


def _pages(planned: RunInfo) -> list[str]:
    return [str(planned.out / page) for page in _PAGES if (planned.out / page).is_file()]
