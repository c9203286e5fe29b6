"""What the page's script reads: compact columns over all questions, and their details in packed chunks.

Columns are what filters and lists look at: one character or small number a question, dictionary-coded. What
is only looked at when a question is opened (options, responses, log-probabilities, pictures) lies in chunks
of :data:`CHUNK` questions, compressed, which the page unpacks when they are wanted.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.records import Answer
from harness.subtasks import SUBTASK_KEYS
from reports.explorer.catalogue import Catalogue
from reports.explorer.groups import Dimension
from reports.explorer.pictures import NOTHING, Shown
from reports.explorer.places import NORMAL

CHUNK = 512  #: questions
LIMIT = 4000  #: characters of a text; the page says how many more there were
_LETTERS = frozenset("ABCDE")
_LEVEL = 4  #: of compression: six times as fast as the usual one on responses, a tenth larger
#: What ends a script element, begins a comment in one, or is a line break to some readers of JavaScript.
_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def columns(
    catalogue: Catalogue, dimensions: Sequence[Dimension], shown: Mapping[str, Shown]
) -> dict[str, Any]:
    """What filters and lists look at.

    Args:
        catalogue: the questions.
        dimensions: ways to group the images.
        shown: key -> what is known of the image's looks.
    """
    looks = [shown.get(key, NOTHING) for key in catalogue.images]
    counts = [0] * len(catalogue.images)
    for image in catalogue.image_of:
        counts[image] += 1
    return {
        "groups": {
            d.key: {"title": d.title, "labels": list(d.labels), "of": list(d.group)} for d in dimensions
        },
        "images": {
            "key": list(catalogue.images),
            "normal": "".join("1" if place.kind == NORMAL else "0" for place in catalogue.places),
            "area": [None if look.area is None else round(look.area, 6) for look in looks],
            "size": [look.size for look in looks],
            "questions": counts,
        },
        "questions": {
            "number": [question.number for question in catalogue.questions],
            "subtask": "".join(str(SUBTASK_KEYS.index(question.subtask)) for question in catalogue.questions),
            "correct": "".join(_letter(question.correct) for question in catalogue.questions),
        },
        "letters": ["".join(_letter(a.letter if a else None) for a in given) for given in catalogue.answers],
        "states": list(catalogue.states),
    }


def _letter(letter: str | None) -> str:
    return letter if letter in _LETTERS else "-"


def wordings(catalogue: Catalogue) -> dict[str, Any]:
    """The questions' texts, each once: what the list shows and the search looks through."""
    texts: dict[str, int] = {}
    places = [texts.setdefault(q.question[:LIMIT], len(texts)) for q in catalogue.questions]
    return {"texts": list(texts), "of": places}


def chunks(catalogue: Catalogue, shown: Mapping[str, Shown]) -> list[str]:
    """Packed details of each :data:`CHUNK` questions, in order."""
    starts = range(0, len(catalogue.questions), CHUNK)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # compressing lets go of the interpreter
        return list(pool.map(lambda start: pack(_details(catalogue, shown, start)), starts))


def _details(catalogue: Catalogue, shown: Mapping[str, Shown], start: int) -> dict[str, Any]:
    inside = range(start, min(start + CHUNK, len(catalogue.questions)))
    images = dict.fromkeys(catalogue.image_of[place] for place in inside)
    return {
        "images": {str(i): _pictures(shown.get(catalogue.images[i], NOTHING)) for i in images},
        "questions": [
            {
                "options": [[k, v[:LIMIT]] for k, v in catalogue.questions[place].options.items()],
                "said": [_said(given[place]) for given in catalogue.answers],
            }
            for place in inside
        ],
    }


def _pictures(look: Shown) -> dict[str, Any]:
    found = {
        "query": look.query,
        "references": list(look.references),
        "mask": look.mask,
        "heat": [list(heat) for heat in look.heat],
    }
    return {name: value for name, value in found.items() if value}


def _said(answer: Answer | None) -> list[Any] | None:
    """What one entry said: text, characters cut from it, tokens, reason, log-probabilities by letter."""
    if answer is None:
        return None
    text, reason, logs = answer.text, answer.reason, answer.option_logprobs or {}
    finite = {letter: round(value, 4) for letter, value in logs.items() if math.isfinite(value)}
    return [text[:LIMIT], max(0, len(text) - LIMIT), answer.completion_tokens, reason[:LIMIT], finite]


def pack(content: Any) -> str:
    """JSON, compressed, in base64: no text in it can be anything but data. The same for the same content."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), _LEVEL, mtime=0)).decode()


def inert(content: Any) -> str:
    """JSON that may stand in a script element, whatever texts are in it."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.translate(_UNSAFE)
