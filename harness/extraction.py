"""The one extractor: which option's letter, if any, does a response state?

Evaluation and the training reward call the same function, so a model cannot learn to please a parser that
the benchmark does not use. It is strict on purpose: no closest match, no first option by default. A response
that states no option, or two different ones, has no letter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.records import Mode

_THOUGHT = re.compile(r"<\s*think\s*>.*?<\s*/\s*think\s*>", re.DOTALL | re.IGNORECASE)
_THOUGHT_OPENS = re.compile(r"<\s*think\s*>", re.IGNORECASE)
_THOUGHT_CLOSES = re.compile(r"<\s*/\s*think\s*>", re.IGNORECASE)
_MARKED = (  # where a model marks its answer, in order of preference
    re.compile(r"<\s*answer\s*>((?:(?!<\s*answer\s*>).)*?)<\s*/\s*answer\s*>", re.DOTALL | re.IGNORECASE),
    re.compile(r"<\|begin_of_box\|>(.*?)<\|end_of_box\|>", re.DOTALL),
    re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{([^{}]*)\}|([^{}]*))\s*\}"),
)
_ANSWER_OPENS = re.compile(r"<\s*answer\s*>", re.IGNORECASE)
_SPECIAL = re.compile(r"<\|[^<>|]*\|>|<\s*/?\s*(?:answer|think)\s*>|</?s>|<eos>|<end_of_turn>", re.IGNORECASE)
_EMPHASIS = re.compile(r"[*`_]+")

_BARE = re.compile(r"[(\[\"']*([A-Za-z])[)\]\"']*[.:,;!]*")
#: An upper-case letter that stands alone: no part of a word, of a hyphenated name or of an abbreviation.
_LETTER = re.compile(r"(?<![\w'&-])([A-Z])(?![\w'&]|-\w|\.\w)")
_CUE = re.compile(
    r"(?:\b(?:answer|option|choice)(?:\s+(?:is|would\s+be|should\s+be|must\s+be))?\s*[:=]?"
    r"|\b(?:choose|select|pick))\s*(?:option|choice|letter)?\s*[(\[\"']*$",
    re.IGNORECASE,
)
_ANSWER_CUE = re.compile(
    r"^\W*(?:(?:so|therefore|thus|hence),?\s+)?(?:the\s+|my\s+)?(?:final\s+|correct\s+|right\s+|best\s+)*answer"
    r"\s*(?:is\b\s*:?|:|=)\s*",
    re.IGNORECASE,
)
_STATEMENT = re.compile(r"\b(?:answer|choose|select|pick)\b", re.IGNORECASE)
#: After a stand-alone "A", these show that it is a letter; any other word shows that it is an article.
_NO_NOUN = re.compile(
    r"\s+(?:or|and|nor|is|was|because|since|as|but|while|for|rather|instead|over)\b", re.IGNORECASE
)
#: What states the option before it: "B is the correct answer".
_STATED_AFTER = re.compile(
    r"\W*(?:is|would\s+be|must\s+be)\s+(?:the\s+|my\s+)?(?:(?:final|correct|right|best)\b|answer\b)",
    re.IGNORECASE,
)
#: An option that is ruled out, not stated.
_DENIED_BEFORE = re.compile(r"(?:\bnot|n't|\bneither|\bnor|\bnever|\bexcept)\b[^.;]*$", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    r"\W*(?:is|was|can|does)(?:\s+not|n't|\s+(?:wrong|incorrect|false))\b", re.IGNORECASE
)


class _Label(NamedTuple):
    """A letter that stands alone in an answer, and how it is written."""

    letter: str
    start: int
    accepted: bool  #: written as an answer is, not merely mentioned
    statement: bool  #: "the answer is B": outweighs letters that were mentioned before it
    denied: bool  #: ruled out: neither stated nor in the way of another


def extract_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option that ``text`` states, or None.

    Thoughts are left out (``<think>…</think>``; of a thought that is never closed, nothing is read but a
    complete answer element that ends the text). The last ``<answer>…</answer>``, GLM box or LaTeX box is
    read, else what remains. There, these count: ``B``, ``B.``, ``(B)``, ``B: text``, ``Answer: B``, ``The
    correct answer is (B)``, ``option B``, ``B is the correct answer``, and the exact text of one option
    (case, spacing and punctuation aside).

    Args:
        text: a model's response, untrusted.
        options: letter -> text of the question at hand.

    Returns:
        A key of ``options``; None when no option or two different ones are stated.

    >>> options = {"A": "Yes.", "B": "No."}
    >>> extract_letter("<think>A crack?</think><answer>B</answer>", options), extract_letter("yes", options)
    ('B', 'A')
    >>> extract_letter("A scratch is visible.", options), extract_letter("A or B", options)
    (None, None)
    """
    answer = _EMPHASIS.sub("", _SPECIAL.sub(" ", _answer_part(text))).replace("\u2019", "'").strip()
    if not answer:
        return None
    uncued = _ANSWER_CUE.sub("", answer)
    bare = _BARE.fullmatch(answer) or _BARE.fullmatch(uncued)
    if bare and (found := bare[1].upper()) in options:
        return found
    labels = list(_labels(answer, options))
    stated = _exact_option(uncued, options)
    if stated is not None and not any(label.accepted for label in labels):
        return stated
    letter = _agreed(labels)
    if letter is None or letter not in options:
        return None
    return None if stated not in (None, letter) else letter


