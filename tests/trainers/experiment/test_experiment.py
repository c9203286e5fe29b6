"""A whole experiment, small: trained, evaluated, kept, interrupted, continued, compared."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.averaging import AVERAGE
from harness.cli import run_cli
from harness.experiments import read_experiment
from harness.replication import Replicated
from harness.run_folder import locked

PLAN = """
name = "small"
title = "A small one"
[settings]
"data.limit" = 8
"grpo.batch" = 8
"rollout.group" = 2
"rollout.max_new_tokens" = 8
"grpo.max_steps" = 2
[evaluation]
mode = "logits"
limit = 30
[strata]
arm = "emit-wo-stage2"
draws = 2
[[arms]]
id = "base"
title = "Base"
mode = "direct"
[[arms]]
id = "emit-wo-stage2"
title = "Stage 1"
recipe = "emit-wo-stage2"
seeds = 2
[[arms]]
id = "grpo"
title = "GRPO"
recipe = "internvl3-grpo"
seeds = 2
[[comparisons]]
better = "grpo"
worse = "emit-wo-stage2"
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def arguments(folder: Path) -> list[str]:
    return ["experiment", str(folder / "plan.toml"), "--out", str(folder / "work"), "--processes", "2"]


def results(folder: Path) -> dict[str, bytes]:
    """Answers and draws; records tell of seconds, too."""
    root = folder / "work/results"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.gz"))}


