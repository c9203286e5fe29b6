"""Responses to a prompt: prefilled once, continued G times.

What is drawn is a function of names alone: every response has a seed made of the run's seed, the step, the
prompt, the attempt and its own number. So resuming, or another number of processes, changes nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
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
    """Draws responses to one question of a prompt."""

    def sample(
        self, prompt: TrainingPrompt, sight: Sight, row: int, seeds: Sequence[bytes]
    ) -> list[Completion]:
        """One response a seed."""
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
        self, prompt: TrainingPrompt, sight: Sight, row: int, seeds: Sequence[bytes]
    ) -> list[Completion]:
        """One response a seed; the prompt is computed once, its key-value cache expanded to all of them."""
        policy, model = self.policy, self.policy.model
        learning, language_model = model.training, model.model.language_model
        model.eval()  # checkpointing drops caches
        try:
            embeds = policy.embed(prompt, sight, row)
            cache = DynamicCache(config=language_model.config)
            states = language_model(
                inputs_embeds=embeds, past_key_values=cache, use_cache=True
            ).last_hidden_state
            policy.counts["prefilled_tokens"] += embeds.shape[1]
            if len(seeds) > 1:
                cache.batch_repeat_interleave(len(seeds))
            return self._decode(cache, states[:, -1].expand(len(seeds), -1), embeds.shape[1], seeds)
        finally:
            model.train(learning)

    def _decode(
        self, cache: DynamicCache, states: Tensor, length: int, seeds: Sequence[bytes]
    ) -> list[Completion]:
        policy, settings = self.policy, self.settings
        table = policy.model.get_input_embeddings()
        draws = [random.Random(seed) for seed in seeds]
        ids: list[list[int]] = [[] for _ in seeds]
        logps: list[list[Tensor]] = [[] for _ in seeds]
        running = list(range(len(seeds)))
        for position in range(length, length + settings.max_new_tokens):
            logits = policy.logits(states) / settings.temperature
            uniform = torch.tensor([draws[row].random() for row in running], dtype=torch.float64)
            tokens = _inverse_cdf(_filtered(logits, settings), uniform.to(logits.device))
            chosen = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0].float()
            for row, token, logp in zip(running, tokens.tolist(), chosen, strict=True):
                ids[row].append(token)
                logps[row].append(logp)
            policy.counts["decoded_tokens"] += len(running)
            going = [i for i, row in enumerate(running) if ids[row][-1] not in policy.ends]
            if not going or position + 1 == length + settings.max_new_tokens:
                break
            if len(going) < len(running):
                kept = torch.tensor(going, device=tokens.device)
                cache.batch_select_indices(kept)
                tokens, running = tokens[kept], [running[i] for i in going]
            states = policy.model.model.language_model(
                inputs_embeds=table(tokens)[:, None],
                position_ids=torch.full((len(running), 1), position, device=tokens.device),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
        return [
            Completion(tuple(row), torch.stack(logp).cpu(), row[-1] in policy.ends)
            for row, logp in zip(ids, logps, strict=True)
        ]


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
