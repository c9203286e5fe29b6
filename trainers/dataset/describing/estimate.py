"""What a run would ask a server for, without asking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.images import check_header
from harness.raw import TextKind
from plugins.server.pictures import fitted
from trainers.dataset.describing.plan import Plan, Task, with_context
from trainers.dataset.describing.prompts import WORDS, chat, knowledge_entry

_CHARACTERS_PER_TOKEN = 4  #: English text
_CHARACTERS_PER_WORD = 6  #: with its space
_PIXELS_PER_TOKEN = 28  #: a side, as Qwen2.5-VL counts


@dataclass(frozen=True, slots=True)
class Estimate:
    """Calls, and roughly their tokens."""

    calls: int = 0
    images: int = 0  #: sent, masks among them; one that is sent twice counts twice
    text_tokens: int = 0
    image_tokens: int = 0
    reply_tokens: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.calls + other.calls,
            self.images + other.images,
            self.text_tokens + other.text_tokens,
            self.image_tokens + other.image_tokens,
            self.reply_tokens + other.reply_tokens,
        )


def estimate(plan: Plan, max_side: int) -> dict[TextKind, Estimate]:
    """Kind of text -> what its calls come to, when every text passes at the first attempt.

    A prompt has a token for every 4 characters, a picture one for every 28 x 28 pixels begun at the size it
    is sent in, a reply one for every 4 characters at 6 characters a word and the most words allowed. Defect
    texts that will be told to the writer of normal knowledge count as such replies: they are not there yet.
    """
    total = dict.fromkeys(TextKind, Estimate())
    expected = _Expected(plan.first)
    for task in (*plan.first, *map(expected.told, plan.second)):
        total[task.request.kind] += _of_task(task, max_side)
    return total


class _Expected:
    """Defect texts that will be there when normal knowledge is asked for, as words without meaning."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.entries: dict[tuple[str, str], list[str]] = {}
        for task in tasks:
            asked = task.request
            if asked.kind == TextKind.DEFECT_KNOWLEDGE:
                text = "x" * (WORDS[asked.kind] * _CHARACTERS_PER_WORD)
                key = (asked.dataset, asked.object)
                self.entries.setdefault(key, []).append(knowledge_entry(asked.words, text))

    def told(self, task: Task) -> Task:
        return with_context(task, self.entries.get((task.request.dataset, task.request.object), ()))


def _of_task(task: Task, max_side: int) -> Estimate:
    said = chat(task.request)
    pixels = 0
    for picture in said.pictures:
        width, height = fitted(*check_header(picture.path), max_side)
        pixels += -(-width // _PIXELS_PER_TOKEN) * -(-height // _PIXELS_PER_TOKEN)
    return Estimate(
        calls=1,
        images=len(said.pictures),
        text_tokens=-(-len(said.system + said.text) // _CHARACTERS_PER_TOKEN),
        image_tokens=pixels,
        reply_tokens=WORDS[task.request.kind] * _CHARACTERS_PER_WORD // _CHARACTERS_PER_TOKEN,
    )
