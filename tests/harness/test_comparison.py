from __future__ import annotations

import numpy as np
import pytest

from harness.averaging import COLUMNS, RULES, Rule
from harness.comparison import Comparison, Test, compare, contributions, shared
from harness.errors import BadInput
from harness.panel import Panel
from harness.scoring import score
from harness.statistics import mcnemar
from tests.harness.synthetic import answer, answers, clustered, questions

ASKED = questions(40)


def sides(drop: float = 0.2, seed: int = 0) -> tuple[list, list]:
    rng = np.random.default_rng(seed)
    before = clustered(ASKED, 0.7, 0.3, rng)
    now = np.where(rng.random(len(ASKED)) < drop, False, before)
    return answers(ASKED, before), answers(ASKED, now, silent=lambda place: place % 11 == 0)


def of(found: Comparison, metric: str) -> Test:
    return next(test for test in found.tests if test.metric == metric)


@pytest.mark.parametrize("rule", RULES)
def test_the_difference_is_that_of_the_scores(rule: Rule) -> None:
    before, now = sides()
    found = compare(before, now, rule, resamples=200)
    rows = [score(side, rule).rows["average"] for side in (before, now)]
    assert [test.metric for test in found.tests] == [
        "anomaly_discrimination",
        "defect_classification",
        "defect_localization",
        "object_analysis",
        "average",
    ]
    for test in found.tests:
        old, new = (row[test.metric] for row in rows)
        assert (test.baseline, test.current) == pytest.approx((old, new))
        assert test.delta == pytest.approx((new or 0) - (old or 0))
        assert test.ci_low <= test.delta <= test.ci_high
        assert test.mcnemar == mcnemar(test.gained, test.lost)
    assert of(found, "average").n == len(ASKED) == sum(test.n for test in found.tests) - len(ASKED)


@pytest.mark.parametrize("rule", RULES)
def test_contributions_of_clusters_add_up_to_the_difference(rule: Rule) -> None:
    before, now = sides()
    panel = Panel({"before": before, "now": now}, rule)
    parts = contributions(panel, 0, 1)
    values = panel.percentages()[:, -1]
    present = ~np.isnan(values[0])
    assert parts.sum(0)[present] == pytest.approx((values[1] - values[0])[present])
    assert contributions(panel, 1, 0) == pytest.approx(-parts)


@pytest.mark.parametrize("rule", RULES)
def test_a_model_that_falls_silent_differs_under_every_rule(rule: Rule) -> None:
    before, _ = sides()
    silent = answers(ASKED, [False] * len(ASKED), silent=lambda place: True)
    panel = Panel({"before": before, "now": silent}, rule)
    values = panel.percentages()[:, -1]
    present = ~np.isnan(values[0])
    parts = contributions(panel, 0, 1).sum(0)[present]
    assert parts == pytest.approx((values[1] - values[0])[present])
    for test in compare(before, silent, rule, resamples=400).tests:
        assert test.delta < -50 and test.p_adjusted < 0.05


@pytest.mark.parametrize("rule", RULES)
def test_clusters_answered_alike_contribute_nothing(rule: Rule) -> None:
    """One wrong answer against one that is missing: a single image, so no permutation tells them apart."""
    right = [place != 7 for place in range(len(ASKED))]
    before, now = answers(ASKED, right), answers(ASKED, right, silent=lambda place: place == 7)
    panel = Panel({"before": before, "now": now}, rule)
    parts = contributions(panel, 0, 1)
    assert (np.abs(parts).max(1) > 0).sum() == (1 if rule == "official" else 0)
    for test in compare(before, now, rule, resamples=400).tests:
        assert test.p_value == 1.0
    values = panel.percentages()[:, -1]
    present = ~np.isnan(values[0])
    assert parts.sum(0)[present] == pytest.approx((values[1] - values[0])[present])


