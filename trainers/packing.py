"""One packed row ``[prefix | s1 | s2 ...]`` for all questions of an image pair, with restarted positions.

Every suffix attends to the prefix and to itself, never to another suffix, and its positions go on where the
prefix ends: the row computes what separate rows would, at a fraction of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    attention_mask: torch.Tensor  #: (B, 1, T, T), True where a token may look
    rows: torch.Tensor  #: (N,)
    columns: torch.Tensor  #: (N,)
    targets: torch.Tensor  #: (N,)
    owners: torch.Tensor  #: (N,)


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
            first = start + len(suffix.prompt) - 1
            where += [(row, first + k, token, owner) for k, token in enumerate(suffix.completion)]
            start, owner = end, owner + 1
    same = segment[:, :, None] == segment[:, None, :]
    visible = (same | (segment[:, None, :] == 0)) & (segment[:, None, :] >= 0)
    visible &= torch.ones(length, length, dtype=torch.bool).tril()
    visible |= torch.eye(length, dtype=torch.bool)
    found = torch.tensor(where, dtype=torch.long).reshape(-1, 4)
    return PackedBatch(
        input_ids, position_ids, visible[:, None], found[:, 0], found[:, 1], found[:, 2], found[:, 3]
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
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    return states[batch.rows, batch.columns]
