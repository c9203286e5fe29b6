"""One packed row ``[prefix | s1 | s2 ...]`` for all questions of an image pair, with restarted positions.

Every suffix attends to the prefix and to itself, never to another suffix, and its positions go on where the
prefix ends: the row computes what separate rows would, at a fraction of the tokens. A suffix is a question
with its answer, or a response to the prefix; then its first token is predicted by the prefix's last.
No key-value cache takes part, for gradient checkpointing would drop it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Suffix:
    """One question after the shared prefix: tokens that are given, and tokens to be learnt."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows of equal length.

    ``rows[i], columns[i]`` is a position whose next token is ``targets[i]``; ``owners[i]`` numbers its suffix
    within the batch, in order.
    """

    input_ids: torch.Tensor  #: (B, T)
    position_ids: torch.Tensor  #: (B, T)
    segment: torch.Tensor  #: (B, T): 0 the prefix, from 1 the suffixes in order, -1 padding
    rows: torch.Tensor  #: (N,)
    columns: torch.Tensor  #: (N,)
    targets: torch.Tensor  #: (N,)
    owners: torch.Tensor  #: (N,)

    def to(self, device: torch.device) -> PackedBatch:
        """The same on another device."""
        return PackedBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def pack(rows: Sequence[tuple[Sequence[int], Sequence[Suffix]]], pad: int) -> PackedBatch:
    """Pack ``(prefix, suffixes)`` rows into one batch, right-padded with ``pad``."""
    length = max(
        len(prefix) + sum(len(s.prompt) + len(s.completion) for s in suffixes) for prefix, suffixes in rows
    )
    batch = len(rows)
    input_ids = torch.full((batch, length), pad)
    position_ids = torch.zeros((batch, length), dtype=torch.long)
    segment = torch.full((batch, length), -1)
    where: list[tuple[int, int, int, int]] = []
    owner = 0
    for row, (prefix, suffixes) in enumerate(rows):
        start = len(prefix)
        input_ids[row, :start] = torch.tensor(list(prefix))
        position_ids[row, :start] = torch.arange(start)
        segment[row, :start] = 0
        for number, suffix in enumerate(suffixes, 1):
            tokens = [*suffix.prompt, *suffix.completion]
            end = start + len(tokens)
            input_ids[row, start:end] = torch.tensor(tokens)
            position_ids[row, start:end] = torch.arange(len(prefix), len(prefix) + len(tokens))
            segment[row, start:end] = number
            first = start + len(suffix.prompt)
            # Without a prompt of its own, the prefix predicts the first token, wherever the suffix lies.
            before = first - 1 if suffix.prompt else len(prefix) - 1
            where += [
                (row, first - 1 + k if k else before, token, owner)
                for k, token in enumerate(suffix.completion)
            ]
            start, owner = end, owner + 1
    found = torch.tensor(where, dtype=torch.long).reshape(-1, 4)
    return PackedBatch(input_ids, position_ids, segment, found[:, 0], found[:, 1], found[:, 2], found[:, 3])


def visible(segment: torch.Tensor) -> torch.Tensor:
    """(B, 1, T, T), True where a token may look: at earlier tokens of its own segment and of the prefix.

    Padding (segment -1) sees itself only: a softmax over nothing is NaN.
    """
    length = segment.shape[1]
    same = segment[:, :, None] == segment[:, None, :]
    seen = (same | (segment[:, None, :] == 0)) & (segment[:, None, :] >= 0)
    seen &= torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    seen |= torch.eye(length, dtype=torch.bool, device=segment.device)
    return seen[:, None]


def attention_mask(segment: torch.Tensor, implementation: str) -> Any:
    """The mask of packed rows as an attention implementation takes it.

    Args:
        segment: (B, T) numbers of segments: 0 the prefix, -1 padding.
        implementation: ``flex_attention`` gets a block mask, in which blocks that nobody sees cost nothing;
            every other one the dense mask of :func:`visible`.
    """
    if implementation != "flex_attention":
        return visible(segment)
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(batch: Any, head: Any, query: Any, key: Any) -> Any:
        own, other = segment[batch, query], segment[batch, key]
        return (((own == other) | (other == 0)) & (other >= 0) & (query >= key)) | (query == key)

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


def completion_states(language_model: Any, batch: PackedBatch, embeds: torch.Tensor) -> torch.Tensor:
    """One pass over packed rows; the last hidden state before every completion token, (N, D).

    Args:
        language_model: a decoder of transformers, without its head.
        batch: the packed rows.
        embeds: (B, T, D) their input embeddings.
    """
    states: torch.Tensor = language_model(
        inputs_embeds=embeds,
        attention_mask=attention_mask(batch.segment, language_model.config._attn_implementation),
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return states[batch.rows, batch.columns]
