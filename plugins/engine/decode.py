"""Prefill once, continue many: decoding on shared key-value caches.

The language model sees exactly what it would see for each prompt alone: a prefix's cache is repeated for
every row, suffixes are padded on the right, padding is masked out, and positions are counted without it. Rows
of several prefixes are decoded side by side.
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
from plugins.engine.attention import Keys, Sight, side_by_side


@dataclass(frozen=True)
class Prefix:
    """A prefilled prefix."""

    cache: DynamicCache
    moved: int  #: what rotary positions behind it are moved by, against places in the sequence
    axes: int  #: of rotary positions: 1, or 3 for image grids


@dataclass(frozen=True)
class Suffix:
    """What follows a prefix in one row."""

    embeds: Tensor  #: ``(S, d)``, S at least 1
    key: str  #: with the seed, it alone decides what sampling draws


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
        self.sight = Sight(self.language_model.config)
        self.eos = eos

    def prefill(self, embeds: Tensor, rope: Tensor, moved: int, blocks: Tensor | None = None) -> Prefix:
        """The cache of a prefix.

        Args:
            embeds: ``(1, P, d)``; P may be 0.
            rope: ``(1, P)`` or ``(3, 1, P)`` rotary positions.
            moved: see :class:`Prefix`.
            blocks: ``(P,)``, see :meth:`plugins.engine.wiring.Wiring.blocks`.
        """
        cache = DynamicCache()
        length = embeds.shape[1]
        if length:
            mask = None  # causal: the fastest kernels take no mask
            if blocks is not None or (self.sight.window is not None and length > self.sight.window):
                places = torch.arange(length, device=embeds.device)[None]
                keys = Keys(places, torch.ones_like(places, dtype=torch.bool))
                mask = self.sight.mask(places, keys, embeds.dtype, blocks)
            self._forward(cache, embeds, mask, rope)
        return Prefix(cache, moved, rope.shape[0] if rope.ndim == 3 else 1)

    def decode(
        self, prefixes: Sequence[Prefix], suffixes: Sequence[Sequence[Suffix]], decoding: Decoding
    ) -> list[list[Generated]]:
        """Continue every prefix with each of its suffixes, all side by side.

        Args:
            prefixes: prefilled; they stay as they are.
            suffixes: for each prefix, its rows.
            decoding: how; in ``logits`` mode nothing is decoded.
        """
        counts = [len(rows) for rows in suffixes]
        flat = [suffix for rows in suffixes for suffix in rows]
        device = flat[0].embeds.device
        cache, keys = _joined(prefixes, counts, device)
        moved = torch.tensor([prefix.moved for prefix in prefixes], device=device)
        ropes = _Ropes(moved.repeat_interleave(torch.tensor(counts, device=device)), prefixes[0].axes)

        lengths = torch.tensor([len(suffix.embeds) for suffix in flat], device=device)
        embeds = pad_sequence([suffix.embeds for suffix in flat], batch_first=True)
        columns = torch.arange(embeds.shape[1], device=device)
        starts = keys.valid.sum(dim=1)
        places = starts[:, None] + columns
        keys.append(places, columns < lengths[:, None])
        mask = self.sight.mask(places, keys, embeds.dtype)
        states = self._forward(cache, embeds, mask, ropes(places))
        logits = self._logits(states[torch.arange(len(flat), device=device), lengths - 1])
        first = logits.log_softmax(dim=-1)
        if decoding.mode == "logits":
            done = [Generated((), 0, True, row) for row in first]
        else:
            rows = [_Row(self.eos, decoding, suffix.key) for suffix in flat]
            self._loop(cache, keys, rows, logits, starts + lengths, ropes, decoding.max_new_tokens)
            done = [
                Generated(row.answer, len(row.ids), row.ended, scores)
                for row, scores in zip(rows, first, strict=True)
            ]
        found = iter(done)
        return [[next(found) for _ in range(count)] for count in counts]

    def _loop(
        self,
        cache: DynamicCache,
        keys: Keys,
        rows: list[_Row],
        logits: Tensor,
        places: Tensor,
        ropes: _Ropes,
        limit: int,
    ) -> None:
        """Decode until every row has ended; rows that have leave the batch."""
        running = rows
        for step in range(limit):
            for row, token in zip(running, _choose(running, logits), strict=True):
                row.ids.append(token)
            keep = [index for index, row in enumerate(running) if not row.ended]
            if not keep or step == limit - 1:
                return
            if len(keep) < len(running):
                chosen = torch.tensor(keep, device=places.device)
                cache.batch_select_indices(chosen)
                keys.select(chosen)
                places, running = places[chosen], [running[i] for i in keep]
                ropes.select(chosen)
            here = places[:, None]
            keys.append(here, torch.ones_like(here, dtype=torch.bool))
            newest = self.embed(torch.tensor([[row.ids[-1]] for row in running], device=places.device))
            mask = self.sight.mask(here, keys, newest.dtype)
            logits = self._logits(self._forward(cache, newest, mask, ropes(here))[:, -1])
            places = places + 1

    def _forward(self, cache: DynamicCache, embeds: Tensor, mask: Any, rope: Tensor) -> Tensor:
        outputs = self.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=rope,
            past_key_values=cache,
            use_cache=True,
        )
        states: Tensor = outputs.last_hidden_state
        return states

    def _logits(self, states: Tensor) -> Tensor:
        logits: Tensor = self.head(states).float()
        return logits


def _joined(
    prefixes: Sequence[Prefix], counts: Sequence[int], device: torch.device
) -> tuple[DynamicCache, Keys]:
    """The prefixes side by side; where all are empty there is no layer to join yet."""
    if all(prefix.cache.get_seq_length() == 0 for prefix in prefixes):
        nothing = torch.zeros(sum(counts), 0, dtype=torch.long, device=device)
        return DynamicCache(), Keys(nothing, nothing.bool())
    return side_by_side([prefix.cache for prefix in prefixes], counts)


class _Ropes:
    """Rotary positions of text behind prefixes."""

    def __init__(self, moved: Tensor, axes: int) -> None:
        self.moved = moved  # (rows,)
        self.axes = axes

    def __call__(self, places: Tensor) -> Tensor:
        """Of places ``(rows, S)``: ``(rows, S)``, or the same in every axis."""
        rope = places + self.moved[:, None]
        return rope if self.axes == 1 else rope.expand(self.axes, -1, -1)

    def select(self, rows: Tensor) -> None:
        self.moved = self.moved[rows]


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

    def draw(self, logits: Tensor) -> int:
        """A token drawn from scores ``(V,)`` at the temperature."""
        # One uniform number through the cumulative distribution: the draw is the same on every device.
        shares = (logits.double().cpu() / self.temperature).softmax(dim=-1).cumsum(dim=-1)
        drawn = torch.searchsorted(shares, self.random.random() * float(shares[-1]), right=True)
        return min(int(drawn), len(logits) - 1)


def _choose(rows: Sequence[_Row], logits: Tensor) -> list[int]:
    """The next token of every row, given scores ``(rows, V)``: the best, or one drawn."""
    if all(row.temperature <= 0 for row in rows):
        best: list[int] = logits.argmax(dim=-1).tolist()  # one copy from the device, not one a row
        return best
    return [row.draw(scores) for row, scores in zip(rows, logits, strict=True)]
