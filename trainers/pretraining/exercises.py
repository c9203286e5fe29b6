"""What the mini base is taught: described scenes in words, and the same questions about pictures.

The answer's content is stated before its letter in the ``think`` form: binding a letter to its option is the
hard part for a small model, and it comes much sooner when the content stands in the context already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from harness.protocol import IMAGE_MARK, Protocol, compiled, shipped_protocols
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.pieces import Design
from plugins.mini.questions import (
    CELLS,
    LETTERS,
    NUMBERS,
    Choice,
    anomaly_question,
    class_question,
    defect_choices,
    knowledge,
    object_questions,
    sentence,
    trim_part,
)
from trainers.packing import Suffix

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


TURN_END = "<|im_end|>\n<|im_start|>assistant\n"  #: what stands between a question and its answer


@dataclass(frozen=True)
class Speaker:
    """Turns exercises into tokens through the model's own tokenizer and chat template."""

    tokenizer: PreTrainedTokenizerFast
    image_tokens: int

    @lru_cache(maxsize=50_000)  # noqa: B019 - one speaker lives as long as the program
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, image marks expanded to the processor's tokens."""
        image = "<img>" + "<IMG_CONTEXT>" * self.image_tokens + "</img>"
        return tuple(self.tokenizer(text.replace(IMAGE_MARK, image)).input_ids)

    @cached_property
    def end(self) -> int:
        """The token that ends a turn."""
        return int(self.tokenizer.eos_token_id)

    def prefix(self, system: str, content: str) -> tuple[int, ...]:
        """The chat up to the end of the shared content of the user's turn."""
        return self.ids(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{content}")

    def suffix(self, question: str, answer: str) -> Suffix:
        """What follows: the question, and the answer to learn."""
        prompt = self.ids(f"{question}{TURN_END}")
        return Suffix(prompt, (*self.ids(answer), self.end))


def answer_text(choice: Choice, letter: str, think: bool) -> str:
    """The answer in the format that the prompt asks for."""
    if not think:
        return letter
    evidence = f"{choice.evidence} " if choice.evidence else ""
    return f"<think>I see: {evidence}{choice.truth} {letter}.</think><answer>{letter}</answer>"


def question_suffix(
    speaker: Speaker, protocol: Protocol, choice: Choice, think: bool, rng: np.random.RandomState
) -> Suffix:
    """One dealt question with its answer, in the protocol's wording."""
    dealt = choice.deal(rng)
    text = compiled(protocol.question).render(
        question=dealt["Question"], options=tuple(dealt["Options"].items())
    )
    return speaker.suffix(text, answer_text(choice, dealt["Answer"], think))


def describe(design: Design, defect: Defect | None, place: str | None, rng: np.random.RandomState) -> str:
    """The picture in words: its facts, a line each, in random order."""
    look = design.look
    lines = [
        f"product: {sentence(design.family.noun)}",
        f"outline: {design.family.outline}",
        f"{design.family.part}: {NUMBERS[look.count]}",
        f"body: {sentence(look.body)}",
        f"{trim_part(design)}: {sentence(look.trim)}",
        f"defect: {sentence(defect.name) if defect else 'Normal.'}",
    ]
    if place:
        lines.append(f"place: {place}")
    return "\n".join(lines[i] for i in rng.permutation(len(lines)))


def listing(texts: Sequence[str], rng: np.random.RandomState) -> Choice:
    """The barest binding exercise: which line says this?"""
    truth, *wrong = (texts[i] for i in rng.permutation(len(texts))[:4])
    return Choice("", f"Which line says this: {truth}", truth, tuple(wrong), "")


def knowledge_lines(design: Design, defect: Defect | None, rng: np.random.RandomState) -> list[str]:
    """The product's knowledge with a few kinds, the real one among them."""
    kinds = [kind for kind in DEFECTS.values() if kind.fits(design)]
    chosen = [kinds[i] for i in sorted(rng.permutation(len(kinds))[: 3 + int(rng.random_sample() * 3)])]
    if defect is not None and defect not in chosen:
        chosen[0] = defect
    return list(knowledge(design, chosen).values())


def render_content(protocol: Protocol, references: int, texts: Sequence[str], think: bool) -> str:
    """The shared part of the user's turn, images as marks."""
    return (
        compiled(protocol.content)
        .render(
            references=[IMAGE_MARK] * references,
            query=IMAGE_MARK,
            knowledge=list(texts),
            instruction=protocol.instructions["think" if think else "direct"],
        )
        .strip("\n")
    )


def choices_for(design: Design, defect: Defect | None, cells: Sequence[int]) -> list[Choice]:
    """All questions that the truth answers; object questions for a normal picture only, as in MMAD."""
    if defect is not None:
        return [anomaly_question(defect), *defect_choices(defect, cells)]
    return [anomaly_question(None), class_question(design), *object_questions(design)]


def described_row(
    speaker: Speaker,
    design: Design,
    defect: Defect | None,
    think: bool,
    rng: np.random.RandomState,
    lists: int = 2,
) -> tuple[tuple[int, ...], list[Suffix]]:
    """A scene in words with its questions, no picture."""
    protocol = shipped_protocols()[0]
    cell = int(rng.random_sample() * 9) if defect else None
    place = None if cell is None else CELLS[cell]
    text = describe(design, defect, place, rng)
    instruction = protocol.instructions["think" if think else "direct"]
    prefix = speaker.prefix(protocol.system, f"The scene in words:\n{text}\n{instruction}")
    choices = choices_for(design, defect, [] if cell is None else [cell])
    if defect is not None:
        choices += [class_question(design), *object_questions(design)[:2]]
    choices += [listing(ALL_PHRASES, rng) for _ in range(lists)]
    return prefix, [question_suffix(speaker, protocol, choice, think, rng) for choice in choices]


def list_row(
    speaker: Speaker, rng: np.random.RandomState, queries: int
) -> tuple[tuple[int, ...], list[Suffix]]:
    """Plain option lists, several to a row: the exercise on which binding appears first."""
    protocol = shipped_protocols()[0]
    prefix = speaker.prefix(protocol.system, "The list in words:")
    suffixes = []
    for _ in range(queries):
        think = bool(rng.random_sample() < 0.7)
        suffixes.append(question_suffix(speaker, protocol, listing(ALL_PHRASES, rng), think, rng))
    return prefix, suffixes


def recall_row(
    speaker: Speaker, rng: np.random.RandomState, queries: int
) -> tuple[tuple[int, ...], list[Suffix]]:
    """An option list in any order of letters, and then many times: this text, which letter?

    The densest binding exercise: four tokens a query, where a whole question takes thirty.
    """
    count = 3 + int(rng.random_sample() * 3)
    letters = [LETTERS[i] for i in rng.permutation(5)[:count]]
    texts = [ALL_PHRASES[i] for i in rng.permutation(len(ALL_PHRASES))[:count]]
    lines = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, texts, strict=True))
    asked = [int(rng.random_sample() * count) for _ in range(queries)]
    answers = "".join(f"I see: {texts[i]} {letters[i]}.\n" for i in asked)
    return speaker.ids(lines), [Suffix((), speaker.ids(answers))]


ALL_PHRASES = (
    *CELLS,
    *NUMBERS[1:9],
    *(sentence(kind.name) for kind in DEFECTS.values()),
    *(kind.appearance for kind in DEFECTS.values()),
    *(kind.effect for kind in DEFECTS.values()),
)
