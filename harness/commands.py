"""The harness's own sub-commands: run, score, the lists, and data doctor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from harness.hookspecs import ModelSpec
    from harness.plugins import Registry
    from harness.protocol import Protocol
    from harness.records import Answer, LoadRequest
    from harness.run import RunInfo, RunResult

EMBEDDED_BENCHMARK = "mini"
DOWNLOADED_BENCHMARK = "mmad"
DEFAULT_BACKEND = "transformers"
Function = TypeVar("Function", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
#: What observers leave in a run's folder, named at the end of a run when it is there.
_PAGES = ("report/index.html", "tables/comparison.tex")
#: The table that the reports plugin leaves there.
_TABLE = "tables/comparison.txt"


def format_option(*formats: str) -> Callable[[Function], Function]:
    """The option ``--format``; the first of ``formats`` is the default."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to print.",
    )


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


@click.command()
@click.option("--models", required=True, help="Ids, globs such as emit*, or all; several with commas.")
@click.option("--benchmark", help=f"A benchmark's name; {EMBEDDED_BENCHMARK} unless --data is given.")
@click.option("--data", type=_PATH, help="Folder of the benchmark's data (mmad.json and images).")
@click.option("--protocol", default="emit", show_default=True, help="A protocol's name, or a TOML file.")
@click.option("--mode", type=click.Choice(("direct", "think", "logits")), help="How models answer.")
@click.option("--shots", type=click.IntRange(0, 8), help="Normal reference images per query.")
@click.option("--backend", default=DEFAULT_BACKEND, show_default=True, help="What runs the models.")
@click.option("--weights", multiple=True, metavar="NAME=PATH", help="Other weights for a model.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many questions, a stratified sample.")
@click.option("--out", type=_PATH, help="The run's folder; runs/<benchmark>-<protocol>-<mode> unless given.")
@click.option("--fresh", is_flag=True, help="Forget what the run's folder holds.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample and of models that draw.")
@click.option("--device", default="auto", show_default=True, help="Such as cpu or cuda:0.")
@click.option("--dtype", default="auto", show_default=True, help="Such as float32 or bfloat16.")
@click.option("--workers", type=click.IntRange(0, 64), default=2, show_default=True, help="Image threads.")
@click.option(
    "--max-failed", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share allowed."
)
@click.option("--share-prefix/--no-share-prefix", default=True, help="Compute a group's prompt prefix once.")
@click.option("--trust-remote-code", is_flag=True, help="Let a model's repository run its own code.")
@format_option("table", "json")
@click.pass_obj
def run(registry: Registry, /, form: str, fresh: bool, **options: Any) -> int:
    """Ask models a benchmark's questions, store the answers, print the table."""
    from harness.run import execute

    planned = _plan(registry, **options)
    for product in planned.without_knowledge:
        click.echo(f"emit-bench: no domain knowledge for {product}; its prompts go without", err=True)
    if planned.substituted_references:
        click.echo(
            f"emit-bench: {planned.substituted_references:,} images list no {planned.protocol.reference} "
            "reference; references of the other kind are shown",
            err=True,
        )
    result = execute(planned, registry, fresh=fresh)
    _print_run(planned, result, form)
    for message in result.broken_observers:
        click.echo(f"emit-bench: a plugin failed while it watched the run: {message}", err=True)
    for model, share in result.failed_share.items():
        if share > planned.max_failed:
            click.echo(
                f"emit-bench: {model}: {share:.1%} of its questions failed, {planned.max_failed:.1%} are "
                f"allowed; {planned.out}/answers/{model}.json says why, and the same command asks them again",
                err=True,
            )
    if result.exit_code == ExitCode.NOTHING:
        click.echo("emit-bench: nothing was evaluated: the benchmark asks no question", err=True)
    if result.exit_code == ExitCode.OK and result.broken_observers:
        return ExitCode.INTERNAL
    return result.exit_code


def _plan(registry: Registry, **options: Any) -> RunInfo:
    from harness.plugins import find
    from harness.records import LoadRequest
    from harness.run import plan_run

    data: Path | None = options["data"]
    name = options["benchmark"] or (DOWNLOADED_BENCHMARK if data else EMBEDDED_BENCHMARK)
    models = registry.select_models(options["models"])
    protocol = _protocol(registry, options["protocol"]).with_options(options["mode"], options["shots"])
    if options["backend"] != DEFAULT_BACKEND:
        find(registry.backends, options["backend"], "backend")
    benchmark = find(registry.benchmarks, name, "benchmark").load(data)
    request = LoadRequest(
        world=benchmark.world,
        backend=options["backend"],
        device=options["device"],
        dtype=options["dtype"],
        seed=options["seed"],
        share_prefix=options["share_prefix"],
        trust_remote_code=options["trust_remote_code"],
    )
    weights = _weights(options["weights"])
    models = _present(models, options["models"], request, weights)
    return plan_run(
        out=options["out"] or _default_out(benchmark.name, protocol, options["limit"], options["seed"]),
        benchmark=benchmark,
        protocol=protocol,
        models=models,
        request=request,
        weights=weights,
        limit=options["limit"],
        seed=options["seed"],
        max_failed=options["max_failed"],
        workers=options["workers"],
        command=("emit-bench", *sys.argv[1:]),
    )


