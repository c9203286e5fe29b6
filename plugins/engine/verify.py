"""The self-test of sharing: do prompts answered on a shared prefix say what they say alone?

Sharing went wrong in other engines by keys that took different images for the same, and by positions that
were lost: the answers then differ grossly. So the first groups of a run are computed both ways. What they
make of the first token must be the same to rounding: half the summed difference of all probabilities,
which is small where a near tie turns and large where an image was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from plugins.engine.decode import Generated

#: Groups compared at the start of a run.
FIRST = 2
#: Largest total variation distance between two distributions over the first token, by bytes of a number: half
#: precision moves a logit of 20 by 0.06, and a whole forward pass adds up.
_BOUNDS = {8: 1e-4, 4: 1e-3, 2: 0.1}


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
        gaps = []
        for key, expected in alone.items():
            found = shared.get(key)
            if isinstance(found, Generated) and isinstance(expected, Generated):
                if expected.first.isnan().any():
                    continue  # no numbers either way: sharing is not what is wrong
                gaps.append(float((found.first.exp() - expected.first.exp()).abs().sum()) / 2)
        self.counts["groups_verified"] += bool(gaps)
        if all(gap <= self.bound for gap in gaps):  # not so where one is no number
            return True
        self.counts["sharing_turned_off"] += 1
        return False
