"""Who is best, where it can be told."""

from __future__ import annotations

import numpy as np
import pytest

from reports.ranking import ranks


def spread(values: list[float], noise: float = 1.0, shared: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    found = np.array(values)
    common = shared * rng.normal(size=(2000, 1))
    return found, found + common + noise * rng.normal(size=(2000, len(values)))


def test_ties_share_a_rank() -> None:
    assert ranks(*spread([90.0, 80.0, 79.5, 60.0])) == [1, 2, 2, 0]


def test_behind_several_that_are_best_nobody_is_second() -> None:
    assert ranks(*spread([90.0, 89.5, 80.0, 79.0, 60.0])) == [1, 1, 0, 0, 0]


def test_nothing_is_marked_where_nothing_can_be_told() -> None:
    assert ranks(*spread([50.0, 50.5, 49.0])) == [0, 0, 0]
    assert ranks(*spread([50.0])) == [0]


def test_of_two_none_is_second() -> None:
    assert ranks(*spread([90.0, 50.0])) == [1, 0]


def test_noise_that_models_share_hides_no_difference() -> None:
    """The difference is paired: what moves all models alike does not tie them."""
    assert ranks(*spread([52.0, 50.0, 40.0], noise=0.2, shared=30.0)) == [1, 2, 0]


def test_a_model_without_the_score_has_no_rank() -> None:
    values, replicates = spread([90.0, 50.0, 10.0])
    values[0], replicates[:, 0] = np.nan, np.nan
    assert ranks(values, replicates) == [0, 1, 0]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_order_of_models_does_not_matter(order: list[int]) -> None:
    values, replicates = spread([90.0, 89.5, 70.0, 60.0])
    moved = ranks(values[order], replicates[:, order])
    assert [moved[order.index(place)] for place in range(4)] == [1, 1, 0, 0]
