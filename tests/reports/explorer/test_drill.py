"""Accuracy by groups and paired differences: the numbers are those of the harness."""

from __future__ import annotations

import numpy as np
import pytest

from harness.averaging import AVERAGE, COLUMNS, COUNTED, RULES, Rule
from harness.comparison import compare_in
from harness.scoring import score
from harness.statistics import percentile_interval, wilson
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_ANALYSIS
from reports.explorer.catalogue import Catalogue
from reports.explorer.drill import METRICS, drill, intervals
from reports.explorer.groups import Dimension, area_bin, dimensions, size_bin
from reports.explorer.matrix import matrices
from reports.explorer.pictures import Shown
from tests.reports.explorer.worlds import answers_of, questions, subject_of, synthetic


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("key", ["dataset", "object", "kind"])
def test_groups_are_scored_as_datasets_are(rule: Rule, key: str) -> None:
    """Renaming each image's group to its dataset and scoring anew gives the same table."""
    subject = synthetic(120)
    catalogue = Catalogue(subject)
    (dimension,) = [d for d in dimensions(catalogue, {}) if d.key == key]
    (found,) = drill(catalogue, [dimension], rule)
    names = {
        image: "" if group is None else dimension.labels[group]
        for image, group in zip(catalogue.images, dimension.group, strict=True)
    }
    for place, entry in enumerate(subject.entries):
        renamed = [a._replace(key=f"{names[a.key]}/{a.key}") for a in entry.answers if names[a.key]]
        rows = score(renamed, rule).rows
        for group, label in enumerate(dimension.labels):
            for metric in METRICS:
                wanted, cell = rows[label][metric], found["scores"][metric][place][group]
                if wanted is None:
                    assert cell is None
                else:
                    assert cell[0] == pytest.approx(wanted, abs=0.006)
                    asked = [a for a in renamed if a.dataset == label and metric in (AVERAGE, a.subtask)]
                    assert cell[3] == len(asked)
                    assert cell[1] <= cell[0] <= cell[2]


def test_rows_by_dataset_are_those_of_the_tables() -> None:
    subject = synthetic(120)
    catalogue = Catalogue(subject)
    (dataset, *_) = dimensions(catalogue, {})
    (found,) = drill(catalogue, [dataset], subject.rule)
    for place, entry in enumerate(subject.entries):
        for group, label in enumerate(dataset.labels):
            wanted = subject.scores[entry.id].rows[label][AVERAGE]
            assert found["scores"][AVERAGE][place][group][0] == pytest.approx(wanted, abs=0.006)


def test_a_proportion_has_wilsons_interval_and_means_square_and_add() -> None:
    asked = np.zeros((1, len(COUNTED)))
    correct = np.zeros_like(asked)
    asked[0, [1, 4]], correct[0, [1, 4]] = 50, (40, 25)
    low, high = intervals(asked, asked, correct, "official")
    bounds = [np.array(wilson(share, 50)) * 100 for share in (0.8, 0.5)]
    for column, (below, above) in zip((1, 4), bounds, strict=True):
        assert (low[0, column], high[0, column]) == pytest.approx((below, above))
    average = COLUMNS.index(AVERAGE)
    assert low[0, average] == pytest.approx(65 - np.hypot(80 - bounds[0][0], 50 - bounds[1][0]) / 2)
    assert high[0, average] == pytest.approx(65 + np.hypot(bounds[0][1] - 80, bounds[1][1] - 50) / 2)
    assert np.isnan(low[0, 0])


def test_bounds_of_a_mean_cover_it_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    asked = np.tile([60.0, 40, 40, 40, 40, 40, 40, 30, 30], (2000, 1))
    truth = np.array([0.6, 0.9, 0.5, 0.7, 0.8, 0.95, 0.6, 0.7, 0.5])
    correct = rng.binomial(asked.astype(int), truth).astype(float)
    low, high = intervals(asked, asked, correct, "official")
    wanted = 100 * np.mean([0.6, *truth[1:7]])  # anomaly discrimination is the mean of its halves
    at = COLUMNS.index(AVERAGE)
    assert np.mean((low[:, at] <= wanted) & (wanted <= high[:, at])) == pytest.approx(0.95, abs=0.02)


def test_what_was_asked_and_never_answered_may_be_anything() -> None:
    asked = np.zeros((1, len(COUNTED)))
    asked[0, 2] = 5
    low, high = intervals(asked, np.zeros_like(asked), np.zeros_like(asked), "official")
    assert (low[0, 2], high[0, 2]) == (0, 100)


