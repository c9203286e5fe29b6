"""An experiment's tables from drawn answers with known differences."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.answers import write_answers
from harness.averaging import AVERAGE
from harness.cli import run_cli
from harness.errors import BadInput
from harness.experiments import read_experiment
from harness.folders import sha256_of
from harness.jsonfiles import write_json
from harness.replication import Replicated, median_seed
from harness.scoring import score
from reports.experiment import experiment_tables, find, put_into
from reports.experiment.figures import experiment_figures
from reports.table import Table
from tests.harness.synthetic import answers
from tests.reports.drawn import ASKED, write_results


def tables_of(folder: Path) -> dict[str, Table]:
    return {table.name: table for table in experiment_tables(find(read_experiment(folder)))}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results"))


def test_arms_stand_in_the_papers_tables(results: Path) -> None:
    tables = tables_of(results)
    assert [row[0].text for row in tables["comparison"].rows] == ["BASE", "SFT", "EMIT", "ALIGNED"]
    assert [row[0].text for row in tables["ablation-inputs"].rows] == ["EMIT-WO-SP", "EMIT"]
    assert "ablation-training" not in tables  # EMIT alone is no ablation
    row = tables["comparison"].rows[2]
    spread = Replicated({"emit": read_experiment(results).arms[2].answers}).spread("emit", AVERAGE)
    assert row[1].text == "4" and row[-1].text == f"{spread.mean:.2f} \u00b1 {spread.deviation:.2f}"
    assert "\u00b1" not in tables["comparison"].rows[0][-1].text  # one run has no spread


def test_claims_hold_fail_or_are_turned_round(results: Path) -> None:
    tables = tables_of(results)
    verdicts = {row[0].text: (row[-1].text, row[-2].text) for row in tables["claims"].rows}
    assert verdicts["EMIT > SFT"][0] == "holds"
    assert verdicts["BASE > SFT"][0] == "the reverse holds"
    assert verdicts["EMIT > EMIT-WO-SP"] == ("not shown", "-")  # secondary: not adjusted
    assert verdicts["EMIT > BASE"] == ("holds (unadjusted)", "-")
    assert len(verdicts) == 5  # an arm without a result makes no claim


def test_the_gain_shows_where_questions_were_hard(results: Path) -> None:
    tables = tables_of(results)
    rows = {row[0].text: [cell.value for cell in row[1:]] for row in tables["strata"].rows}
    hard, easy = 0, 3
    assert rows["EMIT"][hard] > rows["SFT"][hard] + 30
    assert rows["EMIT"][easy] == pytest.approx(rows["SFT"][easy], abs=5)
    assert "n 0" in tables["strata"].columns[2].title  # nothing lies between
    claims = {row[0].text: [cell.text for cell in row[1:]] for row in tables["strata-claims"].rows}
    assert set(claims) == {"EMIT - SFT"}  # none against base, drawing model, or one of another stage 1
    assert claims["EMIT - SFT"][1] == "-"  # nothing lies between
    never, more, contrast = (float(claims["EMIT - SFT"][i].split()[0]) for i in (0, 3, 4))
    assert contrast == pytest.approx(never - more, abs=0.011) and contrast > 30


def test_what_is_unfinished_is_told(tmp_path: Path) -> None:
    folder = write_results(tmp_path, planned=6)
    tables = tables_of(folder)
    assert any("SFT 4 of 6" in note for note in tables["comparison"].notes)
    claims = {row[0].text: [cell.text for cell in row] for row in tables["claims"].rows}
    assert claims["EMIT > SFT"][-1] == "not finished"  # whatever p is: nobody stops where it suits
    assert claims["EMIT > SFT"][-2] == "1.0000"  # and it does not ease the adjustment of another claim
    assert claims["EMIT > BASE"][-1] == "holds (unadjusted)"
    assert tables["strata-claims"].rows[0][0].text == "EMIT - SFT (not finished)"
    drawn = experiment_figures(find(read_experiment(folder)))["strata"]
    assert not shapes(drawn, "told") and shapes(drawn, "open")


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
    found = read_experiment(results).arms[2].answers
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
    write_json(folder / "emit/seed-2.record.json", {"learning": {"grpo": {"mean": {"p0/4": 1, "p1/4": 2}}}})
    assert tables_of(folder)["training"].rows == ((row),)  # half of what is needed tells nothing


def test_an_arm_that_is_asked_its_own_way_is_named(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    asked = {"name": "emit", "mode": "direct", "digest": "d" * 64}
    for seed in range(4):
        machine = {"emit-bench": f"0.{seed}", "threads": 1}
        protocol = asked if seed else {**asked, "mode": "think", "digest": "a" * 64}
        arm = "sft" if seed else "emit"
        write_json(folder / f"{arm}/seed-{seed}.record.json", {"protocol": protocol, "machine": machine})
    tables = tables_of(folder)
    told = "SFT is asked in its own way: protocol emit (direct, 1-shot), sha256 dddddddddddddddd."
    assert told in tables["comparison"].notes and told in tables["seeds"].notes
    assert not any("EMIT is asked" in note for note in tables["comparison"].notes)
    assert "Runs were made by several versions of emit-bench: 0.0, 0.1, 0.2, 0.3." in tables["seeds"].notes


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
    assert (len(told), len(open_)) == (4, 1)  # what is not shown is hollow
    # One primary claim in two strata: luck in what was drawn does not cancel against the base.
    assert len(shapes(figures["strata"], "whisker", "line")) == 2


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
    page.write_text("<!-- table: contrast --><!-- end -->")
    with pytest.raises(BadInput, match="needs another experiment"):
        put_into(experiment_tables(find(read_experiment(results))), page)
    page.write_text("<!-- table: training --><!-- end -->")
    put_into(experiment_tables(find(read_experiment(results))), page)
    assert page.read_text() == "<!-- table: training -->\nNothing yet.\n<!-- end -->"
    endless = "<!-- table: claims -->\nWords.\n<!-- table: seeds --><!-- end -->"
    page.write_text(endless)
    with pytest.raises(BadInput, match="table: claims --> has no <!-- end --> of its own"):
        put_into(experiment_tables(find(read_experiment(results))), page)
    assert page.read_text() == endless
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
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda design: design["arms"][0].pop("id"),
        lambda design: design["arms"][0].update(seeds="1"),
        lambda design: design["arms"].append("arm"),
        lambda design: design.pop("comparisons"),
        lambda design: design.update(comparisons=["emit > sft"]),
        lambda design: design["comparisons"][0].pop("primary"),
        lambda design: design["comparisons"][0].update(better="emti"),
        lambda design: design.pop("benchmark"),
        lambda design: design["protocol"].update(digest=7),
        lambda design: design.update(strata=["emit"]),
        lambda design: design.update(fingerprints={"emit": "f"}),
    ],
)
def test_a_damaged_design_is_one_sentence(
    change: Callable[[dict[str, Any]], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_results(tmp_path) / "experiment.json"
    design = json.loads(path.read_text())
    change(design)
    path.write_text(json.dumps(design))
    assert run_cli(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "experiment.json" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_damaged_record_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_results(tmp_path)
    record = folder / "emit/seed-0.record.json"
    write_json(record, {"learning": 3})
    assert run_cli(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "seed-0.record.json" in capsys.readouterr().err
    record.write_text('{"fingerprint"')
    assert run_cli(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "broken JSON" in said and "run the experiment again" in said and "correct" not in said


def test_what_is_no_experiment_alone_is_told_what_it_is(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/results").symlink_to(results)
    for named, sentence in [
        ([str(results), str(results)], "an experiment is reported alone"),
        ([str(tmp_path / "work")], f"name its results, {tmp_path / 'work/results'}"),
        ([str(tmp_path), "--against", str(results)], f"{tmp_path}: there is no experiment.json"),
    ]:
        assert run_cli(["report", *named]) == 2
        assert sentence in capsys.readouterr().err


def test_the_command_shows_what_was_found(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["report", str(results), "--out", str(tmp_path), "--format", "csv"]) == 0
    told = capsys.readouterr().out
    assert "EMIT > SFT" in told and "the reverse holds" in told and f"{tmp_path / 'figures'}: 3 files" in told
    rows = list(csv.DictReader((tmp_path / "tables/claims.csv").open()))
    for row in rows:
        low, delta, high = (float(row[name]) for name in ("Difference low", "Difference", "Difference high"))
        assert low < delta < high
    sft = list(csv.DictReader((tmp_path / "tables/comparison.csv").open()))[1]
    spread = Replicated({"sft": read_experiment(results).arms[1].answers}).spread("sft", AVERAGE)
    assert (float(sft["Average"]), float(sft["Average s.d."])) == (spread.mean, spread.deviation)


def test_results_of_another_plan_are_not_this_designs(tmp_path: Path) -> None:
    """What was made by other facts than the design's is not done, whatever lies there."""
    folder = write_results(tmp_path)
    design = json.loads((folder / "experiment.json").read_text())
    arms = {arm["id"]: arm["seeds"] for arm in design["arms"]}
    design["fingerprints"] = {arm: [f"{arm}:{s}" for s in range(seeds)] for arm, seeds in arms.items()}
    design["strata"]["fingerprint"] = "drawn"
    write_json(folder / "experiment.json", design)
    assert not any(arm.answers for arm in read_experiment(folder).arms)  # no record says whose they are
    for arm, seeds in arms.items():
        for seed in range(seeds):
            made = f"{arm}:{seed}" if (arm, seed) != ("emit", 2) else "emit:2 of an older plan"
            write_json(folder / f"{arm}/seed-{seed}.record.json", {"fingerprint": made})
    found = read_experiment(folder)
    assert [len(arm.answers) for arm in found.arms] == [1, 4, 3, 3, 4, 0]
    assert any("EMIT 3 of 4" in note for note in tables_of(folder)["comparison"].notes)
    assert found.chances is None
    strata = json.loads(gzip.decompress((folder / "strata.json.gz").read_bytes()))
    write_json(folder / "strata.json.gz", {**strata, "fingerprint": "drawn"})
    assert read_experiment(folder).chances is not None


def test_answers_that_are_not_their_records_are_refused(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    file = folder / "emit/seed-1.json.gz"
    write_json(folder / "emit/seed-1.record.json", {"answers_sha256": sha256_of(file)})
    assert read_experiment(folder)
    write_answers(file, answers(ASKED, [True] * len(ASKED)))
    with pytest.raises(BadInput, match=r"not the answers of seed-1\.record\.json"):
        read_experiment(folder)


@pytest.mark.parametrize(
    ("name", "page_name", "against"),
    [("mini", "experiment.md", ""), ("mini-hard", "experiment_hard.md", "mini")],
)
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
