"""What is decided about a run before the first question is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.protocol import KNOWLEDGE_NAMES, Protocol
from harness.records import Item, LoadRequest
from harness.specs import Benchmark, ModelSpec


@dataclass(frozen=True)
class Labour:
    """Who does the work of a run, and how it is cut; no answer depends on it."""

    workers: int = 1  #: processes, or Ray actors, each with the model in it
    executor: Literal["local", "ray"] = "local"
    threads: int = 2  #: of each worker, that read images ahead
    unit: int = 8  #: groups of questions that may be computed together


ALONE = Labour()


@dataclass(frozen=True)
class RunInfo:
    """Everything that was decided before the first question is asked."""

    out: Path
    benchmark: Benchmark
    protocol: Protocol
    models: tuple[ModelSpec, ...]
    requests: Mapping[str, LoadRequest]  #: model id -> how to load it
    fingerprints: Mapping[str, Mapping[str, Any]]  #: model id -> what makes its answers what they are
    items: tuple[Item, ...]  #: those asked about: all, or a sample
    seed: int = 0
    limit: int | None = None
    max_failed: float = 0.01  #: share of a model's questions that may fail
    labour: Labour = ALONE
    command: tuple[str, ...] = ()
    #: Which variant of which audit this is, and what it changes (:mod:`harness.audits`); empty for a run.
    variant: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_questions(self) -> int:
        """Questions asked of each model."""
        return sum(len(item.questions) for item in self.items)

    @property
    def without_knowledge(self) -> tuple[str, ...]:
        """Products, as dataset/object, whose prompts lack the knowledge that the protocol would show."""
        if self.protocol.knowledge == "off":
            return ()
        texts = self.benchmark.knowledge
        products = dict.fromkeys((item.dataset, item.object) for item in self.items)
        return tuple(
            f"{dataset}/{name}"
            for dataset, name in products
            if not texts.get(KNOWLEDGE_NAMES.get(dataset, dataset), {}).get(name)
        )

    @property
    def substituted_references(self) -> int:
        """Images whose references are of the other kind than the protocol wants, for want of any."""
        return sum(self.protocol.substitutes(item) for item in self.items)
