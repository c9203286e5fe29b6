"""An experiment's tables from drawn answers with known differences."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.answers import write_answers
from harness.averaging import AVERAGE
from harness.cli import run_cli
from harness.errors import BadInput
from harness.experiments import read_experiment, write_design
from harness.folders import sha256_of
from harness.jsonfiles import write_json
from harness.replication import Replicated, median_seed
from harness.scoring import score
from reports.experiment import experiment_tables, find, put_into
from reports.experiment.figures import experiment_figures
from reports.experiment.findings import contrasts
from reports.table import Table
from tests.harness.synthetic import answers, questions

ASKED = questions(40)
ARMS = {"base": (1, 0.5), "sft": (4, 0.62), "emit": (4, 0.9), "emit-wo-sp": (3, 0.88)}


def write_results(folder: Path, planned: int = 4, digest: str = "a" * 64, name: str = "drawn") -> Path:
    """Answers of four arms; questions get harder in their order, and the hard ones are EMIT's gain."""
    rng = np.random.default_rng(0)
    draws = rng.random(len(ASKED))
    for arm, (seeds, share) in ARMS.items():
        for seed in range(seeds):
            right = draws + 0.05 * rng.normal(size=len(draws)) < share + 0.02 * rng.normal()
            write_answers(folder / arm / f"seed-{seed}.json.gz", answers(ASKED, list(right)))
    write_json(
        folder / "strata.json.gz",
        {
            "draws": 8,
            "correct": [[key, number, int(8 * (draws[i] < 0.5))] for i, (key, number, _) in enumerate(ASKED)],
        },
    )
    write_design(
        folder,
        {
            "name": name,
            "benchmark": {"name": "mini", "world": "mini", "digest": digest},
            "protocol": {"name": "emit", "mode": "think", "shots": 1, "digest": digest},
            "arms": [
                {
                    "id": arm,
                    "title": arm.upper(),
                    "recipe": "" if arm == "base" else arm,
                    "seeds": max(seeds, planned if arm == "sft" else 0),
                }
                for arm, (seeds, _) in ARMS.items()
            ],
            "strata": {"arm": "base", "draws": 8},
            "comparisons": [
                {"better": "emit", "worse": "sft", "primary": True},
                {"better": "base", "worse": "sft", "primary": True},
                {"better": "emit", "worse": "emit-wo-sp", "primary": False},
                {"better": "emit", "worse": "base", "primary": False},
                {"better": "emit", "worse": "nobody", "primary": False},
            ],
        },
    )
    return folder


def tables_of(folder: Path) -> dict[str, Table]:
    return {table.name: table for table in experiment_tables(find(read_experiment(folder)))}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


def test_arms_stand_in_the_papers_tables(results: Path) -> None:
    tables = tables_of(results)
    assert [row[0].text for row in tables["comparison"].rows] == ["BASE", "SFT", "EMIT"]
    assert [row[0].text for row in tables["ablation-inputs"].rows] == ["EMIT-WO-SP", "EMIT"]
    assert "ablation-training" not in tables  # EMIT alone is no ablation
    row = tables["comparison"].rows[2]
    spread = Replicated({"emit": read_experiment(results).arm("emit").answers}).spread("emit", AVERAGE)
    assert row[1].text == "4" and row[-1].text == f"{spread.mean:.2f} \u00b1 {spread.deviation:.2f}"
    assert "\u00b1" not in tables["comparison"].rows[0][-1].text  # one run has no spread


def test_claims_hold_fail_or_are_turned_round(results: Path) -> None:
    tables = tables_of(results)
    verdicts = {row[0].text: (row[-1].text, row[-2].text) for row in tables["claims"].rows}
    assert verdicts["EMIT > SFT"][0] == "holds"
    assert verdicts["BASE > SFT"][0] == "the reverse holds"
    assert verdicts["EMIT > EMIT-WO-SP"] == ("not shown", "-")  # secondary: not adjusted
    assert verdicts["EMIT > BASE"] == ("holds (unadjusted)", "-")
    assert len(verdicts) == 4  # an arm without a result makes no claim


def test_the_gain_shows_where_questions_were_hard(results: Path) -> None:
    tables = tables_of(results)
    rows = {row[0].text: [cell.value for cell in row[1:]] for row in tables["strata"].rows}
    hard, easy = 0, 3
    assert rows["EMIT"][hard] > rows["SFT"][hard] + 30
    assert rows["EMIT"][easy] == pytest.approx(rows["SFT"][easy], abs=5)
    assert "n 0" in tables["strata"].columns[2].title  # nothing lies between
    assert [cell.text for cell in tables["strata-claims"].rows[0]][2] == "-"


