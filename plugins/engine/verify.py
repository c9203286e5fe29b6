"""The self-test of sharing: do prompts answered on a shared prefix say what they say alone?

Sharing went wrong in other engines by keys that took different images for the same, and by positions that
were
lost: the answers then differ grossly. So the first groups of a run are computed both ways. The scores of the
first token must agree to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from plugins.engine.decode import Generated

#: Groups compared at the start of a run.
FIRST = 2
#: Largest difference of a likely token's log-probability, by bytes of a number. Half precision rounds a
#: logit of 20 to 0.06, and a whole forward pass adds up; a lost image moves them by more than 1.
_BOUNDS = {8: 1e-3, 4: 1e-2, 2: 0.5}
#: Tokens that are compared: the others decide nothing, and their scores are noise.
_LIKELIEST = 8


class Verifier:
    """Compares answers on shared prefixes with answers without.

    Args:
        dtype: of the model.
        every: compare every group, not the first ones only.
    """

    def __init__(self, dtype: torch.dtype, *, every: bool = False) -> None:
        self.bound = _BOUNDS[dtype.itemsize]
        self.every = every
        self.counts = {"groups_verified": 0, "sharing_turned_off": 0}

    @property
    def wanted(self) -> bool:
        """Whether the next group is compared."""
        return self.every or self.counts["groups_verified"] < FIRST

    def agrees(self, shared: Mapping[Any, Generated | str], alone: Mapping[Any, Generated | str]) -> bool:
        """Whether the answers of one group agree; those that failed either way say nothing."""
        self.counts["groups_verified"] += 1
        for key, expected in alone.items():
            found = shared.get(key)
            if isinstance(found, Generated) and isinstance(expected, Generated):
                if expected.first.isnan().any():
                    continue  # no numbers either way: sharing is not what is wrong
                likely = expected.first.topk(min(_LIKELIEST, len(expected.first))).indices
                gap = (found.first - expected.first)[likely].abs().max()
                if not gap <= self.bound:  # also where it is no number
                    self.counts["sharing_turned_off"] += 1
                    return False
        return True
