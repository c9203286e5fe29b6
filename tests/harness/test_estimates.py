from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from harness.averaging import COLUMNS, RULES, Rule
from harness.errors import BadInput
from harness.estimates import bootstrap, estimate
from harness.panel import Panel
from harness.scoring import score
from harness.statistics import wilson
from tests.harness.synthetic import answer, answers, clustered, questions
from tests.harness.test_scoring import COUNT_COLUMNS, GPT_4O_MINI, INTERNVL2_8B, PUBLISHED_COUNTS

SMALL = questions(20)


@pytest.mark.parametrize("rule", RULES)
def test_values_are_the_scores(rule: Rule) -> None:
    rng = np.random.default_rng(0)
    given = answers(SMALL, clustered(SMALL, 0.6, 0.3, rng), silent=lambda place: place % 7 == 0)
    rows = estimate({"m": given}, rule, resamples=100)["m"].rows
    for dataset, row in score(given, rule).rows.items():
        for column in COLUMNS:
            found = rows[dataset][column]
            assert (None if found is None else found.value) == pytest.approx(row[column])
            assert found is None or 0 <= found.low <= found.value <= found.high <= 100


def test_neither_order_nor_company_changes_an_interval() -> None:
    rng = np.random.default_rng(0)
    given = answers(SMALL, clustered(SMALL, 0.6, 0.3, rng))
    other = answers(SMALL, clustered(SMALL, 0.4, 0.3, rng))
    alone = estimate({"m": given}, resamples=500)["m"]
    shuffled = random.Random(1).sample(given, len(given))
    assert estimate({"m": shuffled, "other": other}, resamples=500)["m"] == alone


def test_a_replicate_is_the_score_of_the_images_drawn() -> None:
    """Weights that are whole numbers are answers said over again: the bootstrap uses the rule itself."""
    rng = np.random.default_rng(4)
    given = answers(SMALL, clustered(SMALL, 0.5, 0.5, rng))
    for rule in RULES:
        panel = Panel({"m": given}, rule)
        weights = rng.integers(0, 3, (1, len(panel.dataset))).astype(float)
        keys = sorted({one.key for one in given})
        repeated = [one for one in given for _ in range(int(weights[0, keys.index(one.key)]))]
        (table,) = panel.weighted(iter([weights]))
        rows = score(repeated, rule).rows
        for place, name in enumerate((*panel.datasets, "average")):
            for column, value in zip(COLUMNS, table[0, 0, place], strict=True):
                expected = rows[name][column]
                assert np.isnan(value) if expected is None else value == pytest.approx(expected)


def test_all_right_and_all_wrong_still_have_an_interval() -> None:
    for good, share in ((True, 1.0), (False, 0.0)):
        rows = estimate({"m": answers(SMALL, [good] * len(SMALL))}, resamples=100)["m"].rows
        cell = rows["D"]["defect_classification"]
        assert cell is not None
        assert [cell.low / 100, cell.high / 100] == pytest.approx(wilson(share, 10))  # ten images
        average = rows["average"]["average"]
        assert average is not None
        assert average.high - average.low > 5


def test_a_single_answer_is_no_more_than_one() -> None:
    asked = [(f"D/o/bad/{i}.png", 0, "defect_analysis") for i in range(50)]
    given = answers(asked, [True] * 50, silent=lambda place: place > 0)
    cell = estimate({"m": given}, resamples=100)["m"].rows["D"]["defect_analysis"]
    assert cell is not None
    assert [cell.low / 100, cell.high / 100] == pytest.approx(wilson(1.0, 1))


def test_images_that_stand_and_fall_together_widen_the_interval() -> None:
    asked = questions(200, ("D",))
    widths = []
    for within in (0.0, 1.0):
        right = clustered(asked, 0.5, within, np.random.default_rng(0))
        cell = estimate({"m": answers(asked, right)}, resamples=2_000)["m"].rows["D"]["object_analysis"]
        assert cell is not None
        widths.append(cell.high - cell.low)
    assert widths[1] > 1.3 * widths[0]


