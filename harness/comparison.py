"""Two models on the same questions, or two runs of one: the paired difference with interval and tests.

Pairing takes the difficulty of the questions out of the noise, and clusters keep the questions on one image
together. Each score is compared four ways:

* the difference with its percentile interval over bootstrap resamples of clusters;
* a studentised permutation test that swaps both sides of whole clusters (the p-value), whatever is averaged;
* the permutation p-values of the subtasks adjusted by Holm, so that seven looks count as one;
* McNemar's exact test on the single answers that differ, which everybody knows but which takes questions on
  one image for independent.

The smallest difference that would be found four times out of five stands beside it: without that number,
"not significant" says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from harness.averaging import AVERAGE, COLUMNS, COUNTED_WIDTH, Array, Rule, linear
from harness.estimates import RESAMPLES, bootstrap
from harness.panel import Cluster, Panel, QuestionId, difference_of
from harness.records import Answer
from harness.statistics import (
    detectable,
    holm,
    mcnemar,
    percentile_interval,
    sign_flip_p,
    standard_error,
    unmoved_interval,
)
from harness.subtasks import SUBTASK_KEYS

METRICS = (*SUBTASK_KEYS, AVERAGE)


@dataclass(frozen=True, slots=True)
class Test:
    """One score of two sides; scores in percent, differences in points, current minus baseline."""

    __test__ = False  # no test of pytest's

    metric: str
    baseline: float
    current: float
    delta: float
    ci_low: float
    ci_high: float
    p_value: float  #: of the permutation test, two-sided
    p_adjusted: float  #: by Holm over the subtasks; the average stands alone
    mcnemar: float
    gained: int  #: questions wrong before and right now
    lost: int  #: questions right before and wrong now
    error: float  #: standard error of the difference
    detectable: float | None  #: true difference found with 80 % power; None where no answer differs
    n: int  #: questions


@dataclass(frozen=True, slots=True)
class Comparison:
    """All scores of two sides."""

    rule: Rule
    cluster: Cluster
    alpha: float
    n_questions: int
    n_clusters: int
    tests: tuple[Test, ...]  #: the subtasks that were asked, then the average

    def as_json(self) -> dict[str, Any]:
        """For ``--format json``."""
        return asdict(self)


def compare(
    a: Sequence[Answer],
    b: Sequence[Answer],
    rule: Rule = "official",
    *,
    cluster: Cluster = "image",
    resamples: int = RESAMPLES,
    alpha: float = 0.05,
    seed: int = 0,
    names: tuple[str, str] = ("the first", "the second"),
) -> Comparison:
    """Compare two models' answers to the same questions; differences are b minus a.

    Args:
        a: the baseline's answers.
        b: the answers to be judged.
        rule: of averaging.
        cluster: what is drawn and swapped as a whole.
        resamples: of the bootstrap, and as many permutations.
        alpha: level of the tests; the intervals have confidence 1 - alpha.
        seed: of the draws.
        names: what messages call the two; not the same.

    Raises:
        BadInput: the questions differ, or there are none.
    """
    panel = Panel(dict(zip(names, (a, b), strict=True)), rule, cluster)
    replicates = bootstrap(panel, resamples, seed)
    return compare_in(panel, 0, 1, replicates, alpha=alpha, seed=seed)


def compare_in(
    panel: Panel, baseline: int, current: int, replicates: Array, *, alpha: float = 0.05, seed: int = 0
) -> Comparison:
    """Compare two models of a panel whose bootstrap is at hand already.

    Args:
        panel: the models.
        baseline: place of the one in ``panel.models``.
        current: place of the other.
        replicates: of :func:`harness.estimates.bootstrap`; as many permutations are drawn.
        alpha: see :func:`compare`.
        seed: see :func:`compare`.
    """
    sides = [baseline, current]
    values = panel.percentages()[sides, -1]
    observed = values[1] - values[0]
    moved = replicates[:, current, -1] - replicates[:, baseline, -1]
    low, high = percentile_interval(moved, 1 - alpha, panel.freedom)
    error = standard_error(moved)
    # A stream of its own: the permutations do not depend on the bootstrap's draws.
    rng = np.random.default_rng([seed, 1])
    p_values = sign_flip_p(contributions(panel, baseline, current), panel.strata, len(replicates), rng)
    before, now = panel.right[sides]
    present = [metric for metric in METRICS if not np.isnan(observed[COLUMNS.index(metric)])]
    subtasks = len([metric for metric in present if metric != AVERAGE])
    tests = []
    for metric in present:
        at = COLUMNS.index(metric)
        inside = np.ones_like(now) if metric == AVERAGE else panel.column == SUBTASK_KEYS.index(metric)
        gained, lost = int((now & ~before & inside).sum()), int((before & ~now & inside).sum())
        tests_of = 1 if metric == AVERAGE else subtasks
        if observed[at] and not error[at]:
            low[at], high[at] = unmoved_interval(observed[at], panel.clusters_of(metric), 1 - alpha)
        tests.append(
            Test(
                metric=metric,
                baseline=float(values[0, at]),
                current=float(values[1, at]),
                delta=float(observed[at]),
                ci_low=float(low[at]),
                ci_high=float(high[at]),
                p_value=float(p_values[at]),
                p_adjusted=float(p_values[at]),
                mcnemar=mcnemar(gained, lost),
                gained=gained,
                lost=lost,
                error=float(error[at]),
                detectable=detectable(float(error[at]), alpha, tests=tests_of) if error[at] else None,
                n=int(inside.sum()),
            )
        )
    clusters = len(panel.dataset)
    return Comparison(panel.rule, panel.cluster, alpha, len(now), clusters, adjusted(tests))


def adjusted(tests: Sequence[Test]) -> tuple[Test, ...]:
    """The tests with p-values of subtasks adjusted among themselves, and those of averages likewise."""
    found = list(tests)
    for average in (False, True):
        family = [i for i, test in enumerate(tests) if (test.metric == AVERAGE) == average]
        for i, p in zip(family, holm([tests[i].p_value for i in family]), strict=True):
            found[i] = replace(found[i], p_adjusted=p)
    return tuple(found)


def contributions(panel: Panel, baseline: int, current: int) -> Array:
    """What each cluster contributes to the differences of the last row: ``(C, 10)``; the sums are exact.

    A cell is the ratio of correct to asked (or answered). With r the ratio of both sides together and h the
    harmonic mean of their totals, a cluster contributes (correct - r asked) / h of its current side less the
    same of its baseline: swapping its sides turns the sign, and one whose sides are alike contributes
    nothing, however many answers either side lacks elsewhere. The rule then averages over cells, which is
    linear.
    """
    size = len(panel.dataset)
    numerators = panel.correct[[baseline, current]]
    answered = panel.answered[[baseline, current]]
    denominators = answered if panel.rule == "official" else np.stack([panel.asked, panel.asked])
    cells = np.zeros((size, len(panel.datasets), COUNTED_WIDTH))
    asked = np.zeros((len(panel.datasets), COUNTED_WIDTH))
    pooled = panel.rule == "pooled"
    for place in range(1 if pooled else len(panel.datasets)):
        inside = np.arange(size) if pooled else np.flatnonzero(panel.dataset == place)
        top, bottom = numerators[:, inside], denominators[:, inside]
        # A side without any answer scores 0, as if all it was asked had been answered wrongly.
        bottom = np.where(bottom.sum(1, keepdims=True) > 0, bottom, panel.asked[inside])
        totals = np.maximum(bottom.sum(1), 1)
        ratio = top.sum((0, 1)) / np.maximum(bottom.sum((0, 1)), 1)
        parts = (top - ratio * bottom) * totals.sum(0) / (2 * totals.prod(0))
        cells[inside, place] = parts[1] - parts[0]
        asked[place] = panel.asked[inside].sum(0)
    return 100 * linear(cells, asked > 0, panel.rule)


def shared(
    a: Sequence[Answer], b: Sequence[Answer]
) -> tuple[tuple[Answer, ...], tuple[Answer, ...], Mapping[QuestionId, str]]:
    """The answers of each side to questions that both have, and how those differ that only look alike.

    Returns:
        Answers of a, of b in the same order, and question -> difference of those left out although both have
        an answer under that image and number.
    """
    others = {(answer.key, answer.number): answer for answer in b}
    pairs, differing = [], {}
    for answer in a:
        question = (answer.key, answer.number)
        if question not in others:
            continue
        differs = difference_of(answer, others[question])
        if differs:
            differing[question] = differs
        else:
            pairs.append((answer, others[question]))
    return tuple(one for one, _ in pairs), tuple(other for _, other in pairs), differing
