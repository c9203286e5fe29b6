"""Models with one habit each, for audits to find out, and the course of an audit in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.audits import AUDITS, AuditResult
from harness.audits.conduct import conduct, plan_audit
from harness.hookspecs import Benchmark, ModelSpec
from harness.records import Decoding, LoadRequest, Model, Prompt, PromptGroup, Response
from harness.run import execute
from tests.harness.scripted import no_plugins, planned

#: Group and prompt -> the letter that is said.
Habit = Callable[[PromptGroup, Prompt], str]


@dataclass
class Toy(Model):
    """Says what its habit is, and notes what it was asked."""

    habit: Habit
    groups: list[PromptGroup] = field(default_factory=list)
    loads: int = 0

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        self.groups.append(group)
        return [Response(self.habit(group, prompt), 1, 1) for prompt in group.prompts]

    @property
    def asked(self) -> list[str]:
        return [prompt.id for group in self.groups for prompt in group.prompts]

    def spec(self, name: str = "toy") -> ModelSpec:
        def load(request: LoadRequest) -> Model:
            self.loads += 1
            return self

        return ModelSpec(name, name.title(), "test", "-", load, lambda request: {"rule": name}, backends=())


def drawn(prompt: Prompt, *seen: object) -> str:
    """A letter that depends on what is given, by the option's text: wherever it stands, it is the same."""
    texts = sorted(prompt.options.values())
    draw = hashlib.sha256(repr((prompt.id, *seen)).encode()).digest()[0]
    text = texts[draw % len(texts)]
    return next(letter for letter, other in prompt.options.items() if other == text)


def always_a(group: PromptGroup, prompt: Prompt) -> str:
    return "A"


def reads_texts(group: PromptGroup, prompt: Prompt) -> str:
    return drawn(prompt)


def sees_query(group: PromptGroup, prompt: Prompt) -> str:
    return drawn(prompt, group.query.digest)


def sees_all(group: PromptGroup, prompt: Prompt) -> str:
    return drawn(prompt, group.query.digest, [one.digest for one in group.references])


def audit(
    name: str,
    out: Path,
    benchmark: Benchmark,
    *toys: Toy,
    names: Sequence[str] = ("toy", "other"),
    **options: Any,
) -> AuditResult:
    """Run and audit as the command line does."""
    specs = [toy.spec(spec_name) for toy, spec_name in zip(toys, names, strict=False)]
    base = planned(out, benchmark, *specs, **options)
    plan = plan_audit(AUDITS[name], base)
    return conduct(plan, execute(base, no_plugins()), no_plugins()).result
