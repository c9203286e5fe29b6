"""Scores against two published result files, rebuilt from their counts, and against values by hand."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import BadInput, score
from harness.doctor import COUNT_COLUMNS, PUBLISHED_COUNTS, PUBLISHED_QUESTIONS
from harness.records import Answer, Outcome
from harness.scoring import COLUMNS, RULES, by_chance
from harness.subtasks import ANOMALY_DISCRIMINATION, SUBTASK_KEYS

#: Correct answers per column of COUNT_COLUMNS; the published rows; their average; all correct answers.
INTERNVL2_8B = (
    {
        "DS-MVTec": (385, 678, 681, 633, 857, 1045, 296, 1200),
        "MVTec-LOCO": (521, 144, 308, 437, 493, 731, 363, 1238),
        "VisA": (851, 503, 444, 649, 721, 834, 727, 2231),
        "GoodsAD": (1203, 150, 658, 600, 647, 1129, 1071, 2623),
    },
    {
        "DS-MVTec": (69.05, 56.51, 53.06, 70.65, 86.72, 63.79, 87.78, 69.65),
        "MVTec-LOCO": (52.72, 31.36, 44.50, 50.62, 76.62, 66.73, 76.28, 56.98),
        "VisA": (66.12, 37.31, 54.22, 60.59, 71.71, 77.75, 79.51, 63.89),
        "GoodsAD": (52.00, 50.19, 39.84, 48.54, 77.33, 88.44, 77.90, 62.03),
    },
    63.1375,
    25051,
)
GPT_4O_MINI = (
    {
        "DS-MVTec": (326, 1021, 767, 565, 899, 1082, 416, 1196),
        "MVTec-LOCO": (276, 699, 357, 385, 577, 730, 484, 1261),
        "VisA": (627, 808, 497, 444, 696, 870, 880, 2294),
        "GoodsAD": (863, 664, 689, 472, 838, 1175, 987, 2425),
    },
    {
        "DS-MVTec": (76.69, 63.65, 47.36, 74.11, 89.79, 89.66, 87.49, 75.54),
        "MVTec-LOCO": (59.32, 36.35, 39.21, 59.24, 76.52, 88.97, 77.70, 62.47),
        "VisA": (66.97, 41.76, 37.09, 58.49, 74.81, 94.12, 81.75, 65.00),
        "GoodsAD": (54.36, 52.56, 31.34, 62.87, 80.48, 81.50, 72.02, 62.16),
    },
    66.2920,
    26270,
)


def answer(
    letter: str | None, key: str = "D/o/good/0.png", subtask: str = ANOMALY_DISCRIMINATION, correct: str = "A"
) -> Answer:
    outcome = Outcome.ANSWERED if letter else Outcome.UNPARSED
    return Answer(
        "m", key, 0, subtask, "Anomaly Detection", "?", {"A": "", "B": ""}, correct, letter, outcome
    )


def rebuilt(correct: dict[str, tuple[int, ...]]) -> list[Answer]:
    """One answer per published question, with so many of them correct in each cell."""
    answers = []
    for dataset, totals in PUBLISHED_COUNTS.items():
        for column, total, right in zip(COUNT_COLUMNS, totals, correct[dataset], strict=True):
            subtask = ANOMALY_DISCRIMINATION if column in ("normal", "anomalous") else column
            key = f"{dataset}/object/{'good' if column == 'normal' else 'bad'}/0.png"
            answers += [answer("A" if i < right else "B", key, subtask) for i in range(total)]
    return answers


@pytest.mark.parametrize(("correct", "rows", "average", "right"), [INTERNVL2_8B, GPT_4O_MINI])
def test_official_reproduces_published_files(correct, rows, average, right) -> None:
    answers = rebuilt(correct)
    assert len(answers) == PUBLISHED_QUESTIONS
    scores = score(answers)
    by_hand = []
    for dataset, totals in PUBLISHED_COUNTS.items():
        normal, anomalous, *rest = (100 * c / n for c, n in zip(correct[dataset], totals, strict=True))
        cells = [(normal + anomalous) / 2, *rest]
        by_hand.append(cells)
        row = scores.rows[dataset]
        assert [row[key] for key in SUBTASK_KEYS] == pytest.approx(cells, abs=1e-9)
        assert row["average"] == pytest.approx(sum(cells) / 7, abs=1e-9)
        assert (row["normal_accuracy"], row["anomaly_accuracy"]) == pytest.approx(
            (normal, anomalous), abs=1e-9
        )
        assert [*(row[key] for key in SUBTASK_KEYS), row["average"]] == pytest.approx(
            rows[dataset], abs=0.0051
        )
    mean = [sum(column) / 4 for column in zip(*by_hand, strict=True)]
    assert [scores.rows["average"][key] for key in SUBTASK_KEYS] == pytest.approx(mean, abs=1e-9)
    assert scores.rows["average"]["average"] == pytest.approx(sum(mean) / 7, abs=1e-9)
    assert scores.rows["average"]["average"] == pytest.approx(average, abs=5e-5)
    assert sum(a.letter == a.correct for a in answers) == right


def test_an_entry_without_a_letter_leaves_the_denominator_exactly_once() -> None:
    answers = [answer("A"), answer(None), answer("A"), answer("B"), answer("A", correct="F")]
    scores = score(answers)
    assert scores.rows["D"]["normal_accuracy"] == pytest.approx(200 / 3)
    assert (scores.n_questions, scores.n_unanswered) == (5, 1)
    assert score(answers, "strict").rows["D"]["normal_accuracy"] == pytest.approx(40)


def test_absent_subtasks_are_not_averaged_but_unanswered_ones_count_nothing() -> None:
    seen = [answer("A"), answer("A", subtask="object_analysis")]
    assert score(seen).rows["D"]["average"] == 100
    assert score(seen).rows["D"]["defect_analysis"] is None
    assert score([*seen, answer(None, subtask="defect_analysis")]).rows["D"]["average"] == pytest.approx(
        200 / 3
    )


def test_pooled_ignores_datasets_and_the_two_kinds_of_images() -> None:
    answers = [answer("A"), answer("B"), answer("A", "E/o/bad/0.png"), answer(None, "E/o/bad/1.png")]
    row = score(answers, "pooled").rows["average"]
    assert row[ANOMALY_DISCRIMINATION] == 50 and row["average"] == 50
    assert score(answers).rows["average"][ANOMALY_DISCRIMINATION] == 75


def test_json_shape() -> None:
    shown = score([answer("A")]).as_json()
    assert list(shown) == ["rule", "n_questions", "n_unanswered", "rows"]
    assert list(shown["rows"]) == ["D", "average"]
    assert tuple(shown["rows"]["D"]) == COLUMNS


def test_wrong_use() -> None:
    with pytest.raises(BadInput, match="official, strict, pooled"):
        score([], "exact")  # type: ignore[arg-type]
    other = Answer("n", "D/o/good/0.png", 0, ANOMALY_DISCRIMINATION, "", "", {}, "A", "A", Outcome.ANSWERED)
    with pytest.raises(BadInput, match="several models"):
        score([answer("A"), other])
    assert score([]).rows["average"]["average"] is None


@given(
    st.permutations(list(itertools.product(("A", "B", None), ("D/o/good/1", "E/o/bad/2"), SUBTASK_KEYS[:3])))
)
def test_order_does_not_matter(cases) -> None:
    answers = [answer(letter, key, subtask) for letter, key, subtask in cases]
    straight = [answer(*case) for case in sorted(cases, key=str)]
    for rule in RULES:
        for name, row in score(straight, rule).rows.items():
            assert score(answers, rule).rows[name] == pytest.approx(row, nan_ok=True)


def test_guesses_scatter_around_what_chance_is_expected_to_score() -> None:
    """By the same averaging: the mean over many seeds of drawn guesses is the expected score."""
    options = {2: dict.fromkeys("AB", ""), 4: dict.fromkeys("ABCD", "")}
    asked = [
        Answer(
            "m",
            f"D{n % 3}/o/{'good' if n % 2 else 'bad'}/{n}.png",
            0,
            subtask,
            "",
            "",
            options[size],
            "A",
            None,
            None,
        )
        for n in range(30)
        for subtask, size in (("anomaly_discrimination", 2), ("defect_analysis", 4))
    ]
    expected = by_chance(asked).rows["average"]
    assert (expected["anomaly_discrimination"], expected["defect_analysis"]) == (50.0, 25.0)
    assert expected["average"] == 37.5
    draw = random.Random(0)
    drawn = [
        score([one._replace(letter=draw.choice(list(one.options))) for one in asked]).rows["average"][
            "average"
        ]
        for _ in range(300)
    ]
    assert sum(value for value in drawn if value is not None) / len(drawn) == pytest.approx(37.5, abs=1.0)
    assert by_chance(asked, "pooled").rows["average"]["average"] == 37.5
