"""The gate from end to end, through the command line and its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from junitparser import Error, Failure, JUnitXml

from harness.baseline import write_baseline
from harness.cli import run_cli
from harness.errors import BadInput
from harness.gate.policy import Policy
from harness.gate.verdict import check as judge_runs
from harness.source_files import read_source
from harness.sources import Source
from tests.harness.synthetic import answers, questions

Make = Callable[..., Path]


def wrong(answer: str) -> str:
    return "B" if answer == "A" else "A"


def good(place: int, answer: str) -> str:
    """Right on four questions of five."""
    return wrong(answer) if place % 5 == 0 else answer


def worse(place: int, answer: str) -> str:
    """Right on one question of twenty fewer: five points."""
    return wrong(answer) if place % 20 == 7 else good(place, answer)


@pytest.fixture(scope="module")
def old(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("old"), {"m": good})


@pytest.fixture(scope="module")
def new(make_run: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("new"), {"m": worse})


def check(*arguments: object) -> int:
    return run_cli(["check", *map(str, arguments), "--resamples", "2000"])


def test_an_identical_run_passes(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(old, "--baseline", old, "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "pass"
    assert {test["verdict"] for test in found["tests"]} == {"pass"}
    assert {test["delta"] for test in found["tests"]} == {0}


def test_a_drop_of_five_points_is_a_regression(
    old: Path, new: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(new, "--baseline", old, "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "regression"
    average = next(test for test in found["tests"] if test["metric"] == "average")
    assert average["verdict"] == "regression"
    assert -7 < average["delta"] < -3
    assert average["ci_low"] < average["delta"] < average["ci_high"] < 0
    assert average["changed"][0]["lost"] >= 1
    assert check(old, "--baseline", new) == 0  # a gain is none


def test_a_wide_margin_lets_it_pass(old: Path, new: Path) -> None:
    assert check(new, "--baseline", old, "--margin", 30) == 0


def test_twenty_questions_are_inconclusive(
    make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = make_run(tmp_path / "few", {"m": good}, limit=20)
    assert check(few, "--baseline", few) == 4
    out = capsys.readouterr().out
    assert "inconclusive" in out
    assert out.rstrip().splitlines()[-1].startswith("inconclusive: ")


def test_another_protocol_is_refused_by_name(
    old: Path, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(tmp_path / "other", {"m": good}, protocol="emit")
    assert check(other, "--baseline", old) == 2
    said = capsys.readouterr().err
    assert "the protocol differs: mmad" in said
    assert "knowledge" in said
    assert check(other, "--baseline", old, "--common") == 0


def test_a_part_of_the_questions_is_refused_or_compared(
    old: Path, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = make_run(tmp_path / "part", {"m": good}, limit=400)
    assert check(part, "--baseline", old) == 2
    assert "did not answer the same questions" in capsys.readouterr().err
    assert check(part, "--baseline", old, "--common", "--minimum-questions", 20) == 0
    assert "questions are compared, of" in capsys.readouterr().out


def test_a_baseline_file_stands_in_for_the_run(
    old: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "base.json"
    assert check(old, "--baseline", file, "--update") == 0
    assert str(file) in capsys.readouterr().out
    verdicts = []
    for baseline in (old, file):
        assert check(new, "--baseline", baseline, "--format", "json") == 1
        verdicts.append(json.loads(capsys.readouterr().out)["tests"])
    assert verdicts[0] == verdicts[1]
    before = file.read_text()
    check(old, "--baseline", file, "--update")
    assert file.read_text() == before
    check(new, "--baseline", file, "--update")
    lines = zip(before.splitlines(), file.read_text().splitlines(), strict=True)
    images = [line for line, other in lines if line != other and ".png" in line]
    assert 10 < len(images) < 100  # a diff shows the images whose letters changed


def test_a_required_model_may_not_be_missing(
    old: Path, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = make_run(tmp_path / "both", {"m": good, "n": good})
    assert check(old, "--baseline", both) == 2
    assert "it holds no answers of n" in capsys.readouterr().err
    assert check(old, "--baseline", both, "--models", "m") == 0


def test_a_model_that_falls_silent_is_worse(make_run: Make, old: Path, tmp_path: Path) -> None:
    silent = make_run(tmp_path / "silent", {"m": lambda place, a: "?" if place % 5 == 0 else a})
    assert check(silent, "--baseline", old) == 0  # as many right as before
    mute = make_run(tmp_path / "mute", {"m": lambda place, a: "?" if place % 4 < 1 else good(place, a)})
    assert check(mute, "--baseline", old) == 1
    assert check(mute, "--baseline", old, "--rule", "official") != 1


def test_an_unfinished_run_is_incomplete(old: Path, make_run: Make, tmp_path: Path) -> None:
    run = make_run(tmp_path / "cut", {"m": good})
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    junit = tmp_path / "junit.xml"
    assert check(run, "--baseline", old, "--junit", junit) == 4
    assert JUnitXml.fromfile(str(junit)).errors == 1


def test_junit_is_read_by_a_parser_of_its_own(old: Path, new: Path, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "junit.xml"
    check(new, "--baseline", old, "--junit", file)
    (suite,) = JUnitXml.fromfile(str(file))
    results = {case.name: case.result for case in suite}
    assert suite.tests == len(results) == 8
    assert isinstance(results["average"][0], Failure)
    assert "points" in results["average"][0].message
    kinds = [type(result[0]) for result in results.values() if result]
    assert (suite.failures, suite.errors) == (kinds.count(Failure), kinds.count(Error))


def test_github_gets_a_summary_and_annotations(
    old: Path,
    new: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert check(new, "--baseline", old, "--format", "json") == 1
    captured = capsys.readouterr()
    json.loads(captured.out)
    assert "::error title=emit-bench%3A m%2C Average::regression" in captured.err
    text = summary.read_text()
    assert text.startswith("before\n### emit-bench check: regression")
    assert "| m | Average |" in text


def test_an_answer_file_can_be_judged(old: Path, new: Path) -> None:
    assert check(new / "answers" / "m.json", "--baseline", old / "answers" / "m.json") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("margin = -1", "margin is -1; it must be points from 0 to 100"),
        ("margine = 1", "margine is unknown; use margin, alpha"),
        ("[margins]\naverige = 1", "margins.averige is unknown"),
        ("[model.m]\naverage = 'x'", "model.m.average is 'x'"),
        ("models = 'm'", "it must be a list of model ids"),
        ("rule = 'fair'", "one of official, strict, pooled"),
        ("margin = [", "cannot be read as TOML"),
    ],
)
def test_a_wrong_policy_is_one_sentence(
    text: str, said: str, old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(text)
    assert check(old, "--baseline", old, "--policy", file) == 2
    assert said in capsys.readouterr().err


def test_a_policy_of_a_project_is_found(
    old: Path,
    new: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.emit-bench.check]\nmargin = 40\n[tool.emit-bench.check.margins]\naverage = 35\n"
        "[tool.emit-bench.check.model.m]\nobject_analysis = 50\n"
    )
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(inner)
    assert check(new, "--baseline", old, "--format", "json") == 0
    margins = {test["metric"]: test["margin"] for test in json.loads(capsys.readouterr().out)["tests"]}
    assert (margins["average"], margins["object_analysis"], margins["defect_analysis"]) == (35, 50, 40)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table.update(format="emit-bench baseline 9"), "its format is"),
        (lambda table: table.pop("images"), "images is missing"),
        (lambda table: table["images"].update(x=["AD", "A"]), "images: x: it must be a list of 3 texts"),
        (lambda table: table["images"].update(x=["AD DC", "A", "A"]), "one letter a question"),
        (lambda table: table["images"].update(x=["XY", "A", "A"]), "'XY' with 'A' is no question"),
        (lambda table: table["images"].update(x=["AD", "A", "Z"]), "'Z' is no letter"),
    ],
)
def test_a_broken_baseline_is_one_sentence(
    spoil: Callable[[dict], None],
    said: str,
    old: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "base.json"
    check(old, "--baseline", file, "--update")
    table = json.loads(file.read_text())
    spoil(table)
    file.write_text(json.dumps(table))
    assert check(old, "--baseline", file) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_shares_no_question_has_not_passed() -> None:
    asked, other = questions(60), questions(60, ("F",))
    old = Source(Path("old"), {name: answers(asked, [True] * len(asked)) for name in "mn"})
    given = {"m": old.answers["m"], "n": answers(other, [True] * len(other))}
    found = judge_runs(Source(Path("new"), given), old, Policy(), common=True, resamples=100)
    assert {one.model for one in found.judged} == {"m"}
    assert found.verdict == "inconclusive" and "n: 0 questions are compared" in found.notes[-1]


def test_what_did_not_change_is_not_called_a_loss_that_is_ruled_out() -> None:
    asked = questions(60)
    side = Source(Path("run"), {"m": answers(asked, [True] * len(asked))})
    found = judge_runs(side, side, Policy(minimum_questions=1), resamples=100)
    assert {(one.verdict, one.reason) for one in found.judged} == {("pass", "nothing changed")}


def test_messages_tell_the_run_from_the_baseline() -> None:
    asked = questions(60)
    whole, part = (
        Source(Path(name), {"m": answers(asked[:end], [True] * end)})
        for name, end in (("a", 240), ("b", 239))
    )
    with pytest.raises(BadInput, match="which m of the run lacks"):
        judge_runs(part, whole, Policy())


def test_the_printed_drop_knows_which_level_is_adjusted() -> None:
    """With seven models the p-values of averages are adjusted over seven, their intervals are not."""
    asked = questions(400)
    before = [place % 3 > 0 for place in range(len(asked))]
    now = [good != (place % 301 == 5) for place, good in enumerate(before)]
    old, new = (
        Source(Path(name), {f"m{i}": answers(asked, right) for i in range(7)})
        for name, right in (("old", before), ("new", now))
    )
    found = judge_runs(new, old, Policy(margin=5), resamples=200)
    average = next(one for one in found.judged if one.test.metric == "average")
    assert average.detectable == pytest.approx(5 + (0.8416 - 1.9600) * average.test.error, abs=1e-3)


def test_a_letter_that_a_baseline_cannot_hold_is_none(old: Path, tmp_path: Path) -> None:
    source = read_source(old)
    told = [one._replace(letter="F") for one in source.answers["m"]]
    file = tmp_path / "base.json"
    write_baseline(file, replace(source, answers={"m": told}), ("m",))
    assert {one.letter for one in read_source(file).answers["m"]} == {None}


def test_why_a_score_is_not_decided_stands_in_the_table(old: Path, capsys) -> None:
    assert check(old, "--baseline", old, "--minimum-questions", "100000") == 4
    assert "minimum-questions is 100000" in capsys.readouterr().out


def test_an_answer_file_is_judged_under_the_name_that_is_given(old: Path, tmp_path: Path, capsys) -> None:
    (source,) = (old / "answers").glob("*.json")
    mine = tmp_path / "current.json"
    mine.write_bytes(source.read_bytes())
    assert check(mine, "--baseline", old, "--models", source.stem) == 0
    assert check(mine, "--baseline", old, "--models", "other") == 2
    assert "it holds no answers of other" in capsys.readouterr().err


def test_a_missing_baseline_is_told_how_it_is_made(old: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert check(old, "--baseline", tmp_path / "none.json") == 2
    told = capsys.readouterr().err
    assert "write it with --update" in told and "::error title=emit-bench check::" in told


def test_what_an_update_drops_is_named(tmp_path, mini_run, capsys) -> None:
    run, baseline = mini_run(tmp_path / "run"), tmp_path / "b.json"
    assert run_cli(["check", str(run), "--baseline", str(baseline), "--update"]) == 0
    assert run_cli(["check", str(run), "--baseline", str(baseline), "--update", "--models", "m"]) == 0
    assert "no longer holds n" in capsys.readouterr().err
    run_cli(["check", str(run), "--baseline", str(baseline), "--minimum-questions", "1", "--margin", "100"])
    assert "not in the baseline, so not judged: n" in capsys.readouterr().out
