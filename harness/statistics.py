"""The statistics behind intervals and verdicts: pure functions on arrays, each with its generator handed in.

Questions on one image stand and fall together, so that images (or whole products) are what is resampled:
*clusters*. They are drawn within *strata*, the groups whose sizes the benchmark fixes. Everything that a rule
of averaging needs is a sum over clusters, so a resample is a row of weights and all resamples are one product
of matrices, for any number of models at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.averaging import Array, absent_is_nan

Labels: TypeAlias = NDArray[np.intp]
#: Floats that one block of weights may hold: 32 MiB.
_BLOCK = 4 * 2**20


def joined(strata: Labels, wider: Labels) -> Labels:
    """Strata among which no cluster stands alone, as far as there is another to stand with.

    A stratum of a single cluster does not tell its spread; taken for certain it makes intervals too narrow,
    down to a width of nothing where every stratum is such a one. So a lone cluster is drawn with the others
    of its wider group, else with other lone ones, else within the largest stratum (collapsed strata, Cochran
    1977, 5A.12). That is a stopgap: where datasets come and go whole, as ratios do that a rule averages, the
    standard error of many lone ones is up to a quarter too small.

    Args:
        strata: ``(clusters,)`` the stratum of each.
        wider: ``(clusters,)`` the group that its stratum is a part of.

    >>> joined(np.array([0, 0, 1, 2, 3]), np.array([0, 0, 0, 1, 2])).tolist()
    [0, 0, 0, 1, 1]
    """
    _, found = np.unique(strata, return_inverse=True)

    def lone() -> Labels:
        return np.flatnonzero(np.bincount(found)[found] == 1)

    for place in lone():
        found[wider == wider[place]] = found[place]
    found[lone()] = found[lone()[:1]]
    found[lone()] = np.bincount(found).argmax()
    return np.unique(found, return_inverse=True)[1]


def cluster_weights(strata: Labels, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """Weights of clusters in bootstrap resamples, block by block.

    From a stratum of n clusters n - 1 are drawn with replacement and weighted n / (n - 1): the rescaled
    bootstrap of Rao and Wu (1988, JASA 83), whose variance of a total is the unbiased one. The plain one is
    too narrow by (n - 1) / n, which shows where a stratum has few clusters. A stratum of a single cluster is
    left as it is (see :func:`joined`).

    Args:
        strata: ``(clusters,)`` the stratum of each.
        resamples: how many.
        rng: where the draws come from.

    Yields:
        Blocks ``(rows, clusters)``, ``resamples`` rows in all, so that memory stays bounded.
    """
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    rows = max(1, _BLOCK // max(len(strata), 1))
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        weights = np.ones((n, len(strata)))
        for inside in members:
            size = len(inside)
            if size > 1:
                drawn = rng.integers(0, size, (n, size - 1)) + size * np.arange(n)[:, None]
                counts = np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size)
                weights[:, inside] = counts * (size / (size - 1))
        yield weights


def sign_flip_p(contributions: Array, strata: Labels, permutations: int, rng: np.random.Generator) -> Array:
    """Two-sided p-values of paired differences: whole clusters swap their two sides at random.

    Swapping a cluster turns the sign of what it contributes to a difference. The statistic is the difference
    over its standard error within strata, computed anew for every permutation: exact where the sides are
    exchangeable, and still right in large samples where strata move apart and only their mean does not
    (Janssen 1997), as when a model trades misses for false alarms. The observed arrangement counts as one of
    them (Phipson and Smyth 2010), so that no p-value is 0.

    Args:
        contributions: ``(clusters, K)`` to each of K differences; their sums are the differences.
        strata: ``(clusters,)`` the stratum of each.
        permutations: how many.
        rng: where the signs come from.

    Returns:
        ``(K,)`` p-values; 1 where no cluster contributes.
    """
    moving = np.flatnonzero(np.abs(contributions).max(1) > 0)
    labels, sizes = np.unique(strata, return_counts=True)
    scales = np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), 0.0)
    inside = [np.flatnonzero(strata[moving] == label) for label in labels]
    values = contributions[moving]

    def statistic(signs: Array) -> Array:
        total = np.zeros((len(signs), values.shape[1]))
        variance = np.zeros_like(total)
        for places, size, scale in zip(inside, sizes, scales, strict=True):
            part = signs[:, places] @ values[places]
            total += part
            variance += scale * ((values[places] ** 2).sum(0) - part**2 / size)
        sizeless = np.where(np.abs(total) > 1e-9, np.inf, 0.0)
        certain = variance < 1e-12
        return np.where(certain, sizeless, np.abs(total) / np.sqrt(np.where(certain, 1.0, variance)))

    observed = statistic(np.ones((1, len(moving))))[0]
    reached = np.zeros(values.shape[1])
    rows = max(1, _BLOCK // max(len(moving), 1))
    for start in range(0, permutations, rows):
        n = min(rows, permutations - start)
        signs = np.where(rng.integers(0, 2, (n, len(moving)), dtype=np.int8), 1.0, -1.0)
        reached += (statistic(signs) >= observed - 1e-9).sum(0)
    p: Array = (1 + reached) / (1 + permutations)
    return p


def percentile_interval(
    replicates: Array, confidence: float = 0.95, freedom: float = math.inf
) -> tuple[Array, Array]:
    """Lower and upper bound from bootstrap replicates ``(resamples, …)``; NaN replicates are left out.

    With few clusters percentiles are too narrow, as a normal interval is beside a t interval. So the tails
    are those of a normal distribution beyond the t quantile (Hesterberg 2015, American Statistician 69).

    Args:
        replicates: of the bootstrap.
        confidence: of the interval.
        freedom: clusters less strata.

    >>> draws = np.random.default_rng(0).normal(size=(100_000, 1))
    >>> percentile_interval(draws)[1].round(1), percentile_interval(draws, freedom=4)[1].round(1)
    (array([2.]), array([2.8]))
    """
    reach = stats.t.ppf(0.5 + confidence / 2, freedom) if math.isfinite(freedom) else None
    tail = 50 * (1 - confidence) if reach is None else 100 * float(stats.norm.sf(reach))
    with absent_is_nan():
        low, high = np.nanpercentile(replicates, [tail, 100 - tail], axis=0)
    return low, high


def unmoved_interval(value: float, clusters: int, confidence: float = 0.95) -> tuple[float, float]:
    """Bounds of a difference in points that is the same in every cluster, so that no resample moves it.

    Other clusters need not be like these: with n alike, the share of such clusters is at least
    ((1 - confidence) / 2)^(1 / n) (Clopper and Pearson 1934), and the others may differ by anything from -100
    to 100. One cluster says nothing.

    >>> unmoved_interval(-100.0, 1), [round(x, 1) for x in unmoved_interval(-100.0, 40)]
    ((-100.0, 100.0), [-100.0, -82.4])
    """
    if clusters < 2:
        return -100.0, 100.0
    share = ((1 - confidence) / 2) ** (1 / clusters)
    return share * value - 100 * (1 - share), share * value + 100 * (1 - share)


def standard_error(replicates: Array) -> Array:
    """Standard deviation of bootstrap replicates ``(resamples, …)``; rounding alone is none."""
    with absent_is_nan():
        error: Array = np.nanstd(replicates, axis=0)
    return np.where(error < 1e-9, 0.0, error)


def wilson(share: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion.

    Args:
        share: the proportion found, 0 to 1.
        n: of how many independent trials; for clustered ones the effective number, which need not be whole.
        confidence: of the interval.

    >>> [round(bound, 4) for bound in wilson(0.5, 100)]
    [0.4038, 0.5962]
    """
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    low, high = middle - half, middle + half
    return (0.0 if share == 0 else max(low, 0.0)), (1.0 if share == 1 else min(high, 1.0))


