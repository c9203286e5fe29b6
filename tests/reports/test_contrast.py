"""Two experiments held against each other: is a difference larger in one of them?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.errors import BadInput
from harness.experiments import read_experiment
from reports.experiment import experiment_tables, find
from reports.experiment.findings import contrasts
from tests.reports.drawn import write_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


def test_two_experiments_are_held_against_each_other(results: Path, tmp_path: Path) -> None:
    other = write_results(tmp_path / "other", digest="b" * 64, name="elsewhere")
    page = tmp_path / "page.md"
    page.write_text("<!-- table: contrast --><!-- end -->")
    told = ["report", str(results), "--against", str(other), "--out", str(tmp_path), "--into", str(page)]
    assert run_cli(told) == 0
    here, there = (find(read_experiment(folder)) for folder in (results, other))
    tables = {table.name: table for table in experiment_tables(here, there)}
    (first, *_) = rows = [[cell.text for cell in row] for row in tables["contrast"].rows]
    assert [row[0] for row in rows] == [
        "EMIT - SFT",
        "BASE - SFT",
        "EMIT - EMIT-WO-SP",
        "EMIT - BASE",
        "EMIT - ALIGNED",
    ]
    assert first[1] == first[2] and first[3] == "+0.00" and first[-1] == "not told apart"  # the same draws
    assert "drawn minus elsewhere" in page.read_text()
    for seed in (2, 3):
        (other / f"sft/seed-{seed}.json.gz").unlink()
    tables = {table.name: table for table in experiment_tables(here, find(read_experiment(other)))}
    verdicts = [row[-1].text for row in tables["contrast"].rows]
    assert verdicts[:2] == ["not finished"] * 2 and verdicts[2] == "not told apart"


def test_a_larger_difference_is_told_from_a_smaller_one(results: Path, tmp_path: Path) -> None:
    other = write_results(tmp_path / "other", digest="b" * 64)
    for seed in range(4):  # there, SFT is what EMIT is with another seed
        given = (other / f"emit/seed-{(seed + 1) % 4}.json.gz").read_bytes()
        (other / f"sft/seed-{seed}.json.gz").write_bytes(given)
    findings = [find(read_experiment(folder)) for folder in (results, other)]
    one, back = (contrasts(*pair)[0] for pair in (findings, findings[::-1]))
    assert (one.verdict, back.verdict) == ("larger", "smaller")
    assert one.values[0] == pytest.approx(one.here.found.delta) == -back.values[0]


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("arms", 2, "settings"), {"grpo.beta": 0.1}, "settings of emit"),
        (("arms", 1, "recipe"), "other", "recipe of sft"),
        (("protocol", "digest"), "c" * 64, "the protocol"),
        (("benchmark", "world"), "real", "the world"),
        (("settings",), {"data.limit": 5}, "[settings]"),
    ],
)
def test_what_was_trained_or_asked_otherwise_is_not_contrasted(
    results: Path, tmp_path: Path, place: tuple[str | int, ...], value: object, named: str
) -> None:
    other = write_results(tmp_path, digest="b" * 64)
    design = json.loads((other / "experiment.json").read_text())
    inner = design
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    (other / "experiment.json").write_text(json.dumps(design))
    with pytest.raises(BadInput) as told:
        contrasts(find(read_experiment(results)), find(read_experiment(other)))
    assert f"differ in {named}:" in str(told.value)


def test_experiments_on_one_benchmark_are_not_contrasted(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["report", str(results), "--against", str(results), "--out", str(tmp_path)]
    assert run_cli(told) == 2 and not list(tmp_path.iterdir())
    assert "asked the same benchmark" in capsys.readouterr().err
    other = write_results(tmp_path / "other", digest="b" * 64)
    for folder in ("emit", "sft", "emit-wo-sp"):
        for file in (other / folder).glob("*.json.gz"):
            file.unlink()
    assert run_cli([*told[:3], str(other), *told[4:]]) == 2
    assert "no comparison in common" in capsys.readouterr().err
    assert run_cli(["report", str(tmp_path / "answers.json"), "--against", str(other)]) == 2
    assert "--against" in capsys.readouterr().err
