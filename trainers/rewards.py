"""The verifiable reward of a response: format, classification, cosine and repetition, weighted and summed.

The paper gives it in words ("Verifiable Rewards"), without equations; two readings of them are in ``RULES``.
``paper`` reads the letter as the benchmark does, so that a model is never paid for an answer that the
benchmark would not count. ``release`` is the released training code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.extraction import extract_letter
from trainers.presets import PresetName

_FORM = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
#: As tolerant as the extractor is, so that no second answer escapes the count in another spelling.
_TAG = re.compile(r"<\s*/?\s*(?:think|answer)\s*>", re.IGNORECASE)
_RELEASED_ANSWER = re.compile(r"<answer>(.*?)</answer>")  # no DOTALL: a line break inside defeats it
_RELEASED_NOISE = str.maketrans("", "", " _.\n")


@dataclass(frozen=True, slots=True)
class Reward:
    """What a response earns, part by part."""

    format: float  #: 1, or 0 where the response is not in the form
    classification: float  #: 1 right, 0 wrong, -1 none of the options
    cosine: float  #: from -1 to 1
    repetition: float  #: from -1 to 0
    total: float  #: the weighted sum


@dataclass(frozen=True, slots=True)
class RewardRules:
    """One reading of the reward."""

    classify: Callable[[str, str, Mapping[str, str]], float]  #: text, answer, options -> 1, 0 or -1
    one_of_each_tag: bool  #: whether a tag that stands twice breaks the form
    free_tokens: int  #: up to so many tokens, the cosine reward does not see the length
    ngram: int  #: words in what counts as a repetition
    correct: tuple[float, float] = (1.0, 0.5)  #: cosine reward of the shortest and of the longest response
    wrong: tuple[float, float] = (-0.5, 0.0)  #: the same for a wrong option
    invalid: float = -1.0  #: where no option is chosen, whatever the length
    weights: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {"format": 1.0, "classification": 3.0, "cosine": 1.0, "repetition": 1.0}
        )
    )


def _as_evaluated(text: str, answer: str, options: Mapping[str, str]) -> float:
    """The benchmark's own extractor; no letter, or that of no option, is invalid."""
    letter = extract_letter(text, options)
    if letter is None:
        return -1.0
    return 1.0 if letter == answer else 0.0


def _as_released(text: str, answer: str, options: Mapping[str, str]) -> float:
    """The first answer element, or the whole text; a to d are valid whatever the question's options."""
    found = _RELEASED_ANSWER.search(text)
    stated = (found[1] if found else text).strip().translate(_RELEASED_NOISE).lower()
    if stated not in ("a", "b", "c", "d"):
        return -1.0
    return 1.0 if stated == answer.strip().translate(_RELEASED_NOISE).lower() else 0.0


#: The paper gives neither free tokens nor the size of its n-grams: none, and its framework's default.
RULES: Mapping[PresetName, RewardRules] = MappingProxyType(
    {
        "paper": RewardRules(_as_evaluated, one_of_each_tag=True, free_tokens=0, ngram=3),
        "release": RewardRules(_as_released, one_of_each_tag=False, free_tokens=256, ngram=4),
    }
)


def reward(
    text: str,
    answer: str,
    options: Mapping[str, str],
    completion_tokens: int,
    preset: PresetName = "paper",
    *,
    max_tokens: int = 512,
) -> Reward:
    """The reward of one response; a number for whatever text a model may write.

    Args:
        text: the response, without the token that ends the turn.
        answer: the letter of the right option.
        options: letter -> text of the question's options.
        completion_tokens: length of the whole response. The paper speaks of the thought alone; tags and
            letter add a constant to it.
        preset: which of ``RULES``.
        max_tokens: the length at which the cosine reward ends.

    Raises:
        ValueError: ``answer`` is no option, ``completion_tokens`` is negative, or there is no such preset.

    >>> reward("<think>A crack.</think><answer>B</answer>", "B", {"A": "Yes.", "B": "No."}, 0)
    Reward(format=1.0, classification=1.0, cosine=1.0, repetition=0.0, total=5.0)
    """
    if preset not in RULES:
        raise ValueError(f"there are no reward rules {preset!r}; use {' or '.join(RULES)}")
    if answer not in options:
        raise ValueError(f"the answer {answer!r} is none of the options {', '.join(options)}")
    if completion_tokens < 0:
        raise ValueError(f"a response cannot have {completion_tokens} tokens")
    rules = RULES[preset]
    classification = rules.classify(text, answer, options)
    parts = {
        "format": format_reward(text, rules.one_of_each_tag),
        "classification": classification,
        "cosine": cosine_reward(classification, completion_tokens, rules, max_tokens),
        "repetition": repetition_reward(text, rules.ngram),
    }
    return Reward(**parts, total=sum(rules.weights[name] * value for name, value in parts.items()))


def correct(reward: Reward) -> bool:
    """Whether the response chose the right option: what resampling and Eq. 5 ask of it."""
    return reward.classification == 1.0


def format_reward(text: str, one_of_each_tag: bool = True) -> float:
    """1 if ``text`` is ``<think>…</think><answer>…</answer>`` and nothing else, else 0.

    White space may stand between the two elements, but neither before nor after them.

    Args:
        text: a response.
        one_of_each_tag: whether a further tag, in any spelling, breaks the form. Without it, ``…`` may be
            anything, and a response with two answer elements is in the form.
    """
    good = _FORM.fullmatch(text) and not (one_of_each_tag and len(_TAG.findall(text)) != 4)
    return 1.0 if good else 0.0


def cosine_reward(classification: float, tokens: int, rules: RewardRules, max_tokens: int) -> float:
    """Half a cosine from the value of the shortest response to that of the longest (Yeo et al. 2025).

    ``max - (max - min)(1 - cos(pi t / T)) / 2`` with ``t = tokens - free`` and ``T = max_tokens - free``,
    where max is the shortest response's value and min the longest's. The released formula turns back beyond
    ``max_tokens``; here ``t`` is kept within 0 and ``T``. If all tokens are free, length plays no part.

    Args:
        classification: 1, 0 or -1.
        tokens: length of the response.
        rules: free tokens, and the values at both ends.
        max_tokens: where the longest response ends.
    """
    if classification < 0:
        return rules.invalid
    shortest, longest = rules.correct if classification > 0 else rules.wrong
    span = max_tokens - rules.free_tokens
    beyond = min(max(tokens - rules.free_tokens, 0), span)
    if beyond <= 0:
        return shortest
    return shortest - (shortest - longest) * (1 - math.cos(math.pi * beyond / span)) / 2


def repetition_reward(text: str, ngram: int) -> float:
    """Minus the share of n-grams that repeat an earlier one: 0 for none, towards -1 for nothing else.

    Words are what white space separates, in lower case. A text of fewer than n words has no n-gram and gets
    0, the best value there is: this reward pays for saying nothing, and the others must outweigh it.

    Args:
        text: a response.
        ngram: n, in words.
    """
    words = text.lower().split()
    total = len(words) - ngram + 1
    if total < 1:
        return 0.0
    return len({tuple(words[i : i + ngram]) for i in range(total)}) / total - 1
