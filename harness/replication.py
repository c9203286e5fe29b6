"""Arms that were trained several times: what a difference is worth when seeds *and* images are a sample.

A training with another seed gives another model, and another benchmark of the same kind other questions. A
difference of two arms' means has an error of both kinds. They add::

    error^2 = s^2 / S + e^2

with s the standard deviation of the difference over S paired seeds, and e the error of the seeds' mean
difference over images, by cluster. What seeds and images make together is counted in both, so that the error
is rather too large than too small. Degrees of freedom are Satterthwaite's (1946).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.averaging import COLUMNS, Array, Rule
from harness.errors import BadInput
from harness.estimates import bootstrap
from harness.panel import Panel, QuestionId
from harness.records import Answer
from harness.statistics import holm, standard_error

Runs = Mapping[int, Sequence[Answer]]  #: seed -> answers
Mask = NDArray[np.bool_]
#: The difficulty strata of the protocol: upper bounds of the share of right answers before stage 2.
STRATA = (0.0, 0.15, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """One score over seeds, in percent."""

    mean: float
    deviation: float | None  #: standard deviation over seeds; None with one seed
    n: int  #: seeds

    @classmethod
    def of(cls, values: Array) -> Spread:
        """Of a score of each seed ``(S,)``."""
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        return cls(float(values.mean()), deviation, len(values))


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """Two arms on one score: ``better`` minus ``worse`` in points, paired by seed and question."""

    delta: float
    low: float  #: NaN, as high and p are, with one pair of trainings, or where nothing was seen to vary
    high: float
    p_value: float  #: two-sided, over seeds and images
    p_seeds: float | None  #: paired t-test over seeds alone, on these very questions; None with one pair
    deviation: float | None  #: of the difference over seeds
    seed_error: float
    image_error: float
    n: int  #: pairs of seeds
    images: int  #: clusters that the questions lie on


class Replicated:
    """Several arms' runs on the same questions.

    Args:
        arms: arm -> its runs; each at least one.
        rule: of averaging.
        fixed: arms that no seed changes, such as a base: one run of theirs is all there is to know.
        resamples: of images, for their error.
        seed: of the resampling.

    Raises:
        BadInput: the runs did not answer the same questions.
    """

    def __init__(
        self,
        arms: Mapping[str, Runs],
        rule: Rule = "official",
        *,
        fixed: Collection[str] = (),
        resamples: int = 2000,
        seed: int = 0,
    ) -> None:
        if not arms or not all(arms.values()):
            raise BadInput("an arm without a run has no spread; run it first")
        self.seeds = {arm: tuple(runs) for arm, runs in arms.items()}
        self.fixed = frozenset(fixed)
        if several := sorted(arm for arm in self.fixed & self.seeds.keys() if len(self.seeds[arm]) > 1):
            raise BadInput(f"{several[0]} has several runs, but no seed changes it; keep one")
        self.panel = Panel(
            {_name(arm, s): given for arm, runs in arms.items() for s, given in runs.items()}, rule
        )
        self._values = self.panel.percentages()[:, -1]
        self._replicates = bootstrap(self.panel, resamples, seed)[:, :, -1]

    def values(self, arm: str, metric: str) -> Array:
        """``(S,)`` a score of every run of an arm."""
        found: Array = self._values[self._places(arm, self.seeds[arm]), COLUMNS.index(metric)]
        return found

    def spread(self, arm: str, metric: str) -> Spread:
        """Mean and standard deviation over an arm's seeds."""
        return Spread.of(self.values(arm, metric))

    def difference(self, better: str, worse: str, metric: str, confidence: float = 0.95) -> SeedDifference:
        """Two arms on one score, paired by seed; a fixed arm's run is paired with every run."""
        pairs = self._pairs(better, worse)
        column = COLUMNS.index(metric)
        first, second = (
            self._places(arm, seeds)
            for arm, seeds in zip((better, worse), zip(*pairs, strict=True), strict=True)
        )
        deltas = self._values[first, column] - self._values[second, column]
        moved = (self._replicates[:, first, column] - self._replicates[:, second, column]).mean(1)
        found = combined(deltas, float(standard_error(moved)), self.panel.clusters_of(metric), confidence)
        return self._honest(found, better, worse)

    def can_compare(self, one: str, other: str) -> bool:
        """Whether both have runs, and two trainings a seed in common."""
        if not {one, other} <= self.seeds.keys():
            return False
        return bool(self.fixed & {one, other}) or not set(self.seeds[one]).isdisjoint(self.seeds[other])

    def in_stratum(self, arm: str, chosen: Mask) -> Array:
        """``(S,)`` percent of an arm's answers that are right among the chosen questions ``(Q,)``."""
        right = self.panel.right[self._places(arm, self.seeds[arm])][:, chosen]
        return 100 * right.mean(1) if chosen.any() else np.full(len(right), np.nan)

    def stratum_difference(
        self, better: str, worse: str, chosen: Mask, other: Mask | None = None
    ) -> SeedDifference | None:
        """:meth:`difference` of the plain accuracy on the chosen questions.

        Args:
            better: an arm.
            worse: the arm that is subtracted.
            chosen: ``(Q,)`` which questions.
            other: ``(Q,)`` questions whose difference is subtracted in turn: is it larger on the chosen ones?
                Seeds that gain on some questions may lose on others, so this has an error of its own.

        Returns:
            None where either choice lies on fewer than two images, which tell nothing of others.
        """
        parts = [(chosen, 1.0)] if other is None else [(chosen, 1.0), (other, -1.0)]
        images = np.array([key for key, _ in self.panel.questions])
        if any(len(set(images[part])) < 2 for part, _ in parts):
            return None
        first, second = (
            self._places(arm, seeds)
            for arm, seeds in zip((better, worse), zip(*self._pairs(better, worse), strict=True), strict=True)
        )
        gaps = 100.0 * (self.panel.right[first].astype(float) - self.panel.right[second])
        deltas = sum(sign * gaps[:, part].mean(1) for part, sign in parts)
        influence = np.zeros(gaps.shape[1])
        for part, sign in parts:
            influence[part] += sign * influences(gaps.mean(0)[part])
        asked = np.any([part for part, _ in parts], axis=0)
        error = clustered_error(influence[asked], images[asked])
        found = combined(np.asarray(deltas), error, len(set(images[asked])))
        return self._honest(found, better, worse)

    def _honest(self, found: SeedDifference, better: str, worse: str) -> SeedDifference:
        """Without interval and p where a training was run once: its spread over seeds is not known."""
        if found.n > 1 or {better, worse} <= self.fixed:
            return found
        return replace(found, low=math.nan, high=math.nan, p_value=math.nan)

    def _pairs(self, one: str, other: str) -> list[tuple[int, int]]:
        """Seeds that belong together.

        A training that has one run so far is not paired with other seeds: its own spread would be missing.
        """
        first, second = self.seeds[one], self.seeds[other]
        if self.fixed & {one, other}:
            return [(a, b) for a in first for b in second]
        both = [seed for seed in first if seed in second]
        if not both:
            raise BadInput(
                f"{one} and {other} have no seed in common; run one of them with the other's seeds"
            )
        return [(seed, seed) for seed in both]

    def _places(self, arm: str, seeds: Sequence[int]) -> list[int]:
        return [self.panel.models.index(_name(arm, seed)) for seed in seeds]


