"""The fixed questions of the conformance suite: drawn pictures, in memory, of nothing in particular."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from harness.records import Picture, Prompt, PromptGroup

_SYSTEM = "You are an industrial inspector who checks products by images."
_ASK = " Answer with the letter of the correct option, such as 'A', and nothing else."
_QUESTIONS = (
    ("Is there any defect in the object?", {"A": "Yes.", "B": "No."}),
    ("Where is it?", {"A": "Top left.", "B": "Bottom right.", "C": "Center.", "D": "There is none."}),
    ("What kind of product is it?", {"A": "A plate.", "B": "A ring.", "C": "A bottle of glass."}),
)


def drawing(number: int, size: tuple[int, int] = (96, 80), *, scratch: bool = False) -> Image.Image:
    """A plate with holes whose places depend on ``number``, scratched or not."""
    picture = Image.new("RGB", size, (40 + 37 * number % 60, 90, 110))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((8, 8, size[0] - 9, size[1] - 9), fill=(180, 176 - 9 * number % 40, 160))
    for corner in range(3):
        x, y = 18 + 23 * corner, 20 + (13 * number + 11 * corner) % 30
        pen.ellipse((x, y, x + 9, y + 9), fill=(50, 50, 60))
    if scratch:
        pen.line((14, size[1] - 20, size[0] - 18, 16 + number), fill=(90, 20, 20), width=2)
    return picture


def picture(number: int, *, scratch: bool = False) -> Picture:
    """A drawing as a model gets it."""
    pixels = drawing(number, (96 + 8 * (number % 3), 80), scratch=scratch)
    return Picture(hashlib.sha256(pixels.tobytes()).hexdigest(), pixels)


def prompts(name: str, count: int = 3) -> tuple[Prompt, ...]:
    """The questions of one group; two of them are shorter than the third."""
    lines = ("".join(f"{letter}. {text}\n" for letter, text in options.items()) for _, options in _QUESTIONS)
    return tuple(
        Prompt(
            hashlib.sha256(f"{name}{number}".encode()).hexdigest()[:16],
            f"\n\nQuestion: {question}\n{shown}",
            options,
            contrastive=False,
        )
        for number, ((question, options), shown) in enumerate(zip(_QUESTIONS[:count], lines, strict=False))
    )


def pair(number: int) -> PromptGroup:
    """A reference and a query that is scratched when ``number`` is odd."""
    reference, query = picture(number), picture(number + 1, scratch=number % 2 == 1)
    content = ("The first product is sound: ", reference, "\nThe second is to be inspected: ", query, _ASK)
    name = f"pair-{number}"
    return PromptGroup(_SYSTEM, content, (reference,), query, prompts(name), id=name)


def alone(number: int) -> PromptGroup:
    """A query without reference, and no system message."""
    query, name = picture(number, scratch=True), f"alone-{number}"
    return PromptGroup("", ("Query image: ", query, _ASK), (), query, prompts(name, 2), id=name)


def groups() -> tuple[PromptGroup, ...]:
    """What is asked in most checks: pairs and single images, of unequal lengths."""
    return (pair(0), alone(1), pair(3), pair(4))


def write_benchmark(root: Path) -> Path:
    """A benchmark folder of four images in MMAD's format, for a whole run."""
    table: dict[str, Any] = {}
    for number in range(4):
        sound = number % 2 == 0
        kind = "good" if sound else "scratch"
        key = f"DS-MVTec/plate/image/{kind}/{number:03}.png"
        asked = [("Anomaly Detection", 0, "B" if sound else "A"), ("Object Classification", 2, "A")]
        _save(root / key, drawing(number, scratch=not sound))
        table[key] = {
            "image_path": f"image/{kind}/{number:03}.png",
            "mask_path": None,
            "similar_templates": ["MVTec-AD/plate/train/good/000.png"],
            "random_templates": ["MVTec-AD/plate/train/good/000.png"],
            "conversation": [
                {
                    "Question": _QUESTIONS[which][0],
                    "Answer": answer,
                    "Options": _QUESTIONS[which][1],
                    "type": kind_of_question,
                }
                for kind_of_question, which, answer in asked
            ],
        }
    _save(root / "MVTec-AD/plate/train/good/000.png", drawing(7))
    texts = {"MVTec": {"plate": {"good": "A plate with three holes.", "scratch": "A dark red line."}}}
    (root / "domain_knowledge.json").write_text(json.dumps(texts), encoding="utf-8")
    (root / "mmad.json").write_text(json.dumps(table), encoding="utf-8")
    return root


def _save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    image.save(content, format="PNG")
    path.write_bytes(content.getvalue())