def read_letter(
    text: str, option_logprobs: Mapping[str, float] | None, options: Mapping[str, str], mode: Mode
) -> str | None:
    """The letter of a response in its answer mode.

    In ``logits`` mode it is the option with the highest log-probability, and none when two share it; in the
    other modes it is what :func:`extract_letter` reads.

    Raises:
        ValueError: ``logits`` mode, and an option has no log-probability.
    """
    if mode != "logits":
        return extract_letter(text, options)
    chances = {letter: (option_logprobs or {}).get(letter) for letter in options}
    known = {letter: chance for letter, chance in chances.items() if chance is not None and chance == chance}
    if len(known) < len(options):
        lacking = ", ".join(letter for letter in options if letter not in known)
        raise ValueError(f"the model gave no log-probability for option {lacking}")
    best = max(known.values())
    winners = [letter for letter, chance in known.items() if chance == best]
    return winners[0] if len(winners) == 1 else None


def _answer_part(text: str) -> str:
    """What follows the thoughts, narrowed to the last marked answer if there is one."""
    spoken = _THOUGHT.sub(" ", text)
    closing = list(_THOUGHT_CLOSES.finditer(spoken))
    if closing:  # the prompt opened the thought
        spoken = spoken[closing[-1].end() :]
    unclosed = _THOUGHT_OPENS.search(spoken)
    if unclosed:
        ending = list(_MARKED[0].finditer(spoken, unclosed.end()))
        if ending and not _SPECIAL.sub("", spoken[ending[-1].end() :]).strip():
            return ending[-1][1]
        spoken = spoken[: unclosed.start()]
    for marked in _MARKED:
        found = list(marked.finditer(spoken))
        if found:
            return next(group for group in found[-1].groups() if group is not None)
    opened = list(_ANSWER_OPENS.finditer(spoken))
    return spoken[opened[-1].end() :] if opened else spoken


def _labels(answer: str, options: Mapping[str, str]) -> Iterator[_Label]:
    """Every stand-alone letter of ``answer`` that is meant as an option, in order."""
    letters = set("ABCDE") | set(options)
    for match in _LETTER.finditer(answer):
        letter = match[1]
        before, after = answer[: match.start()], answer[match.end() :]
        line_before = before.rsplit("\n", 1)[-1]
        rest = after.split("\n", 1)[0]
        own_text = letter in options and _same(rest.lstrip(")].:, "), options[letter])
        if letter not in letters or (letter == "A" and _is_article(rest) and not own_text):
            continue
        opens_line = not line_before.strip("([\"' ")
        marked = bool(re.match(r"\s*[)\]]|[.:](?:\s|$)", rest)) or not rest.strip() or own_text
        bracketed = line_before.endswith("(") and rest.startswith(")")
        cued = bool(_CUE.search(line_before))
        confirmed = bool(_STATED_AFTER.match(rest))
        denied = bool(_DENIED_BEFORE.search(line_before) or _DENIED_AFTER.match(rest))
        yield _Label(
            letter,
            match.start(),
            accepted=not denied and ((opens_line and marked) or bracketed or cued or confirmed),
            statement=not denied
            and (confirmed or (cued and bool(_STATEMENT.search(_sentence(line_before))))),
            denied=denied,
        )


def _sentence(text: str) -> str:
    return re.split(r"[.!?]\s", text)[-1]


def _is_article(rest: str) -> bool:
    return bool(re.match(r"\s+[\w\"'(]", rest)) and not _NO_NOUN.match(rest)


def _agreed(labels: list[_Label]) -> str | None:
    """The one letter that the labels state: all of them, or all from the first statement on."""
    if len({label.letter for label in labels}) > 1:
        first = next((i for i, label in enumerate(labels) if label.statement), len(labels))
        labels = labels[first:]
    stated = {label.letter for label in labels if label.accepted}
    mentioned = {label.letter for label in labels if not label.denied}
    last = {label.letter: label for label in labels}
    if len(stated) != 1 or mentioned != stated:
        return None
    (letter,) = stated
    return None if last[letter].denied else letter


def _plain(text: str) -> str:
    """Case-folded words and digits, one space between them."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def _same(text: str, option: str) -> bool:
    return bool(_plain(text)) and _plain(text) == _plain(option)


def _exact_option(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose text is ``answer``, a leading label aside."""
    label = re.match(r"[(\[]?([A-Z])[)\]]?[.:)]\s+", answer)
    bodies = [answer, answer[label.end() :]] if label and label[1] in options else [answer]
    for body in bodies:
        same = [letter for letter, option in options.items() if _same(body, option)]
        if same:
            return same[0] if len(same) == 1 else None
    return None
