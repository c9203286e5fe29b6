"""Responses to the questions on an image pair: prefilled once, continued G times each.

What is drawn is a function of names alone: every response has a seed made of the run's seed, the step, the
prompt, the attempt and its own number. So resuming, or another number of processes, changes nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from trainers.policy import Policy, Sight
from trainers.prompts import TrainingPrompt
from trainers.settings import RolloutSettings


@dataclass(frozen=True, slots=True)
class Completion:
    """One response."""

    ids: tuple[int, ...]  #: with the end token, if it came
    logps: Tensor  #: (R,) as the sampler saw them, before top-p and top-k, float32
    ended: bool  #: by an end token, not by the limit


class Sampler(Protocol):
    """Draws responses to the questions of a prompt."""

    def sample(
        self, prompt: TrainingPrompt, sight: Sight, rows: Sequence[int], seeds: Sequence[Sequence[bytes]]
    ) -> list[list[Completion]]:
        """For each of the questions ``rows``, one response a seed; all have equally many."""
        ...

    def updated(self) -> None:
        """The policy's weights have changed."""
        ...


def response_seed(run: int, step: int, prompt: str, attempt: int, number: int) -> bytes:
    """The seed of one response; a fixed hash, not Python's, which differs between processes."""
    return hashlib.sha256(f"{run}\0{step}\0{prompt}\0{attempt}\0{number}".encode()).digest()


class TorchSampler:
    """Samples with the policy's own network, on whatever device it is.

    Args:
        policy: the model.
        settings: temperature, top-p, top-k and the token limit.
    """

    def __init__(self, policy: Policy, settings: RolloutSettings) -> None:
        self.policy = policy
        self.settings = settings

    def updated(self) -> None:
        """Nothing to do: the weights are the policy's own."""

    @torch.no_grad()
    def sample(
        self, prompt: TrainingPrompt, sight: Sight, rows: Sequence[int], seeds: Sequence[Sequence[bytes]]
    ) -> list[list[Completion]]:
        """For each of the questions ``rows``, one response a seed.

        What the questions share is computed once, then each question once, and the key-value cache is
        expanded to all responses, which are decoded together.
        """
        size = len(seeds[0])
        with self.policy.caching():
            cache, states, mask, positions = self._prefill(prompt, sight, rows)
            cache.batch_repeat_interleave(size)
            going = _Running(
                cache,
                states.repeat_interleave(size, 0),
                mask.repeat_interleave(size, 0) if mask is not None else None,
                positions.repeat_interleave(size),
            )
            drawn = self._decode(going, [seed for part in seeds for seed in part])
        return [drawn[at : at + size] for at in range(0, len(drawn), size)]

    def _prefill(
        self, prompt: TrainingPrompt, sight: Sight, rows: Sequence[int]
    ) -> tuple[DynamicCache, Tensor, Tensor | None, Tensor]:
        """Cache of the questions (k rows), their last states (k, d), mask if any is padded, lengths (k,)."""
        policy, language_model = self.policy, self.policy.model.model.language_model
        cache = DynamicCache(config=language_model.config)
        if prompt.shared:
            shared = policy.embed_shared(prompt, sight)
            language_model(inputs_embeds=shared, past_key_values=cache, use_cache=True)
        questions = [policy.embed_question(prompt, sight, row) for row in rows]
        lengths = torch.tensor([len(question) for question in questions], device=policy.device)
        policy.counts["prefilled_tokens"] += prompt.shared + int(lengths.sum())
        if prompt.shared and len(rows) > 1:
            cache.batch_repeat_interleave(len(rows))
        embeds = pad_sequence(questions, batch_first=True)
        columns = torch.arange(embeds.shape[1], device=policy.device)
        held = (columns < lengths[:, None]).long()
        mask = torch.cat([held.new_ones(len(rows), prompt.shared), held], 1) if not held.all() else None
        states = language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=(prompt.shared + columns).expand(len(rows), -1),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        last = states[torch.arange(len(rows), device=policy.device), lengths - 1]
        return cache, last, mask, prompt.shared + lengths

    def _decode(self, going: _Running, seeds: Sequence[bytes]) -> list[Completion]:
        policy, settings = self.policy, self.settings
        table = policy.model.get_input_embeddings()
        draws = [random.Random(seed) for seed in seeds]
        ids: list[list[int]] = [[] for _ in seeds]
        logps: list[list[Tensor]] = [[] for _ in seeds]
        for count in range(1, settings.max_new_tokens + 1):
            logits = policy.logits(going.states) / settings.temperature
            uniform = torch.tensor([draws[row].random() for row in going.rows], dtype=torch.float64)
            tokens = _inverse_cdf(_filtered(logits, settings), uniform.to(logits.device))
            chosen = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0].float()
            for row, token, logp in zip(going.rows, tokens.tolist(), chosen, strict=True):
                ids[row].append(token)
                logps[row].append(logp)
            policy.counts["decoded_tokens"] += len(going.rows)
            on = [i for i, row in enumerate(going.rows) if ids[row][-1] not in policy.ends]
            if not on or count == settings.max_new_tokens:
                break
            if len(on) < len(going.rows):
                tokens = tokens[going.keep(on)]
            going.step(policy.model.model.language_model, table(tokens)[:, None])
        return [
            Completion(tuple(row), torch.stack(logp).cpu(), row[-1] in policy.ends)
            for row, logp in zip(ids, logps, strict=True)
        ]


@dataclass
class _Running:
    """Responses that have not ended; those that have leave the batch."""

    cache: DynamicCache
    states: Tensor  #: (n, d) that predict the next token
    mask: Tensor | None  #: (n, P) what of the cache is no padding; None: all
    positions: Tensor  #: (n,) of the next token
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows = list(range(len(self.states)))

    def keep(self, on: Sequence[int]) -> Tensor:
        """Let the others go; returns the indices kept."""
        kept = torch.tensor(on, device=self.states.device)
        self.cache.batch_select_indices(kept)
        self.positions, self.rows = self.positions[kept], [self.rows[i] for i in on]
        self.mask = self.mask[kept] if self.mask is not None else None
        return kept

    def step(self, language_model: Any, embeds: Tensor) -> None:
        """Compute one more token of each, (n, 1, d)."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        self.states = language_model(
            inputs_embeds=embeds,
            attention_mask=self.mask,
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        self.positions = self.positions + 1


def _inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """(G,) tokens where the cumulative distribution of (G, V) logits passes (G,) uniform numbers.

    One number a token, in double precision: the same draw on every device.
    """
    shares = logits.double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(shares, (uniform * shares[:, -1])[:, None], right=True)[:, 0]
    # Rounding may carry a draw beyond the last token that has any probability.
    last = logits.shape[-1] - 1 - (logits > -torch.inf).flip(-1).int().argmax(-1)
    return torch.minimum(drawn, last)


def _filtered(logits: Tensor, settings: RolloutSettings) -> Tensor:
    """Logits (G, V) with what top-k and top-p leave out at minus infinity."""
    if settings.top_k:
        least = logits.topk(min(settings.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if settings.top_p < 1:
        ordered, order = logits.sort(descending=True)
        shares = ordered.softmax(-1)
        beyond = shares.cumsum(-1) - shares >= settings.top_p  # what stands above already holds top_p
        logits = logits.masked_fill(beyond.scatter(-1, order, beyond), -torch.inf)
    return logits
