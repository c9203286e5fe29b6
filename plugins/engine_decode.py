"""Prefill once, continue many: decoding on a shared key-value cache.

The language model sees exactly what it would see for each prompt alone: the prefix's cache is repeated for
every row, suffixes are padded on the right, padding is masked out, and positions are counted without it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from harness.records import Decoding


@dataclass(frozen=True)
class Generated:
    """What became of one row."""

    ids: tuple[int, ...]  #: without the end token
    tokens: int  #: decoded, the end token included
    ended: bool  #: by an end token, not by the limit
    first: Tensor  #: ``(V,)`` log-probabilities of the first token, float32


class Decoder:
    """Runs a causal language model on input embeddings.

    Args:
        model: with ``model.language_model``, ``lm_head`` and ``get_input_embeddings()``.
        eos: ids that end an answer.
    """

    def __init__(self, model: Any, eos: frozenset[int]) -> None:
        self.language_model = model.model.language_model
        self.head = model.lm_head
        self.embed = model.get_input_embeddings()
        self.eos = eos

    def prefill(self, prefix: Tensor) -> DynamicCache:
        """The cache of a prefix ``(1, P, d)``; P may be 0."""
        cache = DynamicCache(config=self.language_model.config)
        if prefix.shape[1]:
            self.language_model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
        return cache

    def decode(
        self, cache: DynamicCache, suffixes: Sequence[Tensor], decoding: Decoding, keys: Sequence[str]
    ) -> list[Generated]:
        """Continue the prefix in ``cache`` with every suffix; the cache is used up.

        Args:
            cache: of one row.
            suffixes: ``(S_i, d)`` each, none empty.
            decoding: how; in ``logits`` mode nothing is decoded.
            keys: one name a row: with the seed, it alone decides what sampling draws.
        """
        shared = cache.get_seq_length()
        lengths = torch.tensor([len(suffix) for suffix in suffixes], device=suffixes[0].device)
        embeds = pad_sequence(list(suffixes), batch_first=True)
        columns = torch.arange(embeds.shape[1], device=embeds.device)
        mask = torch.cat(
            [lengths.new_ones(len(suffixes), shared), (columns < lengths[:, None]).to(lengths.dtype)], dim=1
        )
        if shared and len(suffixes) > 1:
            cache.batch_repeat_interleave(len(suffixes))
        states = self._step(cache, embeds, mask, (shared + columns).expand(len(suffixes), -1))
        logits = self._logits(states[torch.arange(len(suffixes), device=embeds.device), lengths - 1])
        first = logits.log_softmax(dim=-1)
        if decoding.mode == "logits":
            return [Generated((), 0, True, row) for row in first]
        rows = [_Row(self.eos, decoding, key) for key in keys]
        self._loop(cache, rows, logits, mask, shared + lengths, decoding.max_new_tokens)
        return [
            Generated(row.answer, len(row.ids), row.ended, scores)
            for row, scores in zip(rows, first, strict=True)
        ]

    def _loop(
        self,
        cache: DynamicCache,
        rows: list[_Row],
        logits: Tensor,
        mask: Tensor,
        positions: Tensor,
        limit: int,
    ) -> None:
        """Decode until every row has ended; rows that have leave the batch."""
        running = rows
        for step in range(limit):
            for row, scores in zip(running, logits, strict=True):
                row.take(scores)
            keep = [index for index, row in enumerate(running) if not row.ended]
            if not keep or step == limit - 1:
                return
            if len(keep) < len(running):
                chosen = torch.tensor(keep, device=mask.device)
                cache.batch_select_indices(chosen)
                mask, positions, running = mask[chosen], positions[chosen], [running[i] for i in keep]
            mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
            newest = torch.tensor([[row.ids[-1]] for row in running], device=mask.device)
            states = self._step(cache, self.embed(newest), mask, positions[:, None])
            logits = self._logits(states[:, -1])
            positions = positions + 1

    def _step(self, cache: DynamicCache, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        outputs = self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        states: Tensor = outputs.last_hidden_state
        return states

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.head(states).float()
        return logits


class _Row:
    """An answer in the making."""

    def __init__(self, eos: frozenset[int], decoding: Decoding, key: str) -> None:
        self.eos = eos
        self.temperature = decoding.temperature
        self.ids: list[int] = []
        seed = hashlib.sha256(f"{decoding.seed}\0{key}".encode()).digest()
        self.random = random.Random(seed)

    @property
    def ended(self) -> bool:
        return bool(self.ids) and self.ids[-1] in self.eos

    @property
    def answer(self) -> tuple[int, ...]:
        return tuple(self.ids[:-1] if self.ended else self.ids)

    def take(self, logits: Tensor) -> None:
        """Append the next token, given its scores ``(V,)``: the best, or one drawn at the temperature."""
        if self.temperature <= 0:
            self.ids.append(int(logits.argmax()))
            return
        # One uniform number through the cumulative distribution: the draw is the same on every device.
        shares = (logits.double().cpu() / self.temperature).softmax(dim=-1).cumsum(dim=-1)
        drawn = torch.searchsorted(shares, self.random.random() * float(shares[-1]), right=True)
        self.ids.append(min(int(drawn), len(logits) - 1))