def test_two_experiments_are_held_against_each_other(results: Path, tmp_path: Path) -> None:
    other = write_results(tmp_path / "other", digest="b" * 64, name="elsewhere")
    page = tmp_path / "page.md"
    page.write_text("<!-- table: contrast --><!-- end -->")
    told = ["report", str(results), "--against", str(other), "--out", str(tmp_path), "--into", str(page)]
    assert run_cli(told) == 0
    here, there = (find(read_experiment(folder)) for folder in (results, other))
    tables = {table.name: table for table in experiment_tables(here, there)}
    (first, *_) = rows = [[cell.text for cell in row] for row in tables["contrast"].rows]
    assert [row[0] for row in rows] == ["EMIT - SFT", "BASE - SFT", "EMIT - EMIT-WO-SP", "EMIT - BASE"]
    assert first[1] == first[2] and first[3] == "+0.00" and first[-1] == "not told apart"  # the same draws
    assert "drawn minus elsewhere" in page.read_text()
    for seed in (2, 3):
        (other / f"sft/seed-{seed}.json.gz").unlink()
    tables = {table.name: table for table in experiment_tables(here, find(read_experiment(other)))}
    verdicts = [row[-1].text for row in tables["contrast"].rows]
    assert verdicts[:2] == ["not finished"] * 2 and verdicts[2] == "not told apart"


def test_a_larger_difference_is_told_from_a_smaller_one(results: Path, tmp_path: Path) -> None:
    other = write_results(tmp_path / "other", digest="b" * 64)
    for seed in range(4):  # there, SFT is what EMIT is
        (other / f"sft/seed-{seed}.json.gz").write_bytes((other / f"emit/seed-{seed}.json.gz").read_bytes())
    findings = [find(read_experiment(folder)) for folder in (results, other)]
    one, back = (contrasts(*pair)[0] for pair in (findings, findings[::-1]))
    assert (one.verdict, back.verdict) == ("larger", "smaller")
    assert one.values[0] == pytest.approx(one.here.found.delta) == -back.values[0]


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


def test_what_is_unfinished_is_told(tmp_path: Path) -> None:
    folder = write_results(tmp_path, planned=6)
    tables = tables_of(folder)
    assert any("SFT 4 of 6" in note for note in tables["comparison"].notes)
    verdicts = {row[0].text: row[-1].text for row in tables["claims"].rows}
    assert verdicts["EMIT > SFT"] == "not finished"  # whatever p is: nobody stops where it suits
    assert verdicts["EMIT > BASE"] == "holds (unadjusted)"


