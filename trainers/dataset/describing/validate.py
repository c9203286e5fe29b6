"""What comes back from a describer is untrusted text: it is tidied, checked, and refused with a reason.

Nothing is repaired that would change what the text says. A refused text is asked for again or counted as
missing, and never kept.
"""

from __future__ import annotations

import enum
import re
import unicodedata
from dataclasses import dataclass

from harness.raw import TextKind
from trainers.dataset.describing.prompts import WORDS

MIN_WORDS = 5  #: of a text by a server; offline describers may be terser
#: Models overrun the limit they are told; beyond this many times the limit a text is refused.
OVERRUN = 2
#: So many words in a row that stand in our prompt are no coincidence.
REPEATED_WORDS = 10
#: Longer replies are not searched word by word.
MAX_CHARACTERS = 20_000


class Fault(enum.StrEnum):
    """Why a text is missing."""

    EMPTY = "empty"
    REFUSED = "refused"
    TOO_SHORT = "too-short"
    TOO_LONG = "too-long"
    CUT = "cut"  #: by the token limit
    NO_TEXT = "no-text"
    REPEATS_PROMPT = "repeats-prompt"
    MARKUP = "markup"
    CONTROL_CHARACTER = "control-character"
    SECRET = "secret"  #: the reply holds the key
    TIMED_OUT = "timed-out"
    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"  #: 429
    SERVER_ERROR = "server-error"  #: 5xx
    UNREADABLE = "unreadable"  #: the reply is no chat completion
    REJECTED = "rejected"  #: the server does not take this request
    NOT_ASKED = "not-asked"  #: the server had failed too often in a row


@dataclass(frozen=True, slots=True)
class Checked:
    """A text that passed, or why it did not."""

    text: str = ""
    fault: Fault | None = None
    reason: str = ""


_REASONING = re.compile(r"\A\s*<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
#: Some chat templates open the block themselves, so that the reply only closes it.
_REASONING_END = re.compile(r"\A(?:(?!<think).)*</think>", re.DOTALL | re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z|!][^<>]{0,200}>|```|\[/?INST\]|^\s{0,3}#{1,6}\s", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+", re.MULTILINE)
_EMPHASIS = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:i['\u2019]?m|i am) (?:very |really |truly |so )?(?:sorry|afraid|unable|not able)\b"
    r"|\A\W*(?:sorry|apologies|my apologies|unfortunately)\b"
    r"|\bi (?:can['\u2019]?t|can ?not|could ?n['\u2019]?t|won['\u2019]?t|will not|do not|don['\u2019]?t) "
    r"(?:assist|help|provide|describe|comply|fulfil|generate|create|write|see|view|access|process|analy[sz]e"
    r"|have access)\b"
    r"|\bas an ai\b|\blanguage model\b",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 300  #: characters; refusals stand at the beginning
_WORD = re.compile(r"\w+")
#: Control, format (bidirectional marks, zero width), surrogate and private characters; a replaced byte; an
#: image's place in a prompt.
_BAD_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BAD_CHARACTERS = "\ufffc\ufffd"


def check(
    reply: object,
    kind: TextKind,
    own: str,
    finish: str = "stop",
    secret: str = "",
    min_words: int = MIN_WORDS,
) -> Checked:
    """A reply as one clean paragraph, or the fault it has.

    Args:
        reply: what the describer gave.
        kind: of the text.
        own: our words in the prompt; the reply may not hold a long run of them.
        finish: why the model stopped; ``length`` means that the token limit cut it.
        secret: a key that the reply may not hold; a short one is none.
        min_words: the shortest text.
    """
    if not isinstance(reply, str):
        return Checked(fault=Fault.NO_TEXT, reason=f"the reply is {type(reply).__name__}, not text")
    if finish == "length":
        return Checked(fault=Fault.CUT, reason="the token limit cut it; raise --max-tokens")
    if finish == "content_filter":
        return Checked(fault=Fault.REFUSED, reason="the server's content filter withheld it")
    if len(secret) >= 8 and secret in reply:
        return Checked(fault=Fault.SECRET, reason="the reply holds the key")
    spoken = _REASONING_END.sub("", _REASONING.sub("", reply, count=1), count=1)
    bad = next((c for c in spoken if c not in "\t\n\r" and _unprintable(c)), None)
    if bad is not None:
        return Checked(fault=Fault.CONTROL_CHARACTER, reason=f"it holds the character U+{ord(bad):04X}")
    if len(spoken) > MAX_CHARACTERS:
        return Checked(fault=Fault.TOO_LONG, reason=f"it has {len(spoken):,} characters")
    tag = _TAG.search(spoken)
    if tag is not None:
        return Checked(fault=Fault.MARKUP, reason=f"it holds markup: {tag[0].strip()[:30]}")
    return _check_words(_tidy(spoken), kind, own, min_words)


def _check_words(text: str, kind: TextKind, own: str, min_words: int) -> Checked:
    words = len(text.split())
    if not text:
        return Checked(fault=Fault.EMPTY, reason="it is empty")
    if _REFUSAL.search(text[:_REFUSAL_WITHIN]):
        return Checked(fault=Fault.REFUSED, reason=f"it reads as a refusal: {text[:60]}")
    if words < min_words:
        return Checked(fault=Fault.TOO_SHORT, reason=f"it has {words} words, less than {min_words}")
    if words > OVERRUN * WORDS[kind]:
        return Checked(
            fault=Fault.TOO_LONG, reason=f"it has {words:,} words, more than {OVERRUN * WORDS[kind]}"
        )
    if _runs(text) & _runs(own):
        return Checked(fault=Fault.REPEATS_PROMPT, reason="it repeats the prompt")
    return Checked(text)


def _tidy(text: str) -> str:
    """One paragraph: emphasis, list markers and line breaks go, and quotation marks around the whole."""
    plain = " ".join(_BULLET.sub("", _EMPHASIS.sub(r"\1", text)).split())
    if len(plain) > 1 and plain[0] + plain[-1] in ('""', "''", "\u201c\u201d"):
        inner = plain[1:-1].strip()
        return inner if plain[0] not in inner and plain[-1] not in inner else plain
    return plain


def _unprintable(character: str) -> bool:
    return unicodedata.category(character) in _BAD_CATEGORIES or character in _BAD_CHARACTERS


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return {tuple(words[i : i + REPEATED_WORDS]) for i in range(len(words) - REPEATED_WORDS + 1)}
