"""Runs of one scripted benchmark, made by the real runner, to be compared and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.hookspecs import ModelSpec
from harness.mmad import read_mmad
from harness.plugins import load_registry
from harness.protocol import find_protocol
from harness.records import Decoding, LoadRequest, Model, PromptGroup, Response
from harness.run import execute, plan_run
from tests.builders import write_mmad

#: Opaque id of a question and its number among all -> the letter that is said.
Script = Callable[[int, str], str]


class Scripted(Model):
    """Says what the script has for each question."""

    def __init__(self, letters: dict[str, str]) -> None:
        self.letters = letters

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        return [Response(self.letters[prompt.id], 1, 1) for prompt in group.prompts]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mmad(tmp_path_factory.mktemp("data"), per_product=40)


@pytest.fixture(scope="session")
def make_run(data: Path) -> Callable[..., Path]:
    """A run's folder of models that answer by script."""

    def run(out: Path, models: dict[str, Script], protocol: str = "mmad", limit: int | None = None) -> Path:
        benchmark = read_mmad(data)
        plan = find_protocol(load_registry().protocols, protocol)
        questions = [
            (prompt.id, question.answer)
            for item in benchmark.items
            for group in plan.plan(item, benchmark.knowledge)
            for prompt, question in zip(group.prompts, group.questions, strict=True)
        ]
        specs = []
        for name, script in models.items():
            letters = {prompt: script(place, answer) for place, (prompt, answer) in enumerate(questions)}
            specs.append(
                ModelSpec(
                    id=name,
                    title=name,
                    family="test",
                    summary="scripted",
                    load=lambda request, letters=letters: Scripted(letters),
                    fingerprint=lambda request, letters=letters: {"letters": letters},
                    backends=(),
                )
            )
        info = plan_run(
            out=out,
            benchmark=benchmark,
            protocol=plan,
            models=specs,
            request=LoadRequest(world="real"),
            limit=limit,
        )
        execute(info, load_registry())
        return out

    return run


@pytest.fixture
def mini_run(make_run: Callable[..., Path]) -> Callable[[Path], Path]:
    """A run of two models."""
    return lambda out: make_run(
        out, {"m": lambda place, answer: answer, "n": lambda place, answer: "A"}, limit=100
    )