def test_arms_without_a_common_seed_are_not_compared_yet(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    for seed in (1, 2, 3):
        (folder / f"emit/seed-{seed}.json.gz").unlink()
    (folder / "sft/seed-0.json.gz").unlink()
    tables = tables_of(folder)
    rows = {row[0].text: [cell.text for cell in row] for row in tables["claims"].rows}
    assert "EMIT > SFT" not in rows and rows["EMIT > BASE"][3] == "-"  # one run: no interval
    assert "nan" not in str(rows)
    assert rows["BASE > SFT"][-1] == "not finished"


def test_the_median_run_is_one_of_the_runs(results: Path) -> None:
    found = read_experiment(results).arm("emit").answers
    scores = {seed: score(given).rows["average"]["average"] for seed, given in found.items()}
    table = next(
        table for table in experiment_tables(find(read_experiment(results))) if table.name == "seeds"
    )
    row = next(row for row in table.rows if row[0].text == "EMIT")
    assert row[-1].value == pytest.approx(scores[median_seed(scores)])
    assert sorted(scores.values()).index(scores[median_seed(scores)]) == 1  # of four the lower middle one


def test_what_stage_2_learnt_from_is_read_from_records(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    assert "training" not in tables_of(folder)  # no record tells
    # Of 8 questions each: one is solved by a second further draw; of three, one never is.
    for seed, (none, every, draws, vain, groups) in enumerate([(1, 4, 10, 2, 8), (3, 2, 13, 6, 7)]):
        right = {"p0/4": none, "p1/4": 1, "p2/4": 1, "p3/4": 6 - none - every, "p4/4": every}
        told = {"draws": draws, "drawn_p0/4": vain, "groups": groups, "constant_groups": groups / 2}
        mean = {**right, **told}
        write_json(folder / f"emit/seed-{seed}.record.json", {"learning": {"grpo": {"mean": mean}}})
    write_json(folder / "sft/seed-0.record.json", {"learning": {"sft": {"mean": {"loss": 1.0}}}})
    (row,) = tables_of(folder)["training"].rows
    assert [cell.text for cell in row] == ["EMIT", "2", "25.0", "6.2", "37.5", "50.0", "1.44"]


def shapes(drawn: str, kind: str, name: str = "circle") -> list[ElementTree.Element]:
    found = ElementTree.fromstring(drawn).iter(f"{{http://www.w3.org/2000/svg}}{name}")
    return [shape for shape in found if shape.get("class") == kind]


def test_figures_show_every_run_and_every_claim(results: Path) -> None:
    findings = find(read_experiment(results))
    figures = experiment_figures(findings)
    runs = [float(shape.get("cx", "")) for shape in shapes(figures["runs"], "run")]
    averages = [value for arm in findings.arms for value in findings.runs.values(arm.id, AVERAGE)]
    assert np.corrcoef(runs, averages)[0, 1] > 0.9999  # one scale, and every run on it
    assert len(shapes(figures["runs"], "mean", "line")) == len(findings.arms)
    told, open_ = (shapes(figures["claims"], kind) for kind in ("told", "open"))
    assert (len(told), len(open_)) == (3, 1)  # what is not shown is hollow
    assert len(shapes(figures["strata"], "whisker", "line")) == 4  # two primary claims in two strata


def test_figures_without_claims_show_runs(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    for arm in ("sft", "emit", "emit-wo-sp"):
        for seed in range(1, 4):
            (folder / arm / f"seed-{seed}.json.gz").unlink(missing_ok=True)
    assert set(experiment_figures(find(read_experiment(folder)))) == {"runs"}  # one run has no interval


def test_other_questions_are_refused(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    write_answers(
        folder / "base/seed-0.json.gz",
        [a._replace(key=f"X{a.key}") for a in answers(ASKED, [True] * len(ASKED))],
    )
    with pytest.raises(BadInput, match="did not answer the same questions"):
        experiment_tables(find(read_experiment(folder)))


def test_a_page_names_only_tables_that_there_are(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: nothing --><!-- end -->")
    with pytest.raises(BadInput, match="there is no table 'nothing'"):
        put_into(experiment_tables(find(read_experiment(results))), page)
    assert page.read_text() == "<!-- table: nothing --><!-- end -->"
    page.write_text("nothing is marked")
    with pytest.raises(BadInput, match="no place for a table"):
        put_into(experiment_tables(find(read_experiment(results))), page)


@pytest.mark.parametrize("words", [["--rule", "strict"], ["--resamples", "100"], ["--format", "html"]])
def test_what_an_experiment_does_not_heed_is_refused(
    words: list[str], results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["report", str(results), "--out", str(tmp_path), *words]) == 2
    assert words[0] in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_broken_results_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path)
    (folder / "emit/seed-0.json.gz").write_bytes(b"no gzip")
    assert run_cli(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "it is no gzip file" in capsys.readouterr().err
    (folder / "experiment.json").write_text("{}")
    assert run_cli(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "no design of format" in capsys.readouterr().err


def test_answers_that_are_not_their_records_are_refused(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    file = folder / "emit/seed-1.json.gz"
    write_json(folder / "emit/seed-1.record.json", {"answers_sha256": sha256_of(file)})
    assert read_experiment(folder)
    write_answers(file, answers(ASKED, [True] * len(ASKED)))
    with pytest.raises(BadInput, match=r"not the answers of seed-1\.record\.json"):
        read_experiment(folder)


@pytest.mark.parametrize(("name", "page_name", "against"), [("mini", "experiment.md", "")])
def test_the_projects_own_pages_say_what_their_results_say(
    name: str, page_name: str, against: str, tmp_path: Path
) -> None:
    """Tables and figures follow from the committed answer files, and were not edited."""
    docs = Path(__file__).parents[2] / "docs"
    results, page = docs / "experiment" / name, tmp_path / page_name
    page.write_text((docs / page_name).read_text(encoding="utf-8"), encoding="utf-8")
    told = ["report", str(results), "--out", str(tmp_path), "--format", "text", "--into", str(page)]
    told += ["--against", str(docs / "experiment" / against)] if against else []
    assert run_cli(told) == 0
    assert page.read_text(encoding="utf-8") == (docs / page_name).read_text(encoding="utf-8")
    for drawn in (tmp_path / "figures").iterdir():
        assert drawn.read_text() == (results / "figures" / drawn.name).read_text(), drawn.name
