"""Prefill once, continue many: decoding on shared key-value caches.

The language model sees exactly what it would see for each prompt alone. All questions behind a prefix lie in
its row, hidden from each other by the mask, so keys and values of the prefix exist once; several prefixes are
rows of one batch. Rows are padded on the right, padding is masked out, and positions are counted without it.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from harness.records import Decoding
from plugins.engine.attention import Sight, Tokens, side_by_side


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
    sound: bool = True  #: whether all scores on the way were numbers


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
                tokens = Tokens.prefixes([length], embeds.device)
                mask = self.sight.mask(tokens, tokens, embeds.dtype, blocks)
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
        device = suffixes[0][0].embeds.device
        batch = _Batch(prefixes, device)
        lanes = [
            _Lane(row, number, prefixes[row].cache.get_seq_length())
            for row, own in enumerate(suffixes)
            for number in range(len(own))
        ]
        embeds = pad_sequence(
            [torch.cat([suffix.embeds for suffix in own]) for own in suffixes], batch_first=True
        )
        lengths = [len(suffix.embeds) for own in suffixes for suffix in own]
        logits = self._step(batch, lanes, lengths, embeds)
        first = logits.log_softmax(dim=-1)
        rows = [_Row(self.eos, decoding, suffix.key) for own in suffixes for suffix in own]
        if decoding.mode != "logits":
            self._loop(batch, lanes, rows, logits, decoding.max_new_tokens)
        done = iter(
            Generated(
                row.answer,
                len(row.ids),
                row.ended or decoding.mode == "logits",
                scores,
                row.sound and not bool(scores.isnan().any()),
            )
            for row, scores in zip(rows, first, strict=True)
        )
        return [[next(done) for _ in own] for own in suffixes]

    def _loop(self, batch: _Batch, lanes: list[_Lane], rows: list[_Row], logits: Tensor, limit: int) -> None:
        """Decode until every question has ended; those that have leave the batch."""
        running = list(zip(lanes, rows, strict=True))
        for step in range(limit):
            tokens = _choose([row for _, row in running], logits)
            for (_, row), token in zip(running, tokens, strict=True):
                row.ids.append(token)
            running = [(lane, row) for lane, row in running if not row.ended]
            if not running or step == limit - 1:
                return
            batch.keep(lanes_left := [lane for lane, _ in running])
            width = _widest(lanes_left)
            newest = torch.zeros(batch.size, width, dtype=torch.long)
            for (lane, row), column in zip(running, _columns(lanes_left, [1] * len(running)), strict=True):
                newest[lane.row, column] = row.ids[-1]
            embeds = self.embed(newest.to(self.embed.weight.device))
            logits = self._step(batch, lanes_left, [1] * len(running), embeds)

    def _step(self, batch: _Batch, lanes: Sequence[_Lane], lengths: Sequence[int], embeds: Tensor) -> Tensor:
        """Read the next tokens of some questions; scores ``(lanes, V)`` behind the last of each.

        Args:
            batch: what was read before; grows.
            lanes: the questions, those of a row in a run.
            lengths: how many tokens each reads.
            embeds: ``(rows, W, d)``: a row's tokens, question after question.
        """
        places = torch.zeros(embeds.shape[:2], dtype=torch.long)
        owners, valid = torch.zeros_like(places), torch.zeros_like(places, dtype=torch.bool)
        ends = []
        for lane, column, length in zip(lanes, _columns(lanes, lengths), lengths, strict=True):
            span = slice(column, column + length)
            places[lane.row, span] = torch.arange(lane.length, lane.length + length)
            owners[lane.row, span] = lane.number
            valid[lane.row, span] = True
            ends.append((lane.row, column + length - 1))
            lane.length += length
        device = embeds.device
        tokens = Tokens(places.to(device), owners.to(device), valid.to(device))
        batch.tokens.append(tokens)
        mask = self.sight.mask(tokens, batch.tokens, embeds.dtype)
        states = self._forward(batch.cache, embeds, mask, batch.rope(tokens.places))
        where = torch.tensor(ends)  # on the CPU: of a model on several devices the states may be anywhere
        return self._logits(states[where[:, 0], where[:, 1]])

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


@dataclass
class _Lane:
    """A question behind a prefix."""

    row: int  #: of the batch
    number: int  #: among the questions of its row
    length: int  #: of its own sequence so far, prefix included


class _Batch:
    """What was read so far: a row for each prefix, with its questions."""

    def __init__(self, prefixes: Sequence[Prefix], device: torch.device) -> None:
        lengths = [prefix.cache.get_seq_length() for prefix in prefixes]
        empty = not any(lengths)  # then there is no layer to join yet
        self.cache = DynamicCache() if empty else side_by_side([prefix.cache for prefix in prefixes])
        self.tokens = Tokens.prefixes(lengths, device)
        self.moved = torch.tensor([prefix.moved for prefix in prefixes], device=device)
        self.axes = prefixes[0].axes
        self.size = len(prefixes)

    def rope(self, places: Tensor) -> Tensor:
        """Rotary positions of places ``(rows, S)``: the same shape, or the same in every axis."""
        rope = places + self.moved[:, None]
        return rope if self.axes == 1 else rope.expand(self.axes, -1, -1)

    def keep(self, lanes: Sequence[_Lane]) -> None:
        """Drop rows none of whose questions is among these, and renumber the rest."""
        left = sorted({lane.row for lane in lanes})
        if len(left) == self.size:
            return
        chosen = torch.tensor(left)  # on the CPU: layers of one cache may lie on several devices
        self.cache.batch_select_indices(chosen)
        self.tokens.select(chosen)
        self.moved, self.size = self.moved[chosen], len(left)
        new = {row: number for number, row in enumerate(left)}
        for lane in lanes:
            lane.row = new[lane.row]


def _columns(lanes: Sequence[_Lane], lengths: Sequence[int]) -> list[int]:
    """In which column of its row each question's next tokens begin."""
    used: dict[int, int] = {}
    columns = []
    for lane, length in zip(lanes, lengths, strict=True):
        columns.append(used.get(lane.row, 0))
        used[lane.row] = columns[-1] + length
    return columns


def _widest(lanes: Sequence[_Lane]) -> int:
    """Most questions of a row."""
    return max(Counter(lane.row for lane in lanes).values())


class _Row:
    """An answer in the making."""

    def __init__(self, eos: frozenset[int], decoding: Decoding, key: str) -> None:
        self.eos = eos
        self.temperature = decoding.temperature
        self.ids: list[int] = []
        self.sound = True
        seed = hashlib.sha256(f"{decoding.seed}\0{key}".encode()).digest()
        self.random = random.Random(seed)

    @property
    def ended(self) -> bool:
        return not self.sound or (bool(self.ids) and self.ids[-1] in self.eos)

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
    highest, best = logits.max(dim=-1)  # where one is no number, so is the highest
    for row, value in zip(rows, highest.tolist(), strict=True):  # one copy from the device, not one a row
        row.sound = row.sound and value == value
    if all(row.temperature <= 0 for row in rows):
        chosen: list[int] = best.tolist()
        return chosen
    return [row.draw(scores) if row.sound else 0 for row, scores in zip(rows, logits, strict=True)]
