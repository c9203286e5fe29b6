"""What a vision-language model is asked, for each of the four kinds of text.

The wording is this project's own; what is shown and asked follows figures 5 and 6 of the paper. Everything
here that decides a text is in :func:`prompts_digest`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.keys import digest_of
from harness.protocol import compiled
from harness.raw import TextKind, TextRequest

SYSTEM = (
    "You are a quality engineer and write short factual texts for the inspection of industrial products. "
    "Write plain English prose: a single paragraph without headings, lists, Markdown, tags or quotation "
    "marks, and nothing before or after it."
)

#: The longest text asked for, in words.
WORDS = {
    TextKind.DEFECT_KNOWLEDGE: 80,
    TextKind.NORMAL_KNOWLEDGE: 100,
    TextKind.DEFECT_TEXT: 120,
    TextKind.NORMAL_TEXT: 100,
}

#: What a text on the same image starts with, so that several of them differ.
ASPECTS = (
    "its shape and outline",
    "its surface and material",
    "its colours",
    "its parts and how they are arranged",
    "its position and the background",
)

_KNOWN = """\
{% if context %}
{{ lead }}
{% for text in context %}{{ text }}
{% endfor %}{% endif %}"""

TEMPLATES = {
    TextKind.DEFECT_KNOWLEDGE: """\
Product: {{ noun }}
Kind of defect: {{ words }}

Picture 1 is an intact product, picture 2 one with this kind of defect.\
{% if masked %} Picture 3 marks the defect of picture 2 in white.{% endif %}

Write the entry of an inspection manual by which somebody who has never seen this kind of defect recognises \
it on any other {{ noun }}: the shape, colour, texture and size it usually has, the parts it can affect, and \
what sets it apart from an intact surface. Characterise the kind of defect, not this single case: leave out \
the pictures, the mask and the place where the defect happens to be. Use at most {{ limit }} words.""",
    TextKind.NORMAL_KNOWLEDGE: """\
Product: {{ noun }}

The picture is an intact product.
""" + _KNOWN + """\

Write the entry of an inspection manual on the normal condition, true of every intact {{ noun }}: its shape, \
colours, surface and parts, how these are arranged, and which differences between intact products are \
harmless.{% if context %} Dwell on the features by which one sees that none of the defects above is there, \
without naming a defect.{% endif %} Leave out the picture. Use at most {{ limit }} words.""",
    TextKind.DEFECT_TEXT: """\
Product: {{ noun }}
Defect: {{ words or "as characterised below" }}
Place of the defect: {{ place }}, in a grid of three rows and three columns over the whole picture

The picture is an intact product.
""" + _KNOWN + """\

Imagine that this product, lying in just the same way, had the defect at that place. Write what one would \
see. Start with {{ aspect }}, then say what the defect looks like there, with its shape, colour and size, \
and that it is at the {{ place }}; everything else is as in the picture. State it as a fact about the \
product in front of you: no word about imagining, pictures, photographs, cameras or descriptions. Use at \
most {{ limit }} words.""",
    TextKind.NORMAL_TEXT: """\
Product: {{ noun }}

The picture is an intact product.

Write what one sees. Start with {{ aspect }}, then cover the rest of its appearance, and say that it is \
intact. State it as a fact about the product in front of you: no word about pictures, photographs, cameras \
or descriptions. Use at most {{ limit }} words.""",
}  # fmt: skip

_LEADS = {
    TextKind.NORMAL_KNOWLEDGE: "Known defects of this product:",
    TextKind.DEFECT_TEXT: "What is known of this defect:",
}
_HEADED = re.compile(r"\s*<(?P<title>[^<>]*)>\s*Description:\s*")


@dataclass(frozen=True, slots=True)
class Picture:
    """An image to show, or the masks of one at its size."""

    path: Path
    masks: tuple[Path, ...] = ()  #: given: the picture is these masks, merged by maximum


@dataclass(frozen=True, slots=True)
class Chat:
    """One request as a model sees it."""

    system: str
    pictures: tuple[Picture, ...]
    text: str  #: follows the pictures
    own: str  #: our words in it, without the texts quoted: a reply may repeat those, but not ours


def chat(request: TextRequest) -> Chat:
    """The chat that asks for a text."""
    pictures = tuple(Picture(path) for path in request.images)
    if request.masks:
        pictures += (Picture(request.images[-1], request.masks),)
    context = tuple(_plain(text) for text in request.context)
    return Chat(SYSTEM, pictures, _fill(request, context), f"{SYSTEM} {_fill(request, ())}")


def caption(number: int, count: int) -> str:
    """What stands before a picture."""
    return f"Picture {number}:" if count > 1 else "Picture:"


def knowledge_entry(title: str, text: str) -> str:
    r"""A text as MMAD's knowledge file holds it.

    >>> knowledge_entry("bent lead", "A lead is bent.")
    ' <Bent lead>\n Description: A lead is bent.'
    """
    return f" <{title[:1].upper()}{title[1:]}>\n Description: {text}"


def prompts_digest() -> str:
    """SHA-256 of all wording, in hex."""
    return digest_of([SYSTEM, TEMPLATES, WORDS, ASPECTS, _LEADS])


def _fill(request: TextRequest, context: tuple[str, ...]) -> str:
    values: dict[str, Any] = {
        "noun": request.noun,
        "words": request.words,
        "place": request.place,
        "masked": bool(request.masks),
        "context": context,
        "lead": _LEADS.get(request.kind, ""),
        "aspect": ASPECTS[request.number % len(ASPECTS)],
        "limit": WORDS[request.kind],
    }
    return compiled(TEMPLATES[request.kind]).render(**values)


def _plain(entry: str) -> str:
    """A knowledge entry on one line, its title without brackets: a model would copy them."""
    return " ".join(_HEADED.sub(lambda match: f"{match['title']}: ", entry).split())
