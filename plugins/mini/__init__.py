"""The ``mini`` benchmarks: rendered on first use from a seed, read by the same reader as the real one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import click

from harness.hookspecs import Benchmark, BenchmarkSpec, DescriberSpec, hookimpl
from harness.raw import TextRequest
from harness.records import TrainingSource

NAME, LARGE, HARD = "mini", "mini-large", "mini-hard"
#: Raised whenever a picture or a question changes, so that an old cache is not read.
VERSION = "1"
#: What a model of four million parameters needs otherwise than one of eight billion.
TRAINING_SETTINGS = {
    "model.layers": (3, 4),
    "model.window": 1,
    "model.projector_words": ("-", "#"),
    "model.quantise": "none",
    "model.tiles": 1,
    "model.checkpointing": False,
    "stage1.epochs": 1.0,
    "stage1.learning_rate": 2e-3,
    "stage1.batch": 24,
    "stage1.answers": "both",
    "sft.learning_rate": 1e-3,
    "sft.answers": "think+letter",
    "grpo.learning_rate": 5e-4,
    "rollout.max_new_tokens": 64,
}


def folder(name: str = NAME) -> Path:
    """Where a rendered benchmark lies; rendered now if it does not yet."""
    from harness.cache import cached_folder
    from plugins.mini.benchmark import FAINT, HARD_SEED, LARGE_SEED, LARGE_TIMES, PLAIN, SEED, write_benchmark

    seed, times, strengths = {
        NAME: (SEED, 1, PLAIN),
        LARGE: (LARGE_SEED, LARGE_TIMES, PLAIN),
        HARD: (HARD_SEED, LARGE_TIMES, FAINT),
    }[name]

    def render(path: Path) -> None:
        click.echo(f"emit-bench: rendering the benchmark {name}, once", err=True)
        write_benchmark(path, seed, times, strengths)

    return cached_folder(f"{name}-{VERSION}-{seed}{_told(strengths)}", render)


def _told(strengths: Sequence[float]) -> str:
    """How well defects show, as part of a folder's name; nothing where it is as usual."""
    return "" if set(strengths) == {1.0} else "".join(f"-{value:g}" for value in strengths)


def load(data: Path | None, name: str = NAME) -> Benchmark:
    """A mini benchmark, from ``data`` if that is given, else from the cache."""
    from harness.mmad import read_mmad

    return read_mmad(folder(name) if data is None else data, name, "mini")


def training(data: Path | None, name: str = NAME) -> TrainingSource:
    """A mini training set: the file ``data`` if that is given, else what a training world gives."""
    from harness.cache import cached_folder
    from plugins.mini import training_world
    from plugins.mini.benchmark import FAINT, PLAIN

    seed, strengths = (training_world.HARD_SEED, FAINT) if name == HARD else (training_world.SEED, PLAIN)

    def render(path: Path) -> None:
        click.echo(f"emit-bench: rendering the training world of {name}, once", err=True)
        training_world.write_training_world(path, seed, strengths=strengths)

    if data is not None:
        return TrainingSource(data, "mini", TRAINING_SETTINGS)
    drawn = f"{training_world.VERSION}-{seed}{_told(strengths)}"
    root = cached_folder(f"{name}-training-{drawn}", render)
    return TrainingSource(training_world.raw_sources(root, name), "mini", TRAINING_SETTINGS)


def _describe(request: TextRequest) -> str:
    from plugins.mini.training_world import describe

    return describe(request)


@hookimpl
def emit_bench_describers() -> Iterable[DescriberSpec]:
    """What the mini world's renderer knows, in words."""
    return [DescriberSpec(NAME, "The mini training world's own texts; no server is needed.", _describe)]


@hookimpl
def emit_bench_benchmarks() -> Iterable[BenchmarkSpec]:
    """``--benchmark mini``, the default."""
    return [
        BenchmarkSpec(
            name=NAME,
            title="Mini world",
            summary="14 rendered products with 10 kinds of defect, in MMAD's format; made on first use.",
            world="mini",
            load=load,
            training=training,
        ),
        BenchmarkSpec(
            name=LARGE,
            title="Mini world, larger",
            summary="The same products drawn anew, three times the pictures: what experiments are judged on.",
            world="mini",
            load=partial(load, name=LARGE),
            training=training,
        ),
        BenchmarkSpec(
            name=HARD,
            title="Mini world, hard to see",
            summary="As large, with faint defects on surfaces, and a training world of the same kind.",
            world="mini",
            load=partial(load, name=HARD),
            training=partial(training, name=HARD),
        ),
    ]


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--part", type=click.Choice(("benchmark", "training")), default="benchmark", show_default=True)
@click.option("--seed", type=int, help="Another seed draws another world; the shipped one unless given.")
def mini(folder: Path, part: str, seed: int | None) -> None:
    """Write the mini world into an empty folder: the benchmark, or the training world in its raw layouts."""
    from harness.errors import BadInput

    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder}: the folder is not empty; name a new one")
    if part == "benchmark":
        from plugins.mini import benchmark

        digest = benchmark.write_benchmark(folder, benchmark.SEED if seed is None else seed)
        click.echo(f"{folder}: benchmark, sha256 {digest}")
        click.echo(f"To run on it: emit-bench run --benchmark {NAME} --data {folder} --models …")
    else:
        from plugins.mini import training_world

        count = training_world.write_training_world(folder, training_world.SEED if seed is None else seed)
        click.echo(f"{folder}: training world, {count} files")


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """``emit-bench data mini``."""
    data = cli.commands["data"]
    assert isinstance(data, click.Group)
    data.add_command(mini)
