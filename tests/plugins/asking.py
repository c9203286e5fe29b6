"""What the engine's tests ask: questions on pairs and on single images, and when two answers are the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.records import Decoding, Picture, Prompt, PromptGroup, Response
from tests import tiny

DIRECT = Decoding("direct", 10)
OPTIONS = {"A": "Yes", "B": "No"}
QUESTIONS = (
    "\nQuestion: Are there any defects? A. Yes B. No",
    "\nWhat kind of product is shown in the second image? A. Yes B. No Answer with the letter.",
    "\nAny?",
)


def picture(seed: int, width: int = 60, height: int = 60) -> Picture:
    return Picture(f"digest-{seed}-{width}", tiny.image(seed, width, height))


def asked(name: str, texts: Sequence[str] = QUESTIONS) -> tuple[Prompt, ...]:
    return tuple(Prompt(f"{name}-{number}", text, OPTIONS, False) for number, text in enumerate(texts))


def pair(seed: int) -> PromptGroup:
    reference, query = picture(seed), picture(seed + 100, 90, 60)
    content = ("First ", reference, " and second ", query, " some knowledge of the product.")
    return PromptGroup("You inspect.", content, (reference,), query, asked(f"p{seed}"), id=f"pair-{seed}")


def alone(seed: int) -> PromptGroup:
    query = picture(seed, 70, 60)
    return PromptGroup(
        "", (query, " One image."), (), query, asked(f"a{seed}", QUESTIONS[:2]), id=f"alone-{seed}"
    )


GROUPS = (pair(1), alone(2), pair(3), alone(1))


def same(found: Sequence[Response], wanted: Sequence[Response], within: float = 1e-4) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.text == other.text
        assert one.prompt_tokens == other.prompt_tokens
        assert (one.completion_tokens, one.truncated) == (other.completion_tokens, other.truncated)
        assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=within)
