"""Do two backends say the same? One model, the same questions on each, compared question by question.

A backend that resizes images otherwise, loses a space in the chat template or reuses the wrong cache still
gives plausible letters; only the same questions on both show it. Prompt lengths tell of templates and
resolutions, flips of everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.records import Answer, Outcome

#: Share of questions whose letter may differ where prompts are the same: rounding turns near ties.
ROUNDING = 0.02
Verdict = Literal["same", "close", "different", "incomplete"]
_SENTENCES: Mapping[str, str] = {
    "same": "The backends agree on every question.",
    "close": "Prompts are the same, and a few near ties fell otherwise.",
    "different": "The backends do not ask or answer the same.",
    "incomplete": "{why}; there is nothing to judge by.",
}


@dataclass(frozen=True)
class Flip:
    """A question with two letters."""

    key: str
    number: int
    letters: tuple[str | None, str | None]


@dataclass(frozen=True)
class Parity:
    """What the comparison of two backends found."""

    model: str
    backends: tuple[str, str]
    questions: int
    flips: tuple[Flip, ...]
    other_lengths: int  #: questions whose prompts have other numbers of tokens
    failed: tuple[int, int]  #: questions that failed, by backend
    unparsed: tuple[int, int]  #: questions whose answer states no letter, by backend
    lettered: int  #: questions with a letter on both
    prompt_tokens: tuple[int, int]  #: of all prompts, by backend
    reasons: tuple[str, str]  #: why most of those that failed did, by backend
    counters: tuple[Mapping[str, float], Mapping[str, float]]  #: exact work, by backend

    @property
    def verdict(self) -> Verdict:
        """One word."""
        if any(self.failed) or not self.lettered:
            return "incomplete"
        if self.other_lengths or len(self.flips) > ROUNDING * self.questions:
            return "different"
        return "close" if self.flips else "same"

    @property
    def image_values(self) -> tuple[float | None, float | None]:
        """Numbers in the processed images (pixels times channels), where a backend counts them.

        Of a run that was continued they say nothing: what was asked again is in them twice.
        """
        first, second = (counts.get("image_values") for counts in self.counters)
        return first, second

    def as_json(self) -> dict[str, Any]:
        """For ``--format json``."""
        by_backend = {
            name: {
                "failed": self.failed[side],
                "reason": self.reasons[side],
                "unparsed": self.unparsed[side],
                "prompt_tokens": self.prompt_tokens[side],
                "counters": dict(self.counters[side]),
            }
            for side, name in enumerate(self.backends)
        }
        return {
            "verdict": self.verdict,
            "model": self.model,
            "questions": self.questions,
            "flips": [
                {
                    "image": flip.key,
                    "number": flip.number,
                    **dict(zip(self.backends, flip.letters, strict=True)),
                }
                for flip in self.flips
            ],
            "prompts_of_other_length": self.other_lengths,
            "image_values": dict(zip(self.backends, self.image_values, strict=True)),
            "backends": by_backend,
        }

    def as_text(self) -> str:
        """For the terminal."""
        from harness.text import columns

        first, second = self.backends
        values = ["not counted" if value is None else f"{value:,.0f}" for value in self.image_values]
        rows: list[tuple[str, ...]] = [
            ("", first, second),
            ("failed", *(f"{count:,}" for count in self.failed)),
            ("without a letter", *(f"{count:,}" for count in self.unparsed)),
            ("tokens of all prompts", *(f"{count:,}" for count in self.prompt_tokens)),
            ("pixel values of all images", *values),
        ]
        flips = "".join(
            f"  {flip.key} question {flip.number}: {flip.letters[0] or '-'} and {flip.letters[1] or '-'}\n"
            for flip in self.flips[:10]
        )
        told = zip(self.backends, self.failed, self.reasons, strict=True)
        failures = "".join(f"{name} failed on {count:,}: {why}\n" for name, count, why in told if count)
        failures += "\n" if failures else ""
        why = "Questions failed on a backend" if any(self.failed) else "No question has a letter on both"
        more = f"  and {len(self.flips) - 10:,} more\n" if len(self.flips) > 10 else ""
        return (
            f"{self.model}: {self.questions:,} questions on {first} and {second}\n\n{columns(rows)}\n\n"
            f"answers that differ: {len(self.flips):,}\n{flips}{more}"
            f"prompts of another length: {self.other_lengths:,}\n\n"
            f"{failures}{self.verdict}: {_SENTENCES[self.verdict].format(why=why)}"
        )


def compare(
    model: str,
    backends: tuple[str, str],
    answers: tuple[Sequence[Answer], Sequence[Answer]],
    counters: tuple[Mapping[str, float], Mapping[str, float]] = ({}, {}),
) -> Parity:
    """Compare answers to the same questions.

    Args:
        model: its id.
        backends: the names of the two.
        answers: of each, over the same questions.
        counters: exact work of each.
    """
    first, second = ({(answer.key, answer.number): answer for answer in given} for given in answers)
    both = [(first[key], second[key]) for key in first if key in second]
    failed = tuple(
        sum(pair[side].outcome is Outcome.FAILED for pair in both) + len(given) - len(both)
        for side, given in enumerate(answers)
    )
    flips = tuple(
        Flip(one.key, one.number, (one.letter, other.letter))
        for one, other in both
        # Without a letter on either side, the texts tell whether the same was said.
        if one.letter != other.letter or (one.letter is None and one.text != other.text)
    )
    unparsed = tuple(sum(pair[side].outcome is Outcome.UNPARSED for pair in both) for side in (0, 1))
    lettered = sum(one.letter is not None and other.letter is not None for one, other in both)
    lengths = sum(
        one.prompt_tokens != other.prompt_tokens
        for one, other in both
        if Outcome.FAILED not in (one.outcome, other.outcome)
    )
    reasons = [
        Counter(answer.reason or "it was not asked" for answer in given if answer.outcome is Outcome.FAILED)
        for given in answers
    ]
    first_reason, second_reason = (
        next((text for text, _ in found.most_common(1)), "it was not asked") for found in reasons
    )
    return Parity(
        model=model,
        backends=backends,
        questions=len(both),
        flips=flips,
        other_lengths=lengths,
        failed=(failed[0], failed[1]),
        unparsed=(unparsed[0], unparsed[1]),
        lettered=lettered,
        prompt_tokens=(sum(one.prompt_tokens for one, _ in both), sum(two.prompt_tokens for _, two in both)),
        reasons=(first_reason if failed[0] else "", second_reason if failed[1] else ""),
        counters=counters,
    )
