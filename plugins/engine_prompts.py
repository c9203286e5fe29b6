"""From a prompt group to token ids, and how much of them its prompts share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from harness.errors import BadInput
from harness.records import Picture, PromptGroup


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
        processor: of InternVL or EMIT.
        late_token: id that may only stand after the shared prefix (EMIT's placeholder).
    """

    def __init__(self, processor: Any, late_token: int | None = None) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.late_token = late_token
        self.control = _control_tokens(processor)
        self.control_ids = frozenset(self.tokenizer.convert_tokens_to_ids(sorted(self.control)))

    def build(self, group: PromptGroup, tiles: Mapping[str, int], additions: Sequence[str]) -> Tokens:
        """Token ids of every prompt of the group.

        Args:
            group: the prompts.
            tiles: digest of a picture -> how many tiles it is encoded as.
            additions: one text a prompt, put behind its question (EMIT's placeholders).

        Raises:
            BadInput: a text of the benchmark or protocol holds one of the model's control tokens.
        """
        self._refuse_control_tokens(
            [group.system, *(part for part in group.content if isinstance(part, str))]
        )
        self._refuse_control_tokens(prompt.text for prompt in group.prompts)
        pictures = [part for part in group.content if isinstance(part, Picture)]
        counts = [tiles[picture.digest] for picture in pictures]
        rows = tuple(
            self._row(group, prompt.text + addition, counts)
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

    def _row(self, group: PromptGroup, question: str, counts: Sequence[int]) -> tuple[int, ...]:
        user = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in (*group.content, question)
        ]
        messages = [{"role": "user", "content": user}]
        if group.system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": group.system}]})
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pieces = text.split(self.processor.image_token)
        if len(pieces) != len(counts) + 1:
            raise BadInput(
                f"the model's chat template shows {len(pieces) - 1} image(s) where {len(counts)} are given; "
                "its chat_template.jinja does not fit this protocol"
            )
        images = [self._image_text(count) for count in counts] + [""]
        whole = "".join(piece + image for piece, image in zip(pieces, images, strict=True))
        return tuple(self.tokenizer(whole, add_special_tokens=False)["input_ids"])

    def _image_text(self, tiles: int) -> str:
        inner = self.processor.image_token * (self.processor.image_seq_length * tiles)
        return f"{self.processor.start_image_token}{inner}{self.processor.end_image_token}"

    def _shared(self, rows: Sequence[Sequence[int]]) -> int:
        """Length of the common prefix: every row keeps a token, and images are in it all or not at all."""
        same = takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
        shared = min(sum(1 for _ in same), min(map(len, rows)) - 1)
        first = rows[0][:shared]
        if self.late_token in first:
            shared = first.index(self.late_token)
        image = self.processor.image_token_id
        return 0 if any(image in row[shared:] for row in rows) else shared

    def _refuse_control_tokens(self, texts: Iterable[str]) -> None:
        for text in texts:
            for token in self.control:
                if token in text:
                    raise BadInput(
                        f"a prompt text holds the model's control token {token!r} ({text[:60]!r}...); "
                        "remove it from the benchmark or the protocol"
                    )


def _control_tokens(processor: Any) -> frozenset[str]:
    """Special tokens with a meaning in prompts: images, placeholders, turns. Not, say, ``<think>``."""
    tokenizer = processor.tokenizer
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    template = processor.chat_template or ""
    structural = {token for token in special if token in template}
    named = {
        processor.image_token,
        processor.start_image_token,
        processor.end_image_token,
        processor.video_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
        tokenizer.bos_token,
        "<COMP_CONTEXT>",
    }
    return frozenset(structural | (named & special))
