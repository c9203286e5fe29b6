"""From a prompt group to token ids, and how much of them its prompts share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from harness.errors import BadInput
from harness.records import Picture, PromptGroup

#: Attributes of processors that name tokens with a meaning in prompts; each has some of them.
_NAMED = (
    *("image_token", "start_image_token", "end_image_token", "video_token"),
    *("boi_token", "eoi_token", "image_break_token", "image_end_token"),
)


@dataclass(frozen=True)
class Tokens:
    """The token ids of a group's prompts; the first ``shared`` of each are the same."""

    rows: tuple[tuple[int, ...], ...]
    shared: int


class PromptBuilder:
    """Writes a group's prompts with the model's own chat template and tokenizes them.

    Whole prompts are tokenized and compared as ids, so a token that straddles the end of the shared text
    cannot be split where the model has never seen it split.

    Args:
        processor: of the model.
        late_token: id that may only stand after the shared prefix (EMIT's placeholder).
        keep: control tokens that stay in an answer's text.
    """

    def __init__(self, processor: Any, late_token: int | None = None, keep: Sequence[str] = ()) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.late_token = late_token
        self.placeholder = placeholder_of(processor)
        self.control = _control_tokens(processor) - frozenset(keep)
        self.control_ids = frozenset(self.tokenizer.convert_tokens_to_ids(sorted(self.control)))

    def text(
        self, group: PromptGroup, question: str, images: Mapping[str, str] | None = None, opening: str = ""
    ) -> str:
        """One prompt of a group as text.

        Args:
            group: the prompt's group.
            question: the prompt's own text.
            images: digest of a picture -> the text that stands for it; the template's own mark unless given.
            opening: what the answer is made to begin with.

        Raises:
            BadInput: the chat template does not show the images.
        """
        parts = (*group.content, question)
        counts = sum(isinstance(part, Picture) for part in parts)
        text = self._raw(parts) if group.raw else self._chat(group.system, parts)
        pieces = (text + opening).split(self.placeholder)
        if len(pieces) != counts + 1:
            raise BadInput(
                f"the model's chat template shows {len(pieces) - 1} image(s) where {counts} are given; "
                "its chat_template.jinja does not fit this protocol"
            )
        if images is None:
            return text + opening
        shown = [images[part.digest] for part in parts if isinstance(part, Picture)]
        return "".join(piece + image for piece, image in zip(pieces, [*shown, ""], strict=True))

    def build(
        self, group: PromptGroup, images: Mapping[str, str], additions: Sequence[str], opening: str = ""
    ) -> Tokens:
        """Token ids of every prompt of the group.

        Args:
            group: the prompts.
            images: digest of a picture -> the text that stands for it, a token an embedding.
            additions: one text a prompt, put behind its question (EMIT's placeholders).
            opening: what every answer is made to begin with.

        Raises:
            BadInput: a text of the benchmark or protocol holds one of the model's control tokens.
        """
        self.refuse_control_tokens(group)
        rows = tuple(
            tuple(
                self.tokenizer(
                    self.text(group, prompt.text + addition, images, opening), add_special_tokens=False
                )["input_ids"]
            )
            for prompt, addition in zip(group.prompts, additions, strict=True)
        )
        return Tokens(rows, self._shared(rows))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens without the chat's control tokens."""
        return str(self.tokenizer.decode([token for token in ids if token not in self.control_ids]))

    def letter_id(self, letter: str) -> int | None:
        """Id of an option's bare letter, or None when the tokenizer has no single token for it."""
        ids = self.tokenizer(letter, add_special_tokens=False)["input_ids"]
        return int(ids[0]) if len(ids) == 1 else None

    def refuse_control_tokens(self, group: PromptGroup) -> None:
        """Raises :class:`BadInput` where a text of the group would be read as part of the chat's frame."""
        content = [part for part in group.content if isinstance(part, str)]
        for text in (group.system, *content, *(prompt.text for prompt in group.prompts)):
            for token in self.control:
                if token in text:
                    raise BadInput(
                        f"a prompt text holds the model's control token {token!r} ({text[:60]!r}...); "
                        "remove it from the benchmark or the protocol"
                    )

    def _raw(self, parts: Iterable[str | Picture]) -> str:
        """Without a chat's frame: what a model that was trained on bare texts reads."""
        return "".join(part if isinstance(part, str) else self.placeholder for part in parts)

    def _chat(self, system: str, parts: Iterable[str | Picture]) -> str:
        user = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts
        ]
        messages = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
        return str(self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _shared(self, rows: Sequence[Sequence[int]]) -> int:
        """Length of the common prefix: every row keeps a token, and images are in it all or not at all."""
        same = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
        shared = min(sum(1 for _ in same), min(map(len, rows)) - 1)
        first = rows[0][:shared]
        if self.late_token in first:
            shared = first.index(self.late_token)
        image = self.processor.image_token_id
        return 0 if any(image in row[shared:] for row in rows) else shared


def placeholder_of(processor: Any) -> str:
    """What a chat template writes where an image stands: Gemma's opens it, for others it is its token."""
    return str(getattr(processor, "boi_token", None) or processor.image_token)


def tiles_text(processor: Any, tiles: int) -> str:
    """What stands for an image of InternVL or EMIT in a prompt, given how many tiles it is cut into."""
    inner = processor.image_token * (processor.image_seq_length * tiles)
    return f"{processor.start_image_token}{inner}{processor.end_image_token}"


def _control_tokens(processor: Any) -> frozenset[str]:
    """Special tokens with a meaning in prompts: images, placeholders, turns. Not, say, ``<think>``."""
    tokenizer = processor.tokenizer
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    template = processor.chat_template or ""
    structural = {token for token in special if token in template}
    named: set[str | None] = {getattr(processor, name, None) for name in _NAMED}
    named |= {tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token, "<COMP_CONTEXT>"}
    return frozenset(structural | {token for token in special if token in named})
