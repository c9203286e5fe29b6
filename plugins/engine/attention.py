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


#: Owner of what every question of a row sees: its prefix.
SHARED = -1


@dataclass
class Tokens:
    """Tokens of a batch, one row a prefix: the questions behind it lie side by side in its row."""

    places: Tensor  #: ``(rows, K)``: place in the question's own sequence
    owners: Tensor  #: ``(rows, K)``: number of the question, or :data:`SHARED`
    valid: Tensor  #: ``(rows, K)``: False for padding

    def append(self, other: Tokens) -> None:
        """Add columns."""
        self.places = torch.cat([self.places, other.places], dim=1)
        self.owners = torch.cat([self.owners, other.owners], dim=1)
        self.valid = torch.cat([self.valid, other.valid], dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep some rows."""
        self.places, self.owners, self.valid = self.places[rows], self.owners[rows], self.valid[rows]

    @classmethod
    def prefixes(cls, lengths: Sequence[int], device: torch.device) -> Tokens:
        """What the columns of prefixes hold that are padded on the right."""
        columns = torch.arange(max(lengths), device=device).expand(len(lengths), -1)
        ends = torch.tensor(lengths, device=device)[:, None]
        return cls(columns, torch.full_like(columns, SHARED), columns < ends)


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

    def mask(self, queries: Tokens, keys: Tokens, dtype: torch.dtype, blocks: Tensor | None = None) -> Any:
        """The mask of a forward pass, as the language model takes it.

        Args:
            queries: the new tokens, which are the last columns of ``keys``.
            keys: of the cache with the new tokens.
            dtype: of the model.
            blocks: ``(S,)``: see :meth:`plugins.engine.wiring.Wiring.blocks`; queries and keys are then the
                same.
        """
        distance = queries.places[:, :, None] - keys.places[:, None, :]
        seen = distance >= 0
        if blocks is not None:
            together = (blocks[:, None] == blocks[None, :]) & (blocks >= 0)[:, None]
            seen = seen | together[None]
        theirs = keys.owners[:, None, :]
        seen = seen & keys.valid[:, None, :] & ((theirs == SHARED) | (theirs == queries.owners[:, :, None]))
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


def side_by_side(caches: Sequence[DynamicCache]) -> DynamicCache:
    """One cache of several prefixes of one row each, padded on the right; they stay as they are."""
    assert len({len(cache.layers) for cache in caches}) == 1, "an empty prefix has no layers yet"
    longest = max(cache.get_seq_length() for cache in caches)
    joint = DynamicCache()
    for number in range(len(caches[0].layers)):
        layers = [cache.layers[number] for cache in caches]
        keys, values = (
            torch.cat([_padded(getattr(layer, name), longest) for layer in layers])
            for name in ("keys", "values")
        )
        joint.update(keys, values, number)
    return joint


def _padded(states: Tensor, length: int) -> Tensor:
    """``(1, heads, P, d)`` to ``(1, heads, length, d)``."""
    missing = length - states.shape[2]
    return torch.nn.functional.pad(states, (0, 0, 0, missing)) if missing else states