def effective_size(share: float, deviation: float, questions: int, clusters: int) -> float:
    """How many independent questions tell as much about a proportion as the clustered ones do.

    Where all answers are alike the spread within clusters cannot be seen, and each cluster counts once, as
    far as there are questions: of some clusters none may have been answered.

    Args:
        share: the proportion, 0 to 1.
        deviation: its standard deviation over resamples.
        questions: how many there are, the most that can come out.
        clusters: how many clusters they lie in.
    """
    if deviation == 0 or share in (0.0, 1.0):
        return float(min(clusters, questions))
    return min(share * (1 - share) / deviation**2, float(questions))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947) on the answers that differ.

    Args:
        gained: questions wrong before and right now.
        lost: questions right before and wrong now.

    >>> mcnemar(0, 0), round(mcnemar(1, 9), 4)
    (1.0, 0.0215)
    """
    if not gained + lost:
        return 1.0
    return float(stats.binomtest(gained, gained + lost).pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values (1979): those at most alpha are rejected, any false one as rare as alpha.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


def detectable(
    error: float, alpha: float = 0.05, power: float = 0.8, margin: float = 0.0, tests: int = 1
) -> float:
    """The smallest true drop that is found with the power given.

    A drop is found when the difference is significant after adjustment and its interval, which is not
    adjusted, reaches below ``-margin``. With z and z' of a normal distribution at ``alpha / tests`` and at
    ``alpha`` the estimate must lie below ``-max(z error, margin - z' error)``.

    Args:
        error: standard error of the difference.
        alpha: two-sided level, of all tests together.
        power: wanted.
        margin: drop that is tolerated.
        tests: how many p-values are adjusted together.

    >>> round(detectable(1.0), 2)
    2.8
    """
    levels = (1 - alpha / tests / 2, 1 - alpha / 2, power)
    adjusted, plain, beyond = (float(stats.norm.ppf(q)) for q in levels)
    return max(adjusted * error, margin - plain * error) + beyond * error
