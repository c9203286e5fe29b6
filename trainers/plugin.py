"""The trainers' plugin: recipes, and the commands ``train``, ``recipes`` and ``experiment``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.hookspecs import RecipeSpec, hookimpl
from trainers.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.records import TrainRequest

_PATH = click.Path(path_type=Path)


def _run(recipe: Recipe, request: TrainRequest) -> Path:
    from trainers.training import train as run

    return run(recipe, request)


@hookimpl
def emit_bench_recipes() -> Iterable[RecipeSpec]:
    """The paper's rows and the arms between them."""
    return [
        RecipeSpec(recipe.name, recipe.summary, partial(_run, recipe), draws="grpo" in recipe.stages)
        for recipe in RECIPES
    ]


@click.command()
@click.argument("recipe")
@click.option("--benchmark", help="Whose training set; mini unless --data is given.")
@click.option("--data", type=_PATH, help="A training set of your own: a JSONL file.")
@click.option("--out", type=_PATH, help="Its folder; runs/train-<benchmark>-<recipe> unless given.")
@click.option("--resume", is_flag=True, help="Go on with the training in the folder.")
@click.option("--preset", default="paper", show_default=True, help="paper, or release: its code.")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Such as grpo.beta=0.04.")
@click.option("--weights", metavar="PATH", help="Another base model: a folder or a hub id.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of data order, adapters and responses.")
@click.option("--device", default="auto", show_default=True, help="Such as cpu or cuda:0.")
@click.option("--dtype", default="auto", show_default=True, help="Such as float32 or bfloat16.")
@click.option(
    "--processes", type=click.IntRange(0), default=0, help="On this machine; one a GPU or core unless given."
)
@click.option(
    "--draws",
    type=click.IntRange(2),
    help="Learn nothing in stage 2: draw so many responses to each question and count the right ones.",
)
@click.pass_obj
def train(
    registry: Registry,
    recipe: str,
    benchmark: str | None,
    data: Path | None,
    out: Path | None,
    resume: bool,
    preset: str,
    changes: Sequence[str],
    weights: str | None,
    seed: int,
    device: str,
    dtype: str,
    processes: int,
    draws: int | None,
) -> None:
    """Train a model by RECIPE; `emit-bench recipes` lists them."""
    # Threads that wait for each other by spinning collapse where another process wants the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from harness.errors import BadInput
    from harness.lookup import find
    from harness.records import TrainRequest
    from trainers.dataset.prepared import prepared
    from trainers.launch import automatic, companions

    name = benchmark or ("mmad" if data else "mini")
    chosen = find(registry.recipes, recipe, "recipe")
    spec = find(registry.benchmarks, name, "benchmark")
    if data is not None and not data.is_file():
        raise BadInput(f"{data}: there is no such file; pass a training set's JSONL file")
    if spec.training is None:
        raise BadInput(f"benchmark {name!r} brings no training set; pass --data FILE.jsonl")
    if draws and not chosen.draws:
        raise BadInput(f"--draws: the recipe {recipe} draws no responses; use one with GRPO, such as emit")
    settings = {"seed": str(seed)}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise BadInput(f"--set {change}: write a key, an equals sign and a value")
        settings[key.strip()] = value.strip()
    request = TrainRequest(
        recipe=recipe,
        source=prepared(spec.training(data), registry),
        out=out or Path("runs") / f"train-{name}-{recipe}",
        base=weights,
        preset=preset,
        settings=settings,
        resume=resume,
        device=device,
        dtype=dtype,
        draws=draws or 0,
    )
    with companions(processes or automatic(device), _arguments(request, name, data, changes)):
        made = chosen.run(request)
    if os.environ.get("RANK", "0") == "0":
        if draws:
            from trainers.pass_rates import as_table, read_pass_rates

            click.echo(as_table(read_pass_rates(made)))
            click.echo(f"Questions by the share of {draws} responses that is right (%); each in {made}")
            return
        click.echo(made)
        on = " --data BENCHMARK" if data is not None else ""
        click.echo(f"To ask it: emit-bench run --models {recipe} --weights {recipe}={made}{on}", err=True)


def _arguments(request: TrainRequest, benchmark: str, data: Path | None, changes: Sequence[str]) -> list[str]:
    """The command line of the same training, for its other processes."""
    given = {
        "--benchmark": benchmark,
        "--out": request.out,
        "--preset": request.preset,
        "--seed": request.settings["seed"],
        "--device": request.device,
        "--dtype": request.dtype,
        "--data": data,
        "--weights": request.base,
        "--draws": request.draws or None,
    }
    words = ["train", request.recipe, *(["--resume"] if request.resume else [])]
    words += [f"{name}={value}" for name, value in given.items() if value is not None]
    return words + [word for change in changes for word in ("--set", change)]


@click.command()
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", help="How to print.")
@click.pass_obj
def recipes(registry: Registry, form: str) -> None:
    """List the recipes that `train` can follow."""
    import json

    from harness.text import columns

    rows = [{"name": spec.name, "summary": spec.summary} for spec in registry.recipes.values()]
    if form == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(columns([("name", "summary"), *((row["name"], row["summary"]) for row in rows)]))


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """``emit-bench train``, ``recipes`` and ``experiment``."""
    from trainers.experiment.command import experiment

    cli.add_command(train)
    cli.add_command(recipes)
    cli.add_command(experiment)