def test_one_product_a_dataset_is_not_certain() -> None:
    """Each dataset's only product loses a little: as strata of their own they would have no spread at all."""
    asked = questions(40, ("D", "E", "F"), objects=1)
    now = [key.startswith("E") or place % 9 > 0 for place, (key, *_) in enumerate(asked)]
    found = compare(answers(asked, [True] * len(asked)), answers(asked, now), cluster="object", resamples=400)
    average = of(found, "average")
    assert average.error > 0
    assert average.ci_low < average.delta < average.ci_high


def test_of_one_image_nothing_is_known() -> None:
    asked = [("D/o/bad/0.png", number, "defect_analysis") for number in range(60)]
    before, now = answers(asked, [True] * 60), answers(asked, [False, *[True] * 59])
    for test in compare(before, now, resamples=100).tests:
        assert (test.ci_low, test.ci_high, test.p_value) == (-100, 100, 1)
    assert of(compare(before, before, resamples=100), "average").ci_low == 0


def test_turning_the_sides_turns_the_sign_and_nothing_else() -> None:
    before, now = sides()
    there, back = compare(before, now, resamples=400), compare(now, before, resamples=400)
    for one, other in zip(there.tests, back.tests, strict=True):
        assert one.delta == pytest.approx(-other.delta)
        assert (one.ci_low, one.ci_high) == pytest.approx((-other.ci_high, -other.ci_low))
        assert (one.p_value, one.gained, one.lost) == (other.p_value, other.lost, other.gained)


def test_the_same_answers_do_not_differ() -> None:
    before, _ = sides()
    for test in compare(before, before, resamples=100).tests:
        assert (test.delta, test.ci_low, test.ci_high) == (0, 0, 0)
        assert (test.p_value, test.mcnemar, test.detectable) == (1, 1, None)


def test_p_values_are_adjusted_over_subtasks_and_the_average_stands_alone() -> None:
    found = compare(*sides(0.1), resamples=500)
    subtasks = [test for test in found.tests if test.metric != "average"]
    assert all(test.p_adjusted >= test.p_value for test in subtasks)
    least = min(subtasks, key=lambda test: test.p_value)
    assert least.p_adjusted == pytest.approx(min(1.0, len(subtasks) * least.p_value))
    assert of(found, "average").p_adjusted == of(found, "average").p_value


def test_a_permutation_on_one_image_alone_agrees_with_mcnemar() -> None:
    """With one question an image, one stratum and no macro-average, both tests ask the same thing."""
    asked = [(f"D/o/bad/{i}.png", 0, "defect_analysis") for i in range(200)]
    rng = np.random.default_rng(5)
    before = rng.random(200) < 0.7
    now = np.where(rng.random(200) < 0.12, ~before, before)
    (test, _) = compare(answers(asked, before), answers(asked, now), "pooled", resamples=20_000).tests
    assert test.p_value == pytest.approx(test.mcnemar, abs=0.02)


def test_other_questions_are_refused_by_name() -> None:
    before, now = sides()
    with pytest.raises(BadInput, match=r"1 are in one of them only, .* question 3 of E/o4.* --common"):
        compare(before, now[:-1])
    turned = [*now[:-1], answer(*ASKED[-1], "A")]
    other = [*before[:-1], answer(ASKED[-1][0], ASKED[-1][1], "defect_analysis", "A")]
    with pytest.raises(BadInput, match=r"question 3 of E/o4/.*the subtask is"):
        compare(turned, other)


def test_what_both_share_can_be_compared() -> None:
    before, now = sides()
    fewer = [*now[4:-1], answer(ASKED[-1][0], ASKED[-1][1], "defect_analysis", "A")]
    old, new, differing = shared(before, fewer)
    assert len(old) == len(new) == len(now) - 5
    assert list(differing) == [(ASKED[-1][0], ASKED[-1][1])]
    assert compare(old, new, resamples=100).n_questions == len(now) - 5


def test_columns_of_an_absent_subtask_are_no_tests() -> None:
    found = compare(*sides(), resamples=100)
    assert {test.metric for test in found.tests} < set(COLUMNS)
    assert "object_classification" not in {test.metric for test in found.tests}
