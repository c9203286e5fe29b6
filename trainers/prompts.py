"""From samples to token ids and pixels, through the very protocol and prompt builder of the evaluation.

So a model is trained on exactly the prompts that it is asked. The one prompt that evaluation does not have is
the text-only sample's, in which a description stands in for the query image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from emit_model.processing import COMP_TOKEN
from harness.errors import BadInput
from harness.protocol import KNOWLEDGE_NAMES, Protocol, compiled
from harness.records import ImageFile, Item, Mode, Picture, PlannedGroup, Prompt, PromptGroup, Question
from plugins.engine.images import tile_pixels
from plugins.engine.prompts import PromptBuilder, tiles_text
from trainers.samples import Sample

#: What stands behind the references where there is no query image (paper, "Textual Data Generation").
TEXT_CONTENT = """\
{% if references %}The product shown above appears to be in perfect condition, free of any defects. \
{% endif %}\
To answer a multiple-choice question, please consider a product that is described as follows. \
There is only one correct option.
{{ description }}
{% if knowledge %}\
What is known about this product in normal condition, and about the defects that it may show:
{% for text in knowledge %}{{ text | trim }}
{% endfor %}\
{% endif %}\
{{ instruction }}"""


@dataclass(frozen=True, slots=True)
class Image:
    """One distinct image of a prompt, cut into tiles; the last tile shows all of it."""

    digest: str
    pixels: Tensor  #: (T, 3, S, S)


@dataclass(frozen=True, slots=True)
class TrainingPrompt:
    """Questions on one image pair, ready for the model: ``rows[i]`` is the i-th question's whole prompt.

    The first ``shared`` tokens of all rows are the same, and the images lie in them.
    """

    samples: tuple[Sample, ...]
    rows: tuple[tuple[int, ...], ...]
    shared: int
    images: tuple[Image, ...]  #: in the order shown: references, then the query
    references: int  #: how many of ``images`` are references
    contrastive: tuple[bool, ...]  #: whether a row holds EMIT's placeholders

    @property
    def id(self) -> str:
        """Names the first question, for messages and seeds."""
        return self.samples[0].id


@dataclass(frozen=True, slots=True)
class Opened:
    """Samples whose images are in memory, cut into tiles."""

    samples: tuple[Sample, ...]
    group: PromptGroup
    images: tuple[Image, ...]


class PromptMaker:
    """Makes prompts for a model's processor.

    Args:
        processor: of the model.
        protocol: prompts, instructions and which subtasks are contrastive.
        placeholders: how many ``<COMP_CONTEXT>`` a contrastive prompt holds.
        tiles: most tiles an image is cut into.
    """

    def __init__(self, processor: Any, protocol: Protocol, placeholders: int, tiles: int) -> None:
        self.processor = processor
        self.protocol = protocol
        self.addition = COMP_TOKEN * placeholders
        self.tiles = tiles
        late = processor.tokenizer.convert_tokens_to_ids(COMP_TOKEN)
        self.builder = PromptBuilder(processor, late)

    def open(self, samples: Sequence[Sample], mode: Mode) -> Opened:
        """Read and cut the images of samples on one image pair; safe in a thread of its own.

        Raises:
            BadInput: an image is broken, or the samples do not share one prompt's images.
        """
        group = plan(self.protocol, samples, mode).load()
        pictures = [part for part in group.content if isinstance(part, Picture)]
        images = [Image(one.digest, tile_pixels(self.processor, one, self.tiles)) for one in pictures]
        return Opened(tuple(samples), group, tuple(images))

    def make(self, opened: Opened) -> TrainingPrompt:
        """The prompt of opened samples. Tokenizers are not for several threads: call it from one."""
        group = opened.group
        texts = {image.digest: tiles_text(self.processor, len(image.pixels)) for image in opened.images}
        flags = tuple(bool(self.addition) and prompt.contrastive for prompt in group.prompts)
        tokens = self.builder.build(group, texts, [self.addition if flag else "" for flag in flags])
        return TrainingPrompt(
            opened.samples, tokens.rows, tokens.shared, opened.images, len(group.references), flags
        )

    def answer_ids(self, text: str) -> tuple[int, ...]:
        """An answer to learn, with the token that ends a turn."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return (*(int(token) for token in ids), int(tokenizer.eos_token_id))


def plan(protocol: Protocol, samples: Sequence[Sample], mode: Mode) -> PlannedGroup:
    """The prompts of samples on one image pair, before their images are opened.

    Raises:
        BadInput: the samples do not share one prompt's images.
    """
    protocol = replace(protocol, mode=mode, shots=len(samples[0].references))
    return _described(protocol, samples) if samples[0].query is None else _planned(protocol, samples)


def _planned(protocol: Protocol, samples: Sequence[Sample]) -> PlannedGroup:
    """The group that evaluation would ask."""
    first = samples[0]
    assert first.query is not None
    item = _item(samples, first.query)
    texts = {str(number): text for number, text in enumerate(first.knowledge)}
    planned = protocol.plan(item, {KNOWLEDGE_NAMES.get(item.dataset, item.dataset): {item.object: texts}})
    if len(planned) != 1:
        raise BadInput(f"sample {first.id}: its questions show different images; they cannot share a prompt")
    return planned[0]


def _item(samples: Sequence[Sample], image: Path) -> Item:
    first = samples[0]
    questions = tuple(
        Question(number, sample.question, sample.options, sample.answer, sample.task, sample.task)
        for number, sample in enumerate(samples)
    )
    return Item(first.id, first.dataset, first.object, image, (), first.references, (), questions)


def _described(protocol: Protocol, samples: Sequence[Sample]) -> PlannedGroup:
    """A text-only group; no contrastive tokens, for there is no query image to compare."""
    first = samples[0]
    pictures = [ImageFile(path) for path in first.references]
    content: list[str | ImageFile] = []
    for number, picture in enumerate(pictures, 1):
        content += [f"Image-{number}: ", picture, "\n"]
    text = compiled(TEXT_CONTENT).render(
        references=bool(pictures),
        description=first.description,
        knowledge=first.knowledge,
        instruction=protocol.instructions[protocol.mode],
    )
    question = compiled(protocol.question)
    prompts = tuple(
        Prompt(
            sample.id,
            question.render(question=sample.question, options=tuple(sample.options.items())),
            sample.options,
            contrastive=False,
        )
        for sample in samples
    )
    if not pictures:
        raise BadInput(
            f"sample {first.id}: a text-only sample needs a reference image beside its description"
        )
    item = _item(samples, first.references[0])
    return PlannedGroup(
        item, protocol.system, (*content, text), tuple(pictures), pictures[0], prompts, item.questions
    )
