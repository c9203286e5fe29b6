"""The paper's tables with our rows: who stands where, against whom, and with which marks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.answers import write_answers
from harness.cli import run_cli
from harness.comparison import compare
from harness.scoring import score
from harness.subtasks import SUBTASK_KEYS
from reports.published import blocks, names
from reports.subject import Subject, read_subject
from reports.table import Table
from reports.tables import PAPER_TABLES, tables_of
from tests.harness.synthetic import answers, questions
from tests.reports.families import STRENGTHS, write_family


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return read_subject(write_family(tmp_path_factory.mktemp("family")), resamples=1000)


@pytest.fixture(scope="module")
def tables(subject: Subject) -> dict[str, Table]:
    return {table.name: table for table in tables_of(subject, ("paper",))}


def marks(table: Table, column: str) -> dict[str, set[str]]:
    at = [found.key for found in table.columns].index(column)
    return {row[0].text: set(row[at].marks) for row in table.rows}


def test_an_ablation_stands_in_its_own_table_beside_emit(tables: dict[str, Table]) -> None:
    rows = {name: [row[0].text for row in tables[name].rows] for name in PAPER_TABLES}
    assert rows == {
        "comparison": ["internvl3-base", "emit"],
        "ablation-training": ["emit-wo-stage2", "emit"],
        "ablation-inputs": ["emit-wo-sp-ce", "emit"],
    }
    assert [column.key for column in tables["ablation-inputs"].columns[2:]] == [
        "anomaly_discrimination",
        "defect_localization",
    ]


def test_without_emit_all_models_stand_in_one_table(tmp_path: Path) -> None:
    paths = [path for path in write_family(tmp_path) if path.stem != "emit"]
    found = tables_of(read_subject(paths, resamples=100))
    assert [table.name for table in found if table.name in PAPER_TABLES] == ["comparison"]
    assert len(found[0].rows) == len(STRENGTHS) - 1


def test_cells_are_the_scores_with_their_intervals(subject: Subject, tables: dict[str, Table]) -> None:
    for row, entry in zip(tables["comparison"].rows, ("internvl3-base", "emit"), strict=True):
        scored = score(next(e.answers for e in subject.entries if e.id == entry)).rows["average"]
        for cell, key in zip(row[2:], (*SUBTASK_KEYS, "average"), strict=True):
            assert cell.value == (None if scored[key] is None else pytest.approx(scored[key]))
            if cell.value is not None:
                assert cell.interval is not None and cell.interval[0] <= cell.value <= cell.interval[1]


def test_the_averages_interval_stands_in_a_column_of_its_own(tables: dict[str, Table]) -> None:
    wide = tables["comparison"].widened()
    assert wide.columns[-1].title == "95 % interval" and wide.rows[0][-1].text.count("to") == 1
    assert tables["ablation-inputs"].widened() is tables["ablation-inputs"]


def test_marks_follow_the_paired_tests(subject: Subject, tables: dict[str, Table]) -> None:
    assert marks(tables["comparison"], "average") == {"internvl3-base": set(), "emit": {"best", "dagger"}}
    # In an ablation the daggers are against EMIT.
    assert marks(tables["ablation-training"], "average") == {"emit-wo-stage2": {"dagger"}, "emit": {"best"}}
    by_id = {entry.id: entry.answers for entry in subject.entries}
    compared = compare(by_id["internvl3-base"], by_id["emit"], resamples=1000)
    for test in compared.tests:
        daggered = "dagger" in marks(tables["comparison"], test.metric)["emit"]
        assert daggered == (test.p_adjusted <= 0.05), test.metric


def test_reported_numbers_are_never_ranked_with_measured_ones(subject: Subject) -> None:
    plain = tables_of(subject)
    beside = tables_of(subject, names())
    for one, other in zip(plain, beside, strict=True):
        assert one.rows == other.rows and not one.blocks
    (paper, mmad) = beside[0].blocks
    assert "not measured here" in paper.title and "random reference" in mmad.note
    assert not any(
        cell.marks or cell.interval for block in (paper, mmad) for row in block.rows for cell in row
    )


def test_reported_averages_are_the_means_of_their_rows() -> None:
    """Guards against a slip of the pen: the paper's averages hold to a rounding."""
    for table in ("comparison", "ablation-training"):
        for block in blocks(table, names()):
            for row in block.rows:
                figures = [cell.value or 0.0 for cell in row[2:]]
                assert len(figures) == 8
                assert sum(figures[:7]) / 7 == pytest.approx(figures[7], abs=0.011), row[0].text


def test_an_unknown_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in write_family(tmp_path, images=4)]
    assert run_cli(["report", *paths, "--out", str(tmp_path / "out"), "--published", "rumour"]) == 2
    assert "use paper, mmad, none" in capsys.readouterr().err


