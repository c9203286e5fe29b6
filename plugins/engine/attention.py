"""Who sees whom, as explicit masks, and caches of several prompts side by side.

Masks are made from places in the sequence, not from columns of the cache, so padding between a prefix and
what follows it changes nothing: neither causality nor the reach of a sliding window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

_SLIDING, _FULL = "sliding_attention", "full_attention"


@dataclass
class Keys:
    """What a cache holds in its columns, for each row."""

    places: Tensor  #: ``(rows, K)``: place in the row's sequence
    valid: Tensor  #: ``(rows, K)``: False for padding

    def append(self, places: Tensor, valid: Tensor) -> None:
        """Add columns ``(rows, S)``."""
        self.places = torch.cat([self.places, places], dim=1)
        self.valid = torch.cat([self.valid, valid], dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self.places, self.valid = self.places[rows], self.valid[rows]


class Sight:
    """Makes masks for one language model.

    Args:
        config: of the language model.
    """

    def __init__(self, config: Any) -> None:
        layers = getattr(config, "layer_types", None) or ()
        self.mixed = _SLIDING in layers
        window = getattr(config, "sliding_window", None)
        # Models without layer types slide in every layer, or never.
        self.window = window if self.mixed or (not layers and config.model_type == "mistral") else None
        self.boolean = config._attn_implementation == "sdpa"

    def mask(self, queries: Tensor, keys: Keys, dtype: torch.dtype, blocks: Tensor | None = None) -> Any:
        """The mask of a forward pass, as the language model takes it.

        Args:
            queries: ``(rows, S)``: places of the new tokens, which are the last columns of ``keys``.
            keys: of the cache with the new tokens.
            dtype: of the model.
            blocks: ``(S,)``: see :meth:`plugins.engine.wiring.Wiring.blocks`; then queries and keys are the
                same.
        """
        distance = queries[:, :, None] - keys.places[:, None, :]
        seen = distance >= 0
        if blocks is not None:
            together = (blocks[:, None] == blocks[None, :]) & (blocks >= 0)[:, None]
            seen = seen | together[None]
        seen = seen & keys.valid[:, None, :]
        near = seen if self.window is None else seen & (distance < self.window)
        full, sliding = self._made(seen, dtype), self._made(near, dtype)
        return {_FULL: full, _SLIDING: sliding} if self.mixed else sliding

    def _made(self, seen: Tensor, dtype: torch.dtype) -> Tensor:
        seen = seen[:, None]
        if self.boolean:
            return seen
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
            ~seen, torch.finfo(dtype).min
        )


def side_by_side(caches: Sequence[DynamicCache], counts: Sequence[int]) -> tuple[DynamicCache, Keys]:
    """One cache of several prefixes, each repeated, and what its columns are.

    Args:
        caches: of one row each, ``P_i`` long.
        counts: how many rows each becomes.
    """
    lengths = [cache.get_seq_length() for cache in caches]
    longest = max(lengths)
    joint = DynamicCache()
    for number in range(len(caches[0].layers)):
        layers = [cache.layers[number] for cache in caches]
        keys, values = (
            torch.cat(
                [
                    _padded(getattr(layer, name), longest).expand(count, -1, -1, -1)
                    for layer, count in zip(layers, counts, strict=True)
                ]
            )
            for name in ("keys", "values")
        )
        joint.update(keys, values, number)
    device = keys.device
    columns = torch.arange(longest, device=device)
    ends = torch.tensor(lengths, device=device).repeat_interleave(torch.tensor(counts, device=device))
    return joint, Keys(columns.expand(len(ends), -1), columns < ends[:, None])


def _padded(states: Tensor, length: int) -> Tensor:
    """``(1, heads, P, d)`` to ``(1, heads, length, d)``."""
    return torch.nn.functional.pad(states, (0, 0, 0, length - states.shape[2]))
