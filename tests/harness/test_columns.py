"""Answers in columns say what the records say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.averaging import RULES
from harness.columns import LEFT_OUT, AnswerTable, values_of
from harness.estimates import estimate
from harness.inspection import inspect
from harness.mmad import read_mmad
from harness.records import Answer, Outcome
from harness.scoring import by_chance, score
from harness.store import FILE_NAME, PlanRow, Spoken, Store
from tests.builders import write_mmad


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lettered or not, with log-probabilities, with none, with some that are no numbers."""
    folder = tmp_path_factory.mktemp("run")
    benchmark = read_mmad(write_mmad(folder / "data"))
    rows = [
        PlanRow(i, item.key, asked, f"answer {i}", item.key)
        for i, (item, asked) in enumerate(
            (item, asked) for item in benchmark.items for asked in item.questions
        )
    ]
    spoken = {}
    for row in rows:
        letters = list(row.question.options)
        letter = letters[row.position % len(letters)]
        logs: dict[str, float] | None = {
            one: -0.2 - (one != letter) * (1 + row.position / 9) for one in letters
        }
        if row.position % 7 == 0:
            logs = None if row.position % 2 else {letter: -math.inf, letters[0]: math.nan}
        said = (letter, Outcome.ANSWERED) if row.position % 5 else (None, Outcome.UNPARSED)
        spoken[row.answer] = Spoken(*said, "in words", "", logs, 9, 4, 0.5)
    with Store.open(folder / FILE_NAME) as opened:
        opened.save("m", rows, spoken, [])
    return folder / FILE_NAME


def read(path: Path) -> tuple[tuple[Answer, ...], AnswerTable]:
    with Store.read_only(path) as opened:
        return opened.answers("m"), opened.table("m", words=False)


def test_a_table_holds_what_the_records_hold(store: Path) -> None:
    records, table = read(store)
    assert len(table) == len(records) > 100
    for name in Answer._fields:
        if name in LEFT_OUT:
            with pytest.raises(LookupError, match=f"{name} was not read"):
                values_of(table, name)
        else:  # as text, because some are nan
            assert str(list(values_of(table, name))) == str(values_of(records, name)), name


def test_a_table_is_a_sequence_of_records(store: Path) -> None:
    records, table = read(store)
    bare: Sequence[Answer] = [record._replace(**LEFT_OUT) for record in records]
    assert str(list(table)) == str(bare)
    assert str(table[-1]) == str(bare[-1]) and str(table[2:9:3]) == str(tuple(bare[2:9:3]))
    with pytest.raises(IndexError):
        table[len(table)]


@pytest.mark.parametrize("rule", RULES)
def test_scores_and_inspection_are_the_same_of_either(store: Path, rule: str) -> None:
    records, table = read(store)
    assert score(table, rule) == score(records, rule)  # type: ignore[arg-type]
    assert inspect(table) == inspect(records) is not None
    assert estimate({"m": table}, rule)["m"].as_json() == estimate({"m": records}, rule)["m"].as_json()  # type: ignore[arg-type]


def test_columns_that_make_no_table_are_refused(store: Path) -> None:
    with Store.read_only(store) as opened:
        columns = dict(opened.table("m")._columns)
    with pytest.raises(LookupError, match="answers have no letters"):
        AnswerTable("m", columns).column("letters")
    with pytest.raises(ValueError, match="make no table"):
        AnswerTable("m", {**columns, "letter": ["A"]})
    del columns["subtask"]
    with pytest.raises(ValueError, match="make no table"):
        AnswerTable("m", columns)


def test_a_model_without_answers_is_an_empty_table(store: Path) -> None:
    with Store.read_only(store) as opened:
        assert opened.answers("nobody") == () and len(opened.table("nobody", words=False)) == 0
        assert inspect(opened.table("nobody")) is None


def test_chance_needs_the_options_which_a_full_table_has(store: Path) -> None:
    with Store.read_only(store) as opened:
        assert by_chance(opened.table("m")) == by_chance(opened.answers("m"))