@pytest.mark.parametrize(
    ("area", "label"), [(None, None), (0.0, None), (0.0049, 0), (0.005, 1), (0.02, 2), (0.08, 3), (1.0, 3)]
)
def test_areas_fall_into_their_bins(area: float | None, label: int | None) -> None:
    assert area_bin(area) == label


def test_sizes_go_by_the_longer_side() -> None:
    assert [size_bin(size) for size in ((511, 20), (20, 512), (1024, 900), (2048, 1), None)] == [
        0,
        1,
        2,
        3,
        None,
    ]


def test_only_groupings_of_which_something_is_known_are_there() -> None:
    catalogue = Catalogue(synthetic(40))
    assert [d.key for d in dimensions(catalogue, {})] == ["dataset", "object", "kind"]
    shown = {catalogue.images[0]: Shown(size=(10, 10))}
    assert [d.key for d in dimensions(catalogue, shown)][3:] == ["size"]


def test_a_normal_image_has_no_kind_of_defect() -> None:
    catalogue = Catalogue(synthetic(80))
    (kinds,) = [d for d in dimensions(catalogue, {}) if d.key == "kind"]
    assert "normal" not in kinds.labels and "crack" in kinds.labels
    normal = [place.kind == "normal" for place in catalogue.places]
    assert [group is None for group in kinds.group] == normal and any(normal) and not all(normal)


def test_images_in_no_group_are_left_out() -> None:
    catalogue = Catalogue(synthetic(40))
    none: tuple[int | None, ...] = (None,) * len(catalogue.images)
    (found,) = drill(catalogue, [Dimension("x", "X", ("one",), none)], "official")
    assert all(groups == [None] for entries in found["scores"].values() for groups in entries)


def test_the_matrix_is_of_paired_differences() -> None:
    subject = synthetic(160, resamples=500)
    for matrix in matrices(subject):
        at = COLUMNS.index(matrix.metric)
        for i, row in enumerate(matrix.rows):
            assert row[i] is None
            for j, duel in enumerate(row):
                if duel is None:
                    continue
                paired = subject.replicates[:, i, -1, at] - subject.replicates[:, j, -1, at]
                wanted = percentile_interval(paired, freedom=subject.panel.freedom)
                assert (duel.low, duel.high) == pytest.approx(wanted)
                mirror = matrix.rows[j][i]
                assert mirror is not None and (duel.delta, duel.low) == pytest.approx(
                    (-mirror.delta, -mirror.high)
                )
                opposite = {"better": "worse", "worse": "better", "same": "same"}
                assert mirror.verdict == opposite[duel.verdict]


def test_the_matrix_agrees_with_compare() -> None:
    subject = synthetic(160, resamples=500)
    tests = {test.metric: test for test in compare_in(subject.panel, 1, 0, subject.replicates).tests}
    for matrix in matrices(subject):
        duel, test = matrix.rows[0][1], tests[matrix.metric]
        assert duel is not None
        assert (duel.delta, duel.low, duel.high) == pytest.approx((test.delta, test.ci_low, test.ci_high))


def test_verdicts_follow_the_interval() -> None:
    asked = questions(200)
    same = answers_of("m", asked, 0.7, 1)
    twin = tuple(answer._replace(model="n") for answer in same)
    weak = answers_of("w", asked, 0.3, 2)
    average = matrices(subject_of([same, twin, weak]))[0]
    assert [[duel and duel.verdict for duel in row] for row in average.rows] == [
        [None, "same", "better"], ["same", None, "better"], ["worse", "worse", None],
    ]  # fmt: skip


def test_models_that_cannot_be_paired_have_no_matrix() -> None:
    asked = questions(40)
    assert matrices(subject_of([answers_of("m", asked, 0.5, 0)])) == ()
    assert matrices(subject_of([answers_of("m", asked, 0.5, 0), answers_of("n", asked[:50], 0.5, 1)])) == ()


def test_subtasks_that_were_not_asked_have_no_matrix() -> None:
    asked = [question for question in questions(60) if question[2] != DEFECT_ANALYSIS]
    found = matrices(subject_of([answers_of(name, asked, 0.5, seed) for seed, name in enumerate("mn")]))
    metrics = [matrix.metric for matrix in found]
    assert DEFECT_ANALYSIS not in metrics and metrics[:2] == [AVERAGE, ANOMALY_DISCRIMINATION]