def _present(
    models: Sequence[ModelSpec], patterns: str, request: LoadRequest, weights: Mapping[str, str]
) -> tuple[ModelSpec, ...]:
    """The models without those that only a glob names and that have no weights here; each is told."""
    named = {word.strip() for word in patterns.split(",")}
    present: list[ModelSpec] = []
    for spec in models:
        try:
            if spec.id not in named and spec.id not in weights:
                spec.fingerprint(replace(request, weights=weights.get(spec.id)))
        except BadInput as error:
            click.echo(f"emit-bench: {spec.id} is left out: {error}", err=True)
        else:
            present.append(spec)
    if not present:
        raise BadInput(f"--models {patterns}: none of these has weights here; name one to see what it needs")
    return tuple(present)


def _protocol(registry: Registry, name: str) -> Protocol:
    from harness.plugins import find
    from harness.protocol import read_protocol

    if name not in registry.protocols and (name.endswith(".toml") or Path(name).is_file()):
        return read_protocol(Path(name))
    return find(registry.protocols, name, "protocol")


def _default_out(benchmark: str, protocol: Protocol, limit: int | None, seed: int) -> Path:
    """The same question asked twice finds its answers in the same folder."""
    parts = [benchmark, protocol.name, protocol.mode]
    parts += [f"{protocol.shots}shot"] if protocol.shots != 1 else []
    parts += [f"limit{limit}"] if limit else []
    parts += [f"seed{seed}"] if seed else []
    return Path("runs") / "-".join(parts)


def _weights(pairs: Sequence[str]) -> dict[str, str]:
    table = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise BadInput(f"--weights {pair}: write a model's id, an equals sign and a folder or hub id")
        if name in table:
            raise BadInput(f"--weights {pair}: the weights of {name} are given twice; keep one of the two")
        table[name] = path
    return table


def _print_run(planned: RunInfo, result: RunResult, form: str) -> None:
    from harness.scoring import score
    from harness.text import average_table

    scores = {model: score(answers) for model, answers in result.answers.items()}
    pages = [str(planned.out / page) for page in _PAGES if (planned.out / page).is_file()]
    if form == "json":
        print_json(
            {
                "out": str(planned.out),
                "benchmark": planned.benchmark.name,
                "world": planned.benchmark.world,
                "protocol": planned.protocol.name,
                "protocol_digest": planned.protocol.digest,
                "pages": pages,
                "models": {model: scored.as_json() for model, scored in scores.items()},
            }
        )
        return
    table = planned.out / _TABLE
    click.echo(table.read_text(encoding="utf-8") if table.is_file() else average_table(scores))
    for page in pages:
        click.echo(page)


@click.command()
@click.argument("source", metavar="RUN|ANSWERS.json", type=_PATH)
@click.option("--rule", default="official", show_default=True, help="official, strict or pooled.")
@format_option("table", "json")
def score(source: Path, rule: str, form: str) -> int:
    """Score a run's folder or an official answer file."""
    from harness.scoring import score as score_answers
    from harness.text import score_table

    answers, single, shown = _answers(source)
    scores = {model: score_answers(given, rule) for model, given in answers.items()}  # type: ignore[arg-type]
    if form == "json":
        tables = {model: scored.as_json() for model, scored in scores.items()}
        print_json(next(iter(tables.values())) if single else {"models": tables})
        return ExitCode.OK
    for model, scored in scores.items():
        click.echo(f"{model} ({rule}: {scored.n_questions:,} questions, {scored.n_unanswered:,} unanswered)")
        click.echo(score_table(scored))
        click.echo()
    click.echo(shown)
    return ExitCode.OK


def _answers(source: Path) -> tuple[dict[str, tuple[Answer, ...]], bool, str]:
    """Answers by model, whether they are of one model only, and a sentence on what they are of."""
    from harness.answers import read_answers
    from harness.run import read_run

    if not source.exists():
        raise BadInput(f"{source}: no such file or folder; name a run's folder or an answer file")
    if source.is_file():
        unknown = "An answer file: it does not tell which benchmark, world or protocol it is of."
        return {source.stem: read_answers(source)}, True, unknown
    manifest, answers = read_run(source)
    if not answers:
        raise BadInput(f"{source}: the run holds no answer yet; run it again to continue it")
    if manifest["status"] != "finished":
        click.echo(f"emit-bench: {source}: the run is not finished; these are its answers so far", err=True)
    benchmark, protocol = manifest["benchmark"], manifest["protocol"]
    shown = (
        f"Benchmark {benchmark['name']} of the {benchmark['world']} world; protocol {protocol['name']} "
        f"({protocol['mode']}, {protocol['shots']}-shot), sha256 {protocol['digest'][:16]}."
    )
    return answers, len(answers) == 1, shown


@click.command()
@format_option("table", "json")
@click.pass_obj
def models(registry: Registry, form: str) -> None:
    """List the models that --models can name."""
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
        for spec in registry.models.values()
    ]
    _print_list(rows, ("id", "title", "scale", "summary"), form)


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
@click.argument("folder", metavar="DIR", type=_PATH)
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


COMMANDS: tuple[click.Command, ...] = (run, score, models, plugins, benchmarks, protocols, data)
