"""Every hook that a plugin can implement, with the records that hooks exchange: import all of it from here.

A plugin is a module (or object) listed under the entry-point group ``emit_bench`` whose functions carry
``@hookimpl``. Built-ins come in the same way. Nothing heavy (torch, transformers, vllm, pandas) may be
imported when the module is: import it inside the function that loads or runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pluggy

from harness.protocol import Protocol
from harness.records import Answer
from harness.run_info import RunInfo
from harness.specs import (
    BackendSpec,
    Benchmark,
    BenchmarkSpec,
    DescriberSpec,
    LayoutSpec,
    ModelSpec,
    RecipeSpec,
    RendererSpec,
)

if TYPE_CHECKING:
    import click

__all__ = [
    "ENTRY_POINT_GROUP",
    "BackendSpec",
    "Benchmark",
    "BenchmarkSpec",
    "DescriberSpec",
    "LayoutSpec",
    "ModelSpec",
    "Protocol",
    "RecipeSpec",
    "RendererSpec",
    "RunInfo",
    "hookimpl",
    "hookspec",
]
ENTRY_POINT_GROUP = "emit_bench"
hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


@hookspec
def emit_bench_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Models of this plugin."""


@hookspec
def emit_bench_benchmarks() -> Iterable[BenchmarkSpec]:  # type: ignore[empty-body]
    """Benchmarks of this plugin."""


@hookspec
def emit_bench_protocols() -> Iterable[Protocol]:  # type: ignore[empty-body]
    """Evaluation protocols of this plugin."""


@hookspec
def emit_bench_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Backends of this plugin."""


@hookspec
def emit_bench_recipes() -> Iterable[RecipeSpec]:  # type: ignore[empty-body]
    """Training recipes of this plugin."""


@hookspec
def emit_bench_layouts() -> Iterable[LayoutSpec]:  # type: ignore[empty-body]
    """Layouts of raw datasets of this plugin."""


@hookspec
def emit_bench_describers() -> Iterable[DescriberSpec]:  # type: ignore[empty-body]
    """Offline describers of this plugin."""


@hookspec
def emit_bench_renderers() -> Iterable[RendererSpec]:  # type: ignore[empty-body]
    """Report renderers of this plugin."""


@hookspec
def emit_bench_commands(cli: click.Group) -> None:
    """Add sub-commands to the ``emit-bench`` command line."""


@hookspec
def emit_bench_run_started(run: RunInfo) -> None:
    """A run's plan is fixed and its manifest written; nothing is answered yet."""


@hookspec
def emit_bench_group_answered(run: RunInfo, answers: Sequence[Answer]) -> None:
    """One image pair's answers are in the store."""


@hookspec
def emit_bench_run_finished(run: RunInfo) -> None:
    """Every model answered; tables and reports are made here (``run.out`` is the run's folder).

    It is called again when audits of the run are done, whose variants observers are not told of.
    """