def test_footnotes_say_what_is_needed_to_repeat(subject: Subject, tables: dict[str, Table]) -> None:
    notes = " ".join(tables["comparison"].notes)
    assert "is not known" in notes  # answer files tell neither benchmark nor protocol
    assert "480 questions on 120 images; scoring rule official" in notes
    assert "1,000 bootstrap resamples of images (seed 0)" in notes


def test_models_with_other_questions_are_shown_and_not_ranked(tmp_path: Path) -> None:
    (whole, *_) = write_family(tmp_path, {"internvl3-base": 0.5})
    asked = questions(20)
    write_answers(
        tmp_path / "emit.json", [a._replace(model="emit") for a in answers(asked, [True] * len(asked))]
    )
    found = read_subject([whole, tmp_path / "emit.json"], resamples=100)
    table = tables_of(found)[0]
    assert [row[-1].text for row in table.rows][1] == "100.00"
    assert not any(cell.marks for row in table.rows for cell in row)
    assert any("nothing is ranked" in note for note in table.notes)


def test_the_same_model_of_two_places_keeps_its_names_apart(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    paths = [
        write_family(tmp_path / name, {"emit": share})[0] for name, share in (("old", 0.5), ("new", 0.9))
    ]
    found = read_subject(paths, resamples=100)
    assert [entry.id for entry in found.entries] == ["old/emit.json:emit", "new/emit.json:emit"]
    assert len({table.name for table in tables_of(found)}) == len(tables_of(found))


def test_the_same_file_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_family(tmp_path, {"emit": 0.5}, images=4)[0])
    assert run_cli(["report", path, path, "--out", str(tmp_path / "out")]) == 2
    assert "is named twice" in capsys.readouterr().err


def test_log_probabilities_make_a_table_for_the_inspector(tmp_path: Path) -> None:
    asked = questions(20)
    given = answers(asked, [number % 3 != 0 for number in range(len(asked))])
    sure = [a._replace(option_logprobs={"A": -0.1 if a.letter == "A" else -3.0, "B": -1.0}) for a in given]
    source = read_subject(write_family(tmp_path, {"emit": 0.5}, images=20), resamples=100)
    told = replace(source, entries=(replace(source.entries[0], answers=tuple(sure)),))
    assert "inspection" not in {table.name for table in tables_of(source)}
    table = next(table for table in tables_of(told) if table.name == "inspection")
    assert [column.title for column in table.columns[3:]] == ["AUROC", "Overkill (%)", "ECE", "Brier"]
    assert all(cell.value is not None for cell in table.rows[0][1:])


def test_one_image_tells_no_model_from_another(tmp_path: Path) -> None:
    asked = [("D/o/bad/0.png", number, "defect_analysis") for number in range(6)]
    for name, right in (("good", True), ("fair", True), ("poor", False)):
        write_answers(tmp_path / f"{name}.json", answers(asked, [right] * 6))
    table = tables_of(read_subject(sorted(tmp_path.glob("*.json")), resamples=100))[0]
    assert not any(cell.marks for row in table.rows for cell in row)


def test_models_that_were_asked_otherwise_each_tell_how_much(tmp_path: Path) -> None:
    for name, images in (("few", 4), ("many", 20)):
        asked = questions(images)
        write_answers(tmp_path / f"{name}.json", answers(asked, [True] * len(asked)))
    notes = tables_of(read_subject(sorted(tmp_path.glob("*.json")), resamples=100))[0].notes
    assert "Questions asked: few 32, many 160; scoring rule official." in notes
    assert not any("Guessing" in note for note in notes)


def test_guessing_is_told_only_where_the_options_are(tmp_path: Path) -> None:
    asked = questions(8)
    bare = [one._replace(options={}) for one in answers(asked, [True] * len(asked))]
    write_answers(tmp_path / "bare.json", bare)
    (first, *_) = tables_of(read_subject([tmp_path / "bare.json"], resamples=100))
    assert not any("Guessing" in note for note in first.notes)
    write_answers(tmp_path / "told.json", answers(asked, [True] * len(asked)))
    paths = [tmp_path / "bare.json", tmp_path / "told.json"]
    (first, *_) = tables_of(read_subject(paths, resamples=100))
    assert "Guessing is expected to score 50.00 on average." in first.notes


def test_another_base_takes_the_daggers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_family(tmp_path, {"a": 0.5, "b": 0.9, "c": 0.52})
    table = tables_of(read_subject(paths, base="b", resamples=200))[0]
    found = marks(table, "average")
    assert "dagger" in found["a"] & found["c"] and found["b"] == {"best"}
    assert run_cli(["report", *map(str, paths), "--out", str(tmp_path / "out"), "--base", "d"]) == 2
    assert "--base d: use one of a, b, c" in capsys.readouterr().err
