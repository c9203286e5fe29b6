"""``emit-bench parity``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.console import DOWNLOADED_BENCHMARK, EMBEDDED_BENCHMARK, PATH, format_option, print_json
from harness.errors import BadInput, ExitCode
from harness.loading_options import load_request, loading_options, pairs

if TYPE_CHECKING:
    from harness.plugins import Registry


@click.command()
@click.argument("model")
@click.option(
    "--backends", required=True, help="Two backends with a comma between, such as transformers,vllm."
)
@click.option(
    "--questions", type=click.IntRange(1), default=200, show_default=True, help="How many are asked."
)
@click.option("--benchmark", help=f"A benchmark's name; {EMBEDDED_BENCHMARK} unless --data is given.")
@click.option("--data", type=PATH, help="Folder of the benchmark's data (mmad.json and images).")
@click.option("--protocol", default="emit", show_default=True, help="A protocol's name, or a TOML file.")
@click.option("--mode", type=click.Choice(("direct", "think", "logits")), default="direct", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sample.")
@click.option("--out", type=PATH, help="Where both runs are kept; runs/parity-<model> unless given.")
@loading_options
@format_option("table", "json")
@click.pass_obj
def parity(registry: Registry, /, model: str, backends: str, form: str, **options: Any) -> int:
    """Ask one model the same questions on two backends, and compare."""
    from harness.lookup import find
    from harness.parity import compare
    from harness.protocol import find_protocol
    from harness.run import execute, plan_run, read_run

    first, second = _two(backends)
    name = options["benchmark"] or (DOWNLOADED_BENCHMARK if options["data"] else EMBEDDED_BENCHMARK)
    spec = find(registry.models, model, "model")
    if not spec.backends:
        raise BadInput(f"model {model!r} runs on no backend, so there is nothing to compare")
    for backend in (first, second):
        lacking = find(registry.backends, backend, "backend").available()
        if lacking:
            raise BadInput(f"backend {backend!r} cannot run here: {lacking}")
    protocol = find_protocol(registry.protocols, options["protocol"]).with_options(options["mode"])
    benchmark = find(registry.benchmarks, name, "benchmark").load(options["data"])
    out: Path = options["out"] or Path("runs") / f"parity-{model}"
    plans = [
        plan_run(
            out=out / backend,
            benchmark=benchmark,
            protocol=protocol,
            models=(spec,),
            request=load_request(registry, benchmark.world, backend, options, strict=False),
            weights=pairs("--weights", options["weights"]),
            adapters=pairs("--adapter", options["adapter"]),
            limit=options["questions"],
            seed=options["seed"],
            command=("emit-bench", *sys.argv[1:]),
        )
        for backend in (first, second)
    ]
    answers, counters = [], []
    for plan in plans:
        execute(replace(plan, max_failed=1.0), registry)
        manifest, given = read_run(plan.out)
        answers.append(given[spec.id])
        described = manifest["models"][spec.id]
        whole = not (described["reused"] or described["failed"])
        counters.append({k: v for k, v in described["counters"].items() if whole or k != "image_values"})
    found = compare(spec.id, (first, second), (answers[0], answers[1]), (counters[0], counters[1]))
    if form == "json":
        print_json(found.as_json())
    else:
        click.echo(found.as_text())
    codes = {"different": ExitCode.REGRESSION, "incomplete": ExitCode.INCONCLUSIVE}
    return codes.get(found.verdict, ExitCode.OK)


def _two(backends: str) -> tuple[str, str]:
    names = [name.strip() for name in backends.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise BadInput(f"--backends {backends}: name two different backends, such as transformers,vllm")
    return names[0], names[1]
