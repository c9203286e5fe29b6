"""Shares and means over questions with intervals by images: what several audits count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.averaging import Array
from harness.estimates import RESAMPLES
from harness.statistics import (
    cluster_weights,
    effective_size,
    percentile_interval,
    standard_error,
    wilson,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval: a share in percent, or a difference of shares in points."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """As a cell of a table."""
        return f"{self.low:.2f} to {self.high:.2f}"

    @property
    def signed(self) -> str:
        """The interval of a difference."""
        return f"{self.low:+.2f} to {self.high:+.2f}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def ratios(
    top: Array, bottom: Array, clusters: Sequence[str], *, confidence: float = 0.95, seed: int = 0
) -> tuple[list[Figure], Array]:
    """Sums over sums, in percent, with percentile intervals of the bootstrap over clusters.

    Args:
        top: ``(Q, K)`` what each question adds to K numerators.
        bottom: ``(Q, K)`` what it adds to their denominators; a column of zeros gives NaN.
        clusters: ``Q`` names, of the image that each question is about.
        confidence: of each interval.
        seed: of the draws.

    Returns:
        K figures, and the standard errors ``(K,)`` of their shares. Of a single cluster nothing is known:
        its intervals go from -100 to 100.
    """
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), 2 * top.shape[1]))
    np.add.at(sums, place, np.concatenate([top, bottom], 1))
    weights = cluster_weights(np.zeros(len(names), np.intp), RESAMPLES, np.random.default_rng(seed))
    drawn = np.concatenate([block @ sums for block in weights])
    found = np.concatenate([sums.sum(0, keepdims=True), drawn])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = found[:, : top.shape[1]] / found[:, top.shape[1] :]
    low, high = percentile_interval(shares[1:], confidence, max(1, len(names) - 1))
    if len(names) == 1:  # one image does not tell how others would be
        low, high = np.full_like(low, -1), np.full_like(high, 1)
    figures = [Figure(*(100 * float(x) for x in three)) for three in zip(shares[0], low, high, strict=True)]
    return figures, standard_error(shares[1:])


def share(hits: Sequence[bool], clusters: Sequence[str], seed: int = 0) -> Figure:
    """The share of questions that are hits, with Wilson's interval for as many as are independent.

    Args:
        hits: one a question; at least one.
        clusters: the image that each question is about.
        seed: of the bootstrap that tells how many are independent.
    """
    values = np.asarray(hits, float)[:, None]
    (found,), error = ratios(values, np.ones_like(values), clusters, seed=seed)
    part = float(values.mean())
    effective = effective_size(part, float(error[0]), len(hits), len(set(clusters)))
    low, high = wilson(part, effective)
    return Figure(found.value, 100 * low, 100 * high)
