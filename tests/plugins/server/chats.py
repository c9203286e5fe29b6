"""Groups to ask about, and servers that look at the pictures before they answer."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterable
from typing import Any

from PIL import Image

from harness.records import Decoding, GroupResult, Picture, Prompt, PromptGroup, Unit
from plugins.checkpoint import Chat
from plugins.server.client import Asking, Client
from plugins.server.endpoint import Endpoint
from plugins.server.model import ServedModel
from plugins.server.settings import Images, Settings
from tests.servers import Act, Asked, Server, reply, status

KEY = "sk-do-not-tell-anyone"
OPTIONS = {"A": "Yes.", "B": "No.", "C": "Perhaps.", "D": "Never."}
DIRECT = Decoding("direct", 16)
LOGITS = Decoding("logits", 1)
THINK = Decoding("think", 512)
_LETTERS = re.compile(r"^([A-E])\. ", re.MULTILINE)


def picture(number: int, size: tuple[int, int] = (24, 16)) -> Picture:
    """A small picture of its own."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 60))
    image.putpixel((number % size[0], number % size[1]), (255, 255, 255))
    return Picture(f"digest-{number}", image)


def group(number: int, questions: int = 3, **changes: Any) -> PromptGroup:
    """A pair of pictures with some questions."""
    reference, query = picture(1000 + number), picture(number)
    letters = "".join(f"{letter}. {text}\n" for letter, text in OPTIONS.items())
    prompts = tuple(
        Prompt(f"{number}-{i}", f"\n\nQuestion: is it {i}?\n{letters}", OPTIONS, False)
        for i in range(questions)
    )
    given: dict[str, Any] = {
        "system": "You inspect products.",
        "content": ("Image-1: ", reference, "\nImage-2: ", query, "\nAnswer with a letter."),
        "references": (reference,),
        "query": query,
        "prompts": prompts,
        "id": f"group-{number}",
    }
    return PromptGroup(**{**given, **changes})


def units(count: int, size: int = 2, questions: int = 3) -> list[Unit]:
    """Groups in units, numbered through."""
    groups = [group(number, questions) for number in range(count * size)]
    return [groups[start : start + size] for start in range(0, len(groups), size)]


def unpacked(url: str) -> Image.Image:
    """The picture of a data URL."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def letter_for(image: Image.Image, words: str) -> str:
    """A letter drawn from pixels and question; what stands before the question counts for nothing."""
    question = words.rpartition("Question: ")[2]
    seen = hashlib.sha256(image.convert("RGB").tobytes() + question.encode()).digest()
    letters = _LETTERS.findall(question)
    return str(letters[seen[0] % len(letters)])


def expected(asked: PromptGroup) -> list[str]:
    """What :func:`looks` answers to a group."""
    return [letter_for(asked.query.pixels, prompt.text) for prompt in asked.prompts]


def looks(number: int, asked: Asked) -> Act:
    """The letter that belongs to the last picture and the question, after the mode's manner."""
    letter = letter_for(unpacked(asked.pictures[-1]), asked.words)
    if asked.body.get("logprobs"):
        return chances({letter: -0.1, **{other: -3.0 for other in "ABCDE" if other != letter}})
    return reply(f"{letter}.")


def chances(found: dict[str, float]) -> Act:
    """A reply of one token, with log-probabilities."""
    listed = [{"token": token, "logprob": chance, "bytes": None} for token, chance in found.items()]
    first = {**max(listed, key=lambda row: row["logprob"]), "top_logprobs": listed}
    choice = {
        "message": {"role": "assistant", "content": first["token"]},
        "finish_reason": "length",
        "logprobs": {"content": [first]},
    }
    usage = {"prompt_tokens": 100, "completion_tokens": 1}
    return status(200, {"choices": [choice], "usage": usage})


def model(*servers: Server | str, images: Images | None = None, **changes: Any) -> ServedModel:
    """A model behind test servers, which is impatient unless told otherwise."""
    prices = changes.pop("prices", None)
    room = changes.pop("room", None)
    urls = [one if isinstance(one, str) else one.url for one in servers]
    asking = Asking(**{"timeout": 5.0, "tries": 3, "pause": 0.01, "concurrency": 8, **changes})
    settings = Settings(
        model="vlm",
        images=images or Images(),
        endpoints=tuple(
            Endpoint(f"{url}/v1/chat/completions", "vlm", KEY, "--base-url", "--weights served=NAME")
            for url in urls
        ),
        asking=asking,
        prices=prices,
    )
    return ServedModel(settings, Chat(room=room or {}), Client(settings.endpoints, asking))


def results(asking: ServedModel, units: Iterable[Unit], decoding: Decoding = DIRECT) -> list[GroupResult]:
    """Everything that the model gives, in its order; the model is closed."""
    try:
        return [result for together in asking.stream(units, decoding) for result in together]
    finally:
        asking.close()
