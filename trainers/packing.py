"""One packed row ``[prefix | q1 | r11 | r12 … | q2 | r21 …]`` for everything on an image pair.

A question attends to the prefix and to itself, a response to the prefix, to its question and to itself, and
positions go on where what a token sees ends: the row computes what separate rows would, at a fraction of the
tokens. With one response a question it is a supervised row; with an empty question it is the responses to the
prefix. No key-value cache takes part, for gradient checkpointing would drop it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch

Attention = Literal["sdpa", "flex_attention"]


@dataclass(frozen=True, slots=True)
class Suffix:
    """One question after the shared prefix: tokens that are given, and tokens to be learnt."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def responses(self) -> tuple[tuple[int, ...], ...]:
        """Its one answer."""
        return (self.completion,)


@dataclass(frozen=True, slots=True)
class Branch:
    """One question after the shared prefix, with several responses that do not see each other."""

    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of equal length.

    ``rows[i], columns[i]`` is a position whose next token is ``targets[i]``; ``owners[i]`` numbers its
    response within the batch, in order.
    """

    input_ids: torch.Tensor  #: (B, T)
    position_ids: torch.Tensor  #: (B, T)
    segment: torch.Tensor  #: (B, T): 0 the prefix, from 1 questions and responses in order, -1 padding
    parent: torch.Tensor  #: (B, T): the segment that a token's own goes on from
    rows: torch.Tensor  #: (N,)
    columns: torch.Tensor  #: (N,)
    targets: torch.Tensor  #: (N,)
    owners: torch.Tensor  #: (N,)

    def to(self, device: torch.device) -> PackedBatch:
        """The same on another device."""
        return PackedBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


class _Row:
    """One row in the making."""

    def __init__(self, prefix: Sequence[int]) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[int] = []
        self.parents: list[int] = []
        self.answers: list[tuple[int, int, int]] = []  #: column, next token, response's number in the row
        self.responses = 0
        self._next = 0
        self.add(prefix, 0, 0)

    def add(self, tokens: Sequence[int], parent: int, position: int) -> int:
        """Append a segment that begins at a position; returns its number."""
        number, self._next = self._next, self._next + 1
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))
        self.segments += [number] * len(tokens)
        self.parents += [parent] * len(tokens)
        return number

    def question(self, suffix: Suffix | Branch, prefix: int) -> None:
        """Append a question and its responses."""
        own = self.add(suffix.prompt, 0, prefix)
        # Without a prompt of its own, the prefix predicts the first token, wherever the response lies.
        last = len(self.tokens) - 1 if suffix.prompt else prefix - 1
        for response in suffix.responses:
            start = len(self.tokens)
            self.add(response, own, prefix + len(suffix.prompt))
            for place, token in enumerate(response):
                self.answers.append((start + place - 1 if place else last, token, self.responses))
            self.responses += 1


def pack(rows: Sequence[tuple[Sequence[int], Sequence[Suffix | Branch]]], pad: int) -> PackedBatch:
    """Pack ``(prefix, suffixes)`` rows into one batch, right-padded with ``pad``."""
    made = []
    for prefix, suffixes in rows:
        row = _Row(prefix)
        for suffix in suffixes:
            if not prefix and not suffix.prompt:
                raise ValueError("a response with neither prefix nor question has nothing that predicts it")
            row.question(suffix, len(prefix))
        made.append(row)
    length = max(len(row.tokens) for row in made)

    def padded(lists: Sequence[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([values + [value] * (length - len(values)) for values in lists])

    before = 0
    where: list[tuple[int, int, int, int]] = []
    for number, row in enumerate(made):
        where += [(number, column, token, before + owner) for column, token, owner in row.answers]
        before += row.responses
    found = torch.tensor(where, dtype=torch.long).reshape(-1, 4)
    return PackedBatch(
        padded([row.tokens for row in made], pad),
        padded([row.positions for row in made], 0),
        padded([row.segments for row in made], -1),
        padded([row.parents for row in made], -1),
        *found.unbind(1),
    )


def visible(segment: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """(B, 1, T, T), True where a token may look: back to its own segment, its parent and the prefix.

    Padding (segment -1) sees itself only: a softmax over nothing is NaN.
    """
    length = segment.shape[1]
    key = segment[:, None, :]
    seen = (key == segment[:, :, None]) | (key == parent[:, :, None]) | (key == 0)
    seen &= key >= 0
    seen &= torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    seen |= torch.eye(length, dtype=torch.bool, device=segment.device)
    return seen[:, None]


def attention_mask(batch: PackedBatch, attention: Attention, dtype: torch.dtype) -> Any:
    """The mask of packed rows as an attention implementation takes it.

    Args:
        batch: the rows.
        attention: ``sdpa`` gets the mask of :func:`visible` as something to add, made once: every layer would
            make its own of a boolean one. ``flex_attention`` gets a block mask, in which blocks that nobody
            sees cost nothing.
        dtype: of the embeddings.
    """
    if attention == "flex_attention":
        return _block_mask(batch.segment, batch.parent)
    seen = visible(batch.segment, batch.parent)
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def _block_mask(segment: torch.Tensor, parent: torch.Tensor) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(row: Any, head: Any, query: Any, key: Any) -> Any:
        own, above, other = segment[row, query], parent[row, query], segment[row, key]
        near = (own == other) | (above == other) | (other == 0)
        return (near & (other >= 0) & (query >= key)) | (query == key)

    size, length = segment.shape
    return create_block_mask(seen, size, None, length, length, device=segment.device)


def require_plain_positions(language_model: Any) -> None:
    """Raise ValueError for a decoder whose rotary positions have three dimensions (Qwen-VL's).

    Restarting such positions behind a prefix needs the image grid; a packed row would be silently wrong.
    """
    rope = getattr(language_model.config, "rope_parameters", None) or {}
    if "mrope_section" in rope:
        raise ValueError(
            f"{type(language_model).__name__} has three-dimensional rotary positions (mrope_section), which "
            "a packed row cannot restart; train a model with plain rotary positions, such as InternVL"
        )


def completion_states(
    language_model: Any, batch: PackedBatch, embeds: torch.Tensor, attention: Attention = "sdpa"
) -> torch.Tensor:
    """One pass over packed rows; the last hidden state before every completion token, (N, D).

    Args:
        language_model: a decoder of transformers, without its head.
        batch: the packed rows.
        embeds: (B, T, D) their input embeddings.
        attention: what computes it, whatever the checkpoint was loaded with: masks are made for one of these.
    """
    config = language_model.config
    before, config._attn_implementation = config._attn_implementation, attention
    try:
        states: torch.Tensor = language_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask(batch, attention, embeds.dtype),
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
    finally:
        config._attn_implementation = before
    return states[batch.rows, batch.columns]
