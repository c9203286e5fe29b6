"""Every hook that a plugin can implement: the whole plugin surface, in one file.

A plugin is a module (or object) listed under the entry-point group ``emit_bench`` whose functions carry
``@hookimpl``. Built-ins come in the same way. Nothing heavy (torch, transformers, vllm, pandas) may be
imported when the module is: import it inside the function that loads or runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from harness.raw import RawDataset, TextRequest
from harness.records import Answer, Item, LoadRequest, Model, TrainingSource, TrainRequest, World

if TYPE_CHECKING:
    import click

    from harness.protocol import Protocol
    from harness.run import RunInfo

ENTRY_POINT_GROUP = "emit_bench"
hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that ``--models`` can name."""

    id: str
    title: str  #: as a table prints it
    family: str
    summary: str
    load: Callable[[LoadRequest], Model]  #: heavy imports happen here
    #: What makes its answers what they are (weights digest, class, preset). Cheap: called before loading,
    #: so that a finished run answers from its store without torch. ``served`` in it is the name of a model
    #: that a server answers as: then no weights of ours are in play.
    fingerprint: Callable[[LoadRequest], Mapping[str, Any]]
    backends: tuple[str, ...] = ("transformers",)
    weights: Mapping[str, str] = field(default_factory=dict)  #: world -> default weights
    scale: Mapping[str, str] = field(default_factory=dict)  #: world -> parameters, as a table prints them
    #: Number of parameters of other weights than the default ones, None where it cannot be told; the field is
    #: None where only ``scale`` is known.
    measure: Callable[[LoadRequest], int | None] | None = None
    #: For ``models --check``: what would run here and what is missing, without reading weights. Keys:
    #: ``runs`` (backends, with commas), ``weights``, ``memory``, ``missing`` (a sentence, or empty).
    check: Callable[[LoadRequest], Mapping[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A loaded benchmark: items in file order, and the knowledge texts."""

    name: str
    world: World
    root: Path
    digest: str  #: of the questions, options, answers and file list; images are digested per answer
    items: tuple[Item, ...]
    #: dataset -> object -> defect or "good" -> text, in prompt order
    knowledge: Mapping[str, Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class BenchmarkSpec:
    """A benchmark that ``--benchmark`` can name."""

    name: str
    title: str
    summary: str
    world: World
    load: Callable[[Path | None], Benchmark]  #: the argument is ``--data``, if given
    #: Its training set, for ``emit-bench train --benchmark NAME``; the argument is ``--data``, if given.
    training: Callable[[Path | None], TrainingSource] | None = None


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """A way to run models: ``transformers``, ``vllm``, ``server``."""

    name: str
    summary: str
    available: Callable[
        [], str | None
    ]  #: None when it can run here, else one sentence saying what is missing
    #: Arguments (``--backend-arg``) that change answers and so belong to their keys.
    deciding: tuple[str, ...] = ()
    devices: bool = True  #: whether it computes on the devices of the machine that it runs on
    #: Its other arguments. None where the backend itself knows which there are, and refuses others.
    arguments: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class RecipeSpec:
    """A training recipe that ``emit-bench train`` can name."""

    name: str
    summary: str
    run: Callable[[TrainRequest], Path]  #: returns the folder of the trained weights


@dataclass(frozen=True, slots=True)
class LayoutSpec:
    """A raw dataset's folder layout that ``emit-bench data build`` can read."""

    name: str
    title: str
    summary: str
    read: Callable[[Path], RawDataset]  #: the argument is the dataset's root; lists folders, opens no image
    folders: tuple[str, ...] = ()  #: what the dataset's root is usually called, by which it is recognised
    tested: bool = False  #: whether MMAD asks about its test images, so that they must not be trained on


@dataclass(frozen=True, slots=True)
class DescriberSpec:
    """A writer of domain knowledge and object texts that needs no server."""

    name: str
    summary: str
    describe: Callable[[TextRequest], str]


@dataclass(frozen=True, slots=True)
class RendererSpec:
    """A format that tables and reports can be written in."""

    name: str  #: ``text``, ``markdown``, ``csv``, ``latex``, ``html``
    suffix: str  #: of the file, with the dot
    render: Callable[[Any], str]  #: a ``reports.table.Table`` to text


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
