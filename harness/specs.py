"""What plugins provide: one record for each kind of thing that a user can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.raw import RawDataset, TextRequest
from harness.records import Item, LoadRequest, Model, TrainingSource, TrainRequest, World


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
    #: Whether it can draw in place of learning: where a request asks for draws, ``run`` returns the file of
    #: pass rates, a JSON object with ``id``, ``task``, ``right`` and ``draws`` a line.
    draws: bool = False


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