def records(folder: Path) -> dict[str, dict]:
    return {
        path.name: json.loads(path.read_text())
        for path in sorted((folder / "work/results/grpo").glob("*.record.json"))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that ran through."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "plan.toml").write_text(PLAN)
    assert run_cli(arguments(folder)) == 0
    return folder


def test_every_arm_and_seed_has_an_answer_file_and_a_record(whole: Path) -> None:
    assert set(results(whole)) == {
        "base/seed-0.json.gz",
        "emit-wo-stage2/seed-0.json.gz",
        "emit-wo-stage2/seed-1.json.gz",
        "grpo/seed-0.json.gz",
        "grpo/seed-1.json.gz",
        "strata.json.gz",
    }
    record = records(whole)["seed-1.record.json"]
    assert record["facts"]["settings"]["seed"] == 1 and record["learning"]["grpo"]["steps"] == 2
    assert record["learning"]["grpo"]["mean"]["step"] == 1.5
    asked = json.loads((whole / "work/results/base/seed-0.record.json").read_text())["protocol"]
    assert (asked["mode"], record["protocol"]["mode"]) == ("direct", "logits")
    assert asked["digest"] != record["protocol"]["digest"]
    assert run_cli(["score", str(whole / "work/results/grpo/seed-0.json.gz")]) == 0


def test_a_stage_1_is_trained_once_a_seed(whole: Path) -> None:
    heads = list((whole / "work/results/stage1").iterdir())
    assert len(heads) == 2
    for seed in range(2):
        folder = whole / f"work/grpo/seed-{seed}"
        assert not (folder / "stage1/metrics.jsonl").exists()  # it began with what the other arm had left
        other = whole / f"work/emit-wo-stage2/seed-{seed}"
        assert (folder / "stage1/contrast.safetensors").read_bytes() == (
            other / "stage1/contrast.safetensors"
        ).read_bytes()


def test_the_same_command_again_trains_nothing(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (whole / "work").rglob("*") if path.is_file()}
    assert run_cli([*arguments(whole), "--format", "json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert len(told["done"]) == 6 and not told["failed"]
    after = {path: path.stat().st_mtime_ns for path in (whole / "work").rglob("*") if path.is_file()}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"experiment.json"}


def running(folder: Path) -> list[str]:
    """Jobs that work in a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_bytes().decode(errors="replace"))
    return [line for line in lines if str(folder) in line and "--only" in line]


def test_a_killed_experiment_goes_on_to_the_same_answers(whole: Path, tmp_path: Path) -> None:
    """One arm alone trains the stage 1 that it shared there; answers and weights are the same to the bit."""
    (tmp_path / "plan.toml").write_text(PLAN)
    some = [*arguments(tmp_path), "--arms", "grpo", "--seeds", "1"]
    command = [sys.executable, "-m", "harness.cli", *some]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not list((tmp_path / "work").glob("grpo/*/grpo/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()  # what it started ends with it
    process.wait()
    deadline = time.monotonic() + 30
    while running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(tmp_path)
    assert not results(tmp_path)
    assert run_cli(some) == 0
    name = "grpo/seed-0.json.gz"
    assert results(tmp_path) == {name: results(whole)[name]}
    one, other = (records(folder)["seed-0.record.json"] for folder in (tmp_path, whole))
    assert one["weights_sha256"] == other["weights_sha256"] and one["fingerprint"] == other["fingerprint"]


def test_tables_follow_from_the_result_files_alone(whole: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n<!-- table: comparison -->\nold\n<!-- end -->\nafter <!-- table: claims --><!-- end -->\n"
    )
    found = whole / "work/results"
    assert (
        run_cli(["report", str(found), "--out", str(tmp_path), "--format", "csv,latex", "--into", str(page)])
        == 0
    )
    text = page.read_text()
    assert "old" not in text and "after" in text and "GRPO &gt; Stage 1" in text
    names = {path.name for path in (tmp_path / "tables").iterdir()}
    assert {"comparison.csv", "claims.tex", "seeds.csv", "strata.csv"} <= names
    assert "strata-claims.tex" not in names  # the only claim is against the model that drew
    again = page.read_text()
    assert (
        run_cli(["report", str(found), "--out", str(tmp_path), "--format", "csv", "--into", str(page)]) == 0
    )
    assert page.read_text() == again
    experiment = read_experiment(found)
    both = Replicated({arm.id: arm.answers for arm in experiment.arms})
    assert f"{both.spread('grpo', AVERAGE).mean:.2f}" in text


OTHERS = [
    (
        '"grpo.max_steps" = 2',
        '"grpo.max_steps" = 3',
        "emit-wo-stage2:0 as another plan, version or --dtype made it "
        "(settings.grpo.max_steps 2 there, 3 here)",
    ),
    ("draws = 2", "draws = 3", "strata as another plan"),
    ("limit = 30", "limit = 40", "base:0 as another plan, version or --dtype made it (asked otherwise)"),
]


def tried(whole: Path, folder: Path, plan: str, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said of a plan that is wrong for the whole experiment's results, which stay as they are."""
    root = whole / "work/results"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    (folder / "plan.toml").write_text(plan)
    told = ["experiment", str(folder / "plan.toml"), "--results", str(root), "--out", str(folder / "work")]
    assert run_cli([*told, *words]) == 2
    assert all(path.read_bytes() == content for path, content in before.items())
    return capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        *OTHERS,
        ('name = "small"', 'name = "other"', "it is of the experiment 'small', not 'other'"),
        ("seeds = 2\n[[comp", "seeds = 1\n[[comp", "grpo:1 is done, and the plan has it no more"),
        ('better = "grpo"\nworse = "emit-wo-stage2"', "", "comparisons: better must be given"),
        ('worse = "emit-wo-stage2"', 'worse = "base"', "the claim grpo > emit-wo-stage2 is not as it was"),
        (
            'worse = "emit-wo-stage2"',
            'worse = "emit-wo-stage2"\nprimary = false',
            "the claim grpo > emit-wo-stage2 is not as it was",
        ),
        (
            "[[comparisons]]",
            '[[comparisons]]\nbetter = "grpo"\nworse = "base"\n[[comparisons]]',
            "grpo > base",
        ),
        ('title = "GRPO"', 'title = "GRPO"\nships = "emti"', "ships: there is no model 'emti'"),
        ('recipe = "internvl3-grpo"', 'recipe = "internvl3-gpro"', "arm grpo: there is no recipe"),
        ('mode = "logits"', 'mode = "logits"\nbenchmark = "maxi"', "evaluation: there is no benchmark"),
        ('mode = "logits"', 'mode = "logits"\nbenchmark = "mmad"', "and pass `data` = DIR"),
        ('"data.limit" = 8', '"data.limmit" = 8', "arm emit-wo-stage2: there is no setting 'data.limmit'"),
    ],
)
def test_what_is_wrong_with_a_plan_or_a_folder_is_one_sentence(
    old: str, new: str, sentence: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Above all, results of one plan are not written over by another's."""
    assert sentence in tried(whole, tmp_path, PLAN.replace(old, new), capfd)


@pytest.mark.parametrize("words", [["--dtype", "loud"], ["--device", "cuda"], ["--device", "tpu"]])
def test_a_wrong_device_is_no_fault_of_the_plan(
    words: list[str], whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = tried(whole, tmp_path, PLAN, capfd, *words)
    assert words[1] in said and "plan.toml" not in said


@pytest.mark.parametrize(("old", "new", "sentence"), OTHERS)
def test_the_status_tells_what_is_not_this_plans(
    old: str, new: str, sentence: str, whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN.replace(old, new))
    told = ["experiment", str(tmp_path / "plan.toml"), "--results", str(whole / "work/results")]
    assert run_cli([*told, "--out", str(tmp_path / "work"), "--status"]) == 0
    said = capfd.readouterr().out
    name, _, reason = sentence.partition(" as another plan, version or --dtype made it ")
    assert f"made by another plan, version or --dtype: {name.partition(' ')[0]} {reason}" in said
    assert f"not done: {name.partition(' ')[0]}" in said or "strata" in said


def test_a_job_under_way_is_told(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    with locked(tmp_path / "work/grpo/seed-1"):
        assert run_cli([*arguments(tmp_path), "--status"]) == 0
    assert "0 of 6 jobs done; running grpo:1;" in capfd.readouterr().out


def test_a_failed_job_is_told_with_its_reason(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text(PLAN)
    base = tmp_path / "work/base/seed-0/evaluation"
    base.parent.mkdir(parents=True)
    base.write_text("where a folder has to be")
    assert run_cli([*arguments(tmp_path), "--arms", "base"]) == 5
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("emit-bench: base:0 failed: ") and "evaluation" in said and "log.txt" in said


def test_what_leaks_is_not_trained_on(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A training set that shows the benchmark's own queries stops the plan before anything is trained."""
    from harness.plugins import load_registry

    benchmark = load_registry().benchmarks["mini"].load(None)
    item = next(item for item in benchmark.items if item.normal)
    (tmp_path / "stolen.png").write_bytes(item.image.read_bytes())
    sample = {
        "id": "1",
        "dataset": "D",
        "object": "o",
        "task": "anomaly_discrimination",
        "question": "Is there any defect in the object?",
        "options": {"A": "Yes.", "B": "No."},
        "answer": "B",
        "query": "stolen.png",
        "references": ["stolen.png"],
        "knowledge": [],
    }
    (tmp_path / "train.jsonl").write_text(json.dumps(sample) + "\n")
    plan = PLAN.replace('title = "A small one"', f'title = "Leaks"\ndata = "{tmp_path / "train.jsonl"}"')
    (tmp_path / "plan.toml").write_text(plan)
    assert run_cli(arguments(tmp_path)) == 2
    assert "data leakage" in capfd.readouterr().err