def combined(deltas: Array, image_error: float, clusters: int, confidence: float = 0.95) -> SeedDifference:
    """A mean difference with its error over seeds and images.

    Args:
        deltas: ``(S,)`` the difference of each pair of seeds.
        image_error: standard error of their mean over images.
        clusters: images.
        confidence: of the interval.
    """
    count = len(deltas)
    deviation = float(deltas.std(ddof=1)) if count > 1 else None
    seed_error = (deviation or 0.0) / math.sqrt(count)
    delta = float(deltas.mean())
    parts = ((seed_error, count), (image_error, clusters))
    low, high, p_value = _tested(delta, parts, confidence)
    p_seeds = 2 * float(stats.t.sf(abs(delta) / seed_error, count - 1)) if seed_error else None
    return SeedDifference(
        delta, low, high, p_value, p_seeds, deviation, seed_error, image_error, count, clusters
    )


def contrast(
    one: SeedDifference, other: SeedDifference, confidence: float = 0.95
) -> tuple[float, float, float, float]:
    """How much larger one difference is than another that shares neither trainings nor images with it.

    Returns:
        Points, the ends of their interval, and the two-sided p; NaN but for the points where an error of
        either is not known.
    """
    delta = one.delta - other.delta
    if math.isnan(one.p_value) or math.isnan(other.p_value):
        return delta, math.nan, math.nan, math.nan
    parts = [part for d in (one, other) for part in ((d.seed_error, d.n), (d.image_error, d.images))]
    return delta, *_tested(delta, parts, confidence)


