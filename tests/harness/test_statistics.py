from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.statistics import (
    cluster_weights,
    detectable,
    effective_size,
    holm,
    joined,
    mcnemar,
    percentile_interval,
    sign_flip_p,
    standard_error,
    wilson,
)


def test_weights_keep_every_stratum_at_its_size_and_have_the_unbiased_variance() -> None:
    strata = np.array([0] * 4 + [1] * 7 + [2])
    blocks = list(cluster_weights(strata, 40_000, np.random.default_rng(0)))
    weights = np.concatenate(blocks)
    assert weights.shape == (40_000, 12)
    for stratum, size in ((0, 4), (1, 7), (2, 1)):
        assert np.allclose(weights[:, strata == stratum].sum(1), size)
    assert (weights[:, -1] == 1).all()  # a single cluster is left as it is
    values = np.random.default_rng(1).normal(size=12)
    expected = sum(
        n * values[strata == s].var(ddof=1) for s, n in ((0, 4), (1, 7))
    )  # variance of a stratified total
    assert np.var(weights @ values) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("strata", "wider", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]),  # nothing is lone
        ([0, 0, 1, 2, 2], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]),  # one normal image goes with its dataset
        ([0, 1, 2], [0, 1, 2], [0, 0, 0]),  # a product a dataset: one with the other
        ([0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 1, 1]),  # the only lone one: the largest
        ([0], [0], [0]),
    ],
)
def test_lone_clusters_are_drawn_with_others(
    strata: list[int], wider: list[int], expected: list[int]
) -> None:
    assert joined(np.array(strata), np.array(wider)).tolist() == expected


def test_weights_come_in_blocks_of_bounded_size() -> None:
    strata = np.zeros(300_000, np.intp)
    blocks = cluster_weights(strata, 100, np.random.default_rng(0))
    assert next(blocks).nbytes <= 40 * 2**20


def test_a_percentile_interval_leaves_out_what_is_absent() -> None:
    replicates = np.array([[float(i), np.nan] for i in range(101)])
    low, high = percentile_interval(replicates, 0.9)
    assert (low[0], high[0]) == pytest.approx((5, 95))
    assert np.isnan(low[1])
    assert np.isnan(high[1])


def test_standard_errors_of_rounding_are_none() -> None:
    assert standard_error(np.array([0.1 + 0.2, 0.3, 0.3])) == 0


@given(st.integers(1, 400), st.data())
def test_wilson_solves_its_own_equation(n: int, data: st.DataObject) -> None:
    share = data.draw(st.integers(0, n)) / n
    for bound in wilson(share, n):
        if 0 < bound < 1:  # the bounds are the shares whose score test rejects at exactly the level
            assert abs(share - bound) == pytest.approx(1.959964 * np.sqrt(bound * (1 - bound) / n), abs=1e-6)


def test_wilson_of_none_and_all() -> None:
    assert wilson(0, 20)[0] == 0
    assert wilson(1, 20)[1] == 1
    assert wilson(0, 20)[1] == pytest.approx(1 - wilson(1, 20)[0])


def test_effective_size_is_the_design_effect() -> None:
    assert effective_size(0.5, 0.05, 400, 80) == pytest.approx(100)
    assert effective_size(0.5, 0.001, 400, 80) == 400  # never more than were asked
    assert effective_size(1.0, 0.0, 400, 80) == 80  # nothing is seen within clusters
    assert effective_size(1.0, 0.2, 1, 80) == 1  # 79 of the images have no answer


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (3, 3), (0, 6), (2, 11), (40, 61)])
def test_mcnemar_is_the_sum_of_binomial_tails(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(stats.binom.pmf(k, n, 0.5) for k in range(min(gained, lost) + 1))
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_adjusts_as_step_by_step_rejection_does(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if (len(p_values) - rank) * p_values[place] > alpha:
                break
            rejected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= alpha} == rejected


def test_sign_flips_enumerated_by_hand() -> None:
    values = np.array([3.0, 1.0, -2.0, 4.0, 0.5, 1.5])
    strata = np.array([0, 0, 0, 1, 1, 1])

    def statistic(signs: np.ndarray) -> float:
        moved = signs * values
        variance = sum(3 * moved[strata == s].var(ddof=1) for s in (0, 1))
        return abs(moved.sum()) / np.sqrt(variance)

    observed = statistic(np.ones(6))
    every = [statistic(np.array(signs)) for signs in itertools.product((1, -1), repeat=6)]
    exact = np.mean([one >= observed - 1e-9 for one in every])
    (p,) = sign_flip_p(values[:, None], strata, 100_000, np.random.default_rng(0))
    assert p == pytest.approx(exact, abs=0.005)


def test_sign_flips_of_no_difference_and_of_one_cluster() -> None:
    nothing = np.zeros((5, 2))
    assert (sign_flip_p(nothing, np.zeros(5, np.intp), 99, np.random.default_rng(0)) == 1).all()
    single = np.array([[1.0], [0.0], [0.0]])
    assert sign_flip_p(single, np.zeros(3, np.intp), 99, np.random.default_rng(0))[0] == 1


def test_trading_misses_for_false_alarms_does_not_hide_a_loss() -> None:
    """Two strata move apart by much, their mean by a little that is certain: plain swaps would drown it."""
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0.5, 0.3, 100), rng.normal(-0.65, 0.3, 100)])[:, None]
    strata = np.repeat([0, 1], 100)
    (studentised,) = sign_flip_p(values, strata, 5_000, np.random.default_rng(0))
    signs = 2.0 * np.random.default_rng(0).integers(0, 2, (5_000, 200)) - 1
    plain = np.mean(np.abs(signs @ values) >= abs(values.sum()))
    assert studentised < 0.01 < plain


def test_detectable_is_where_the_power_is() -> None:
    rng = np.random.default_rng(0)
    for error, margin in ((1.0, 0.0), (1.0, 1.0), (0.1, 1.0), (0.3, 1.0)):
        for tests in (1, 7):
            drop = detectable(error, 0.05, 0.8, margin, tests)
            seen = -drop + error * rng.normal(size=100_000)
            significant = seen < stats.norm.ppf(0.025 / tests) * error  # p-values are adjusted
            found = significant & (seen - 1.96 * error < -margin)  # intervals are not
            assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_few_clusters_widen_an_interval_as_a_t_interval() -> None:
    draws = np.random.default_rng(7).normal(size=(200_000, 1))
    for freedom in (3, 8, 30):
        low, high = percentile_interval(draws, 0.95, freedom)
        wanted = stats.t.ppf(0.975, freedom)
        assert (low[0], high[0]) == pytest.approx((-wanted, wanted), rel=0.05)
    assert percentile_interval(draws, 0.95, 1e9)[1] == pytest.approx(percentile_interval(draws)[1], rel=1e-3)
