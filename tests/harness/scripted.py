"""A model whose answers are decided by what it is shown, and that keeps a record of what it was asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.hookspecs import Benchmark, ModelSpec
from harness.plugins import Registry
from harness.protocol import shipped_protocols
from harness.records import Decoding, LoadRequest, Model, PromptGroup, Response
from harness.run import plan_run
from harness.run_info import RunInfo


def letter_for(group: PromptGroup, text: str, letters: Sequence[str]) -> str:
    """A letter drawn from the query's pixels and the question."""
    seen = hashlib.sha256(group.query.digest.encode() + text.encode()).digest()
    return letters[seen[0] % len(letters)]


@dataclass
class Scripted(Model):
    """Answers by :func:`letter_for`; ``before`` may raise instead."""

    before: Callable[[PromptGroup], None] = lambda group: None
    respond: Callable[[str], Response] = lambda letter: Response(letter, 10, 1)
    asked: list[str] = field(default_factory=list)  #: prompt ids in order
    groups: list[PromptGroup] = field(default_factory=list)
    loads: int = 0

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        self.groups.append(group)
        self.before(group)
        self.asked += [prompt.id for prompt in group.prompts]
        return [self.respond(letter_for(group, p.text, tuple(p.options))) for p in group.prompts]

    def counters(self) -> dict[str, int]:
        images = sum(1 + len(group.references) for group in self.groups)
        return {"images_encoded": images, "suffix_tokens": 3 * len(self.asked)}

    def spec(self, name: str = "scripted", weights: str = "1") -> ModelSpec:
        """This model as a plugin names it."""

        def load(request: LoadRequest) -> Model:
            self.loads += 1
            return self

        return ModelSpec(
            name, name.title(), "test", "-", load, lambda request: {"weights": weights}, backends=()
        )


def planned(
    out: Path, benchmark: Benchmark, *specs: ModelSpec, protocol: str = "emit", **options: Any
) -> RunInfo:
    """A run of some models under a shipped protocol."""
    (found,) = (p for p in shipped_protocols() if p.name == protocol)
    found = found.with_options(mode=options.pop("mode", None), shots=options.pop("shots", None))
    request = LoadRequest(world=benchmark.world)
    return plan_run(out=out, benchmark=benchmark, protocol=found, models=specs, request=request, **options)


def no_plugins() -> Registry:
    """A registry without any plugin."""
    return Registry(())