def _tested(
    delta: float, parts: Sequence[tuple[float, int]], confidence: float
) -> tuple[float, float, float]:
    """Interval and two-sided p of a difference, given its errors and of how many values each is.

    Variances add; Satterthwaite's degrees of freedom. NaN where nothing was seen to vary: that says too few
    were looked at, not that there is certainty.
    """
    variances = [(error**2, max(count - 1, 1)) for error, count in parts]
    error = math.sqrt(sum(variance for variance, _ in variances))
    if error == 0:
        return math.nan, math.nan, math.nan
    freedom = error**4 / sum(variance**2 / df for variance, df in variances)
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    return delta - reach, delta + reach, 2 * float(stats.t.sf(abs(delta) / error, freedom))


def influences(values: Array) -> Array:
    """What each value ``(n,)`` adds to their mean beyond its share; they sum to 0."""
    added: Array = (values - values.mean()) / len(values)
    return added


def clustered_error(influence: Array, clusters: Sequence[str] | Array) -> float:
    """Standard error of a statistic whose values stand and fall together within clusters.

    The usual linearised one: of a mean, or of a difference of means, given each value's influence on it.
    0 with a single cluster.

    >>> round(clustered_error(influences(np.array([1.0, 1.0, 0.0, 0.0])), ["a", "a", "b", "b"]), 4)
    0.5
    """
    _, place = np.unique(np.array(clusters), return_inverse=True)
    count = int(place.max()) + 1
    if count < 2:
        return 0.0
    totals = np.bincount(place, influence, count)
    return math.sqrt(count / (count - 1) * float((totals**2).sum()))


def stratum_of(chances: Mapping[QuestionId, float], questions: Sequence[QuestionId]) -> Array:
    """``(Q,)`` the stratum of each question by :data:`STRATA`; -1 where nothing was drawn."""
    found = [chances.get(question) for question in questions]
    return np.array([-1 if chance is None else stratum(chance) for chance in found])


def stratum(chance: float) -> int:
    """Which of :data:`STRATA` a share of right answers lies in.

    >>> [stratum(right / 20) for right in (0, 1, 3, 4, 10, 11, 20)]
    [0, 1, 1, 2, 2, 3, 3]
    """
    return int(np.searchsorted(STRATA, chance - 1e-9))


def holm_adjusted(differences: Sequence[SeedDifference], claims: int | None = None) -> tuple[float, ...]:
    """p-values of several claims, adjusted for each other.

    Args:
        differences: what has been measured.
        claims: how many there are in all; those that cannot be tested yet count as not shown.
    """
    known = [1.0 if math.isnan(one.p_value) else one.p_value for one in differences]
    missing = max(0, (claims or 0) - len(known))
    return holm([*known, *[1.0] * missing])[: len(known)]


def median_seed(values: Mapping[int, float]) -> int:
    """The seed whose score is the median; of two in the middle the lower one, of equal ones the smaller seed.

    >>> median_seed({0: 70.0, 1: 73.0, 2: 71.0, 3: 72.0})
    2
    """
    order = sorted(values, key=lambda seed: (values[seed], seed))
    return order[(len(order) - 1) // 2]


def _name(arm: str, seed: int) -> str:
    return f"{arm}:{seed}"
