"""Which models are best, where the difference can be told at all."""

from __future__ import annotations

import math

import numpy as np

from harness.averaging import Array
from harness.statistics import percentile_interval


def ranks(values: Array, replicates: Array, confidence: float = 0.95, freedom: float = math.inf) -> list[int]:
    """Rank 1: the best and all that cannot be told from it; 2: the next and its like; else 0.

    Two models are told apart when the paired interval of their difference excludes 0. Where nothing can be
    told apart nobody is best; behind several that are best, and of two models, nobody is second.

    Args:
        values: ``(M,)``, NaN where a model has none.
        replicates: ``(resamples, M)``, paired: a row is one resample for all models.
        confidence: of the intervals.
        freedom: clusters less strata, see :func:`harness.statistics.percentile_interval`.

    Returns:
        One rank a model.

    >>> rng = np.random.default_rng(0)
    >>> values = np.array([80.0, 79.9, 70.0, 60.0])
    >>> ranks(values, values + rng.normal(size=(1000, 4)))
    [1, 1, 0, 0]
    >>> ranks(values[1:], values[1:] + rng.normal(size=(1000, 3)))
    [1, 2, 0]
    """
    found = [0] * len(values)
    left = [place for place in range(len(values)) if not np.isnan(values[place])]
    present = len(left)
    for rank in (1, 2):
        if not left:
            break
        leader = max(left, key=lambda place: values[place])
        behind = replicates[:, left] - replicates[:, [leader]]
        _, high = percentile_interval(behind, confidence, freedom)
        tied = [place for place, bound in zip(left, high, strict=True) if bound >= 0]
        if (rank == 1 and len(tied) == present) or (rank == 2 and (present < 3 or found.count(1) > 1)):
            break
        for place in tied:
            found[place] = rank
        left = [place for place in left if place not in tied]
    return found
