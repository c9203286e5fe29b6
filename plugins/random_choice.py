"""A model that guesses: the floor under every table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.hookspecs import ModelSpec, hookimpl
from harness.records import Decoding, LoadRequest, Model, PromptGroup, Response


class RandomChoice(Model):
    """Draws each option with equal probability, from the seed and the question's id alone.

    Neither the order of questions nor what was answered before changes a draw.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def answer(self, group: PromptGroup, decoding: Decoding) -> Sequence[Response]:
        """One letter per prompt, in the form that the answer mode asks for."""
        return [self._respond(prompt.id, tuple(prompt.options), decoding.mode) for prompt in group.prompts]

    def _respond(self, prompt_id: str, letters: tuple[str, ...], mode: str) -> Response:
        draw = hashlib.sha256(f"{self.seed}:{prompt_id}".encode()).digest()
        letter = letters[int.from_bytes(draw, "big") % len(letters)]
        if mode == "think":
            return Response(f"<think>I guess.</think><answer>{letter}</answer>", 0, 0)
        if mode == "logits":
            likely, unlikely = 1 / len(letters) + 1e-6, (1 - 1 / len(letters) - 1e-6) / (len(letters) - 1)
            chances = {name: math.log(likely if name == letter else unlikely) for name in letters}
            return Response(letter, 0, 0, chances)
        return Response(letter, 0, 0)


def load(request: LoadRequest) -> Model:
    """The guesser with the run's seed."""
    return RandomChoice(request.seed)


def fingerprint(request: LoadRequest) -> Mapping[str, Any]:
    """Its draws depend on the seed and this version of the rule."""
    return {"class": "RandomChoice", "rule": 1, "seed": request.seed}


@hookimpl
def emit_bench_models() -> Iterable[ModelSpec]:
    """The model ``random-choice``."""
    return [
        ModelSpec(
            id="random-choice",
            title="Random choice",
            family="baseline",
            summary="Guesses each option with equal probability.",
            load=load,
            fingerprint=fingerprint,
            backends=(),
        )
    ]