def test_whole_products_can_be_drawn() -> None:
    asked = questions(200, ("D",), objects=8)
    of_object = {name: name in ("o0", "o3", "o5") for name in (f"o{i}" for i in range(8))}
    given = answers(asked, [of_object[key.split("/")[1]] for key, *_ in asked])
    by_image, by_object = (
        estimate({"m": given}, cluster=cluster, resamples=500)["m"].rows["average"]["average"]
        for cluster in ("image", "object")
    )
    assert by_image is not None
    assert by_object is not None
    assert (by_object.clusters, by_image.clusters) == (8, 200)
    assert by_object.high - by_object.low > 2 * (by_image.high - by_image.low)


def test_models_that_were_asked_otherwise_are_estimated_by_themselves() -> None:
    few, many = questions(10), questions(20)
    found = estimate({"few": answers(few, [True] * len(few)), "many": answers(many, [True] * len(many))})
    sizes = {model: one.rows["average"]["average"] for model, one in found.items()}
    assert {model: cell and cell.n for model, cell in sizes.items()} == {"few": len(few), "many": len(many)}


def test_refusals() -> None:
    with pytest.raises(BadInput, match="no answers"):
        estimate({"m": []})
    with pytest.raises(BadInput, match="no cluster 'plant'"):
        estimate({"m": answers(SMALL, [True] * len(SMALL))}, cluster="plant")  # type: ignore[arg-type]
    twice = [answer("D/o/good/1.png", 0, "object_analysis", "A")] * 2
    with pytest.raises(BadInput, match=r"question 0 of D/o/good/1\.png is answered twice"):
        estimate({"m": twice})


TRUTH = 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "columns"),
    [
        ("official", ("average", "anomaly_discrimination", "defect_localization")),
        ("pooled", ("average", "object_analysis")),
    ],
)
def test_intervals_cover_the_truth_95_times_in_100(rule: Rule, columns: tuple[str, ...]) -> None:
    """On images whose questions correlate; each trial is another benchmark of the same world."""
    asked = questions(120)
    trials, covered = 1_200, Counter[str]()
    rng = np.random.default_rng(11)
    for trial in range(trials):
        given = answers(asked, clustered(asked, TRUTH, 0.3, rng))
        rows = estimate({"m": given}, rule, resamples=600, seed=trial)["m"].rows["average"]
        for column in columns:
            cell = rows[column]
            assert cell is not None
            covered[column] += cell.low <= 100 * TRUTH <= cell.high
    for column in columns:
        assert 0.93 <= covered[column] / trials <= 0.97, (column, covered[column] / trials)


def test_the_bootstrap_is_seeded() -> None:
    panel = Panel({"m": answers(SMALL, clustered(SMALL, 0.5, 0.2, np.random.default_rng(0)))})
    first, again, other = (bootstrap(panel, 50, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)


@pytest.mark.parametrize(
    ("counts", "average", "pooled"),
    [(INTERNVL2_8B[0], 63.1375, 63.15), (GPT_4O_MINI[0], 66.2920, 66.22)],
    ids=["InternVL2-8B", "gpt-4o-mini"],
)
def test_published_models_with_intervals(
    counts: dict[str, tuple[int, ...]], average: float, pooled: float
) -> None:
    """MMAD's own counts, laid out one question of each kind an image: 39,672 answers."""
    given = []
    for dataset, totals in PUBLISHED_COUNTS.items():
        for column, total, right in zip(COUNT_COLUMNS, totals, counts[dataset], strict=True):
            kind = "good" if column == "normal" else "bad"
            subtask = "anomaly_discrimination" if column in ("normal", "anomalous") else column
            number = COUNT_COLUMNS.index(column)
            given += [
                answer(f"{dataset}/o/{kind}/{i}.png", number, subtask, "A" if i < right else "B")
                for i in range(total)
            ]
    assert 100 * sum(one.letter == one.correct for one in given) / len(given) == pytest.approx(
        pooled, abs=5e-3
    )
    rows = estimate({"m": given}, resamples=2_000)["m"].rows
    found = rows["average"]["average"]
    assert found is not None
    assert found.value == pytest.approx(average, abs=5e-5)
    assert found.n == 39_672
    assert found.low < average < found.high
    assert found.high - found.low < 2  # the noise of a full MMAD run is about a point
    cell = rows["VisA"]["object_classification"]
    assert cell is not None
    assert cell.low < cell.value < cell.high
