"""The shipped mini models on the mini benchmark: what the project claims of them, measured."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.answers import read_answers
from harness.averaging import TITLES
from harness.cli import run_cli
from harness.experiments import read_experiment
from harness.extraction import extract_letter
from harness.records import Answer, Outcome, is_normal
from harness.replication import Replicated, median_seed
from harness.run import read_run
from harness.scoring import AVERAGE, score
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION, SUBTASK_KEYS
from plugins.weights import MINI_WEIGHTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
#: Trained whole, with nothing about the benchmark's products, by stage 1 alone, and the base of all.
EMIT, APART, ALIGNED, BASE = MODELS = ("emit", "emit-wo-text", "emit-wo-stage2", "internvl3-base")
ROOT = Path(__file__).parents[1]
JOB = ("arm", "seed", "fingerprint", "facts", "stage1", "benchmark", "protocol")
SHIPPED = ROOT / "docs" / "experiment" / "shipped"
Run = tuple[Path, Mapping[str, Any], Mapping[str, tuple[Answer, ...]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The README's command, finished."""
    out = tmp_path_factory.mktemp("run")
    assert run_cli(["run", "--models", ",".join(MODELS), "--out", str(out)]) == 0
    manifest, answers = read_run(out)
    return out, manifest, answers


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The base answering with a letter alone, on a sample."""
    out = tmp_path_factory.mktemp("direct")
    command = ["run", "--models", "internvl3-base", "--mode", "direct", "--limit", "250", "--out", str(out)]
    assert run_cli(command) == 0
    manifest, answers = read_run(out)
    return out, manifest, answers


def difference_interval(
    first: tuple[Answer, ...], second: tuple[Answer, ...], subtask: str, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the difference in accuracy (points), resampling images.

    Anomaly Discrimination is balanced as in scoring: the mean over normal and over anomalous images.
    """
    right: dict[str, list[float]] = defaultdict(list)
    for a, b in zip(first, second, strict=True):
        assert (a.key, a.number) == (b.key, b.number)
        if a.subtask == subtask:
            right[a.key].append(float(a.letter == a.correct) - float(b.letter == b.correct))
    strata: dict[bool, list[float]] = defaultdict(list)
    for key, values in right.items():
        strata[subtask == ANOMALY_DISCRIMINATION and "/good/" in key].append(float(np.mean(values)))
    means = [
        np.array(values)[rng.integers(0, len(values), (4000, len(values)))].mean(1)
        for values in strata.values()
    ]
    low, high = np.percentile(100 * np.mean(means, axis=0), [2.5, 97.5])
    return float(low), float(high)


def test_every_question_is_answered_by_both(run: Run) -> None:
    _, _, answers = run
    assert set(answers) == set(MODELS)
    for given in answers.values():
        assert all(answer.outcome is not Outcome.FAILED for answer in given)
        assert np.mean([answer.outcome is Outcome.ANSWERED for answer in given]) > 0.95


def test_the_base_is_neither_blind_nor_done(run: Run) -> None:
    _, _, answers = run
    average = score(answers["internvl3-base"]).rows[AVERAGE][AVERAGE]
    assert average is not None and 50 < average < 75


def average_interval(
    first: tuple[Answer, ...], second: tuple[Answer, ...], rng: np.random.Generator, resamples: int = 2000
) -> tuple[float, float]:
    """95 % interval of the difference of two official averages (points), resampling each dataset's images."""
    datasets = sorted({answer.dataset for answer in first})
    gaps = []
    for dataset in datasets:
        keys = sorted({answer.key for answer in first if answer.dataset == dataset})
        drawn = rng.multinomial(len(keys), np.full(len(keys), 1 / len(keys)), size=resamples)
        one, two = (
            dataset_averages([a for a in x if a.dataset == dataset], keys, drawn) for x in (first, second)
        )
        gaps.append(one - two)
    low, high = np.percentile(np.mean(gaps, axis=0), [2.5, 97.5])
    return float(low), float(high)


def dataset_averages(answers: list[Answer], keys: list[str], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """A dataset's official average for every resample of its images: ``drawn`` (resamples, images) counts."""
    kinds = sorted({_kind(answer) for answer in answers})
    sums, counts = np.zeros((2, len(keys), len(kinds)))
    for answer in answers:
        if answer.letter is not None:  # the official rule leaves the others out
            place = keys.index(answer.key), kinds.index(_kind(answer))
            sums[place] += answer.letter == answer.correct
            counts[place] += 1
    means = 100 * (drawn @ sums) / np.maximum(drawn @ counts, 1)
    halves = [i for i, kind in enumerate(kinds) if kind.startswith(ANOMALY_DISCRIMINATION)]
    whole = [means[:, i] for i in range(len(kinds)) if i not in halves]
    averages: NDArray[np.float64] = np.mean([means[:, halves].mean(1), *whole], axis=0)
    return averages


def _kind(answer: Answer) -> str:
    return (
        f"{answer.subtask}/{is_normal(answer.key)}"
        if answer.subtask == ANOMALY_DISCRIMINATION
        else answer.subtask
    )


@pytest.mark.parametrize(("model", "points"), [(EMIT, 5), (APART, 3)])
def test_both_stages_gain_on_held_out_products(run: Run, model: str, points: float) -> None:
    """Stage 1 and difficulty-aware GRPO against the base: paired, resampling images.

    EMIT has met normal pictures of these products, with queries in words; the other one has met none at all.
    """
    _, _, answers = run
    mine, base = (score(answers[name]).rows[AVERAGE][AVERAGE] for name in (model, BASE))
    assert mine is not None and base is not None
    assert mine - base >= points
    low, high = average_interval(answers[model], answers[BASE], np.random.default_rng(0))
    assert 0 < low < mine - base < high


def test_the_resampled_average_is_the_official_one(run: Run) -> None:
    """With every image drawn once it is the scorer's."""
    _, _, answers = run
    given = answers[BASE]
    parts = []
    for dataset in sorted({answer.dataset for answer in given}):
        own = [answer for answer in given if answer.dataset == dataset]
        keys = sorted({answer.key for answer in own})
        parts.append(dataset_averages(own, keys, np.ones((1, len(keys)), np.int64))[0])
    assert np.mean(parts) == pytest.approx(score(given).rows[AVERAGE][AVERAGE], abs=1e-9)


@pytest.mark.parametrize(
    ("model", "subtask"),
    [(EMIT, ANOMALY_DISCRIMINATION), (EMIT, DEFECT_LOCALIZATION), (ALIGNED, ANOMALY_DISCRIMINATION)],
)
def test_comparing_helps_where_it_is_done(run: Run, subtask: str, model: str) -> None:
    """On these few images; on the many of the experiment, stage 1 alone gains on localization too."""
    _, _, answers = run
    low, _ = difference_interval(answers[model], answers[BASE], subtask, np.random.default_rng(0))
    assert low > 0


def test_the_aligned_model_is_its_base_elsewhere(run: Run) -> None:
    """Stage 1 moves nothing of the base, so questions without hints are answered alike."""
    _, _, answers = run
    for a, b in zip(answers[ALIGNED], answers[BASE], strict=True):
        if a.subtask not in (ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION):
            assert a.letter == b.letter


def test_images_are_encoded_once_and_prefixes_prefilled_once(run: Run) -> None:
    _, manifest, answers = run
    for model in MODELS:
        described = manifest["models"][model]
        counters = described["counters"]
        assert counters["images_encoded"] == described["distinct_images"]
        assert counters["groups"] == described["groups"]
        # Unshared, every question would carry its own prefix: more tokens than there are in all of this run.
        questions = len(answers[model])
        assert counters["prefix_tokens"] + counters["suffix_tokens"] < 0.6 * sum(
            answer.prompt_tokens for answer in answers[model]
        )
        assert counters["decoded_tokens"] >= questions


def test_the_base_follows_the_thinking_format(run: Run) -> None:
    _, _, answers = run
    given = answers["internvl3-base"]
    shaped = [
        answer.text.startswith("<think>") and answer.text.rstrip().endswith("</answer>") for answer in given
    ]
    assert np.mean(shaped) > 0.95
    assert np.mean([extract_letter(answer.text, answer.options) is not None for answer in given]) > 0.95


def test_the_base_follows_the_letter_format(direct: Run) -> None:
    _, _, answers = direct
    given = answers["internvl3-base"]
    assert np.mean([answer.text.strip() in answer.options for answer in given]) > 0.95


def test_official_answer_files_score_alike(run: Run) -> None:
    out, _, answers = run
    for model in MODELS:
        again = score(read_answers(out / "answers" / f"{model}.json"))
        assert again.rows == score(answers[model]).rows
        assert set(again.rows[AVERAGE]) >= set(SUBTASK_KEYS)


def test_the_committed_tables_are_those_of_the_shipped_models(run: Run) -> None:
    """Scores of ``docs/experiment/shipped``, which ``emit-bench run --models 'emit*,internvl3*'`` prints."""
    out, _, _ = run
    names = ("comparison.csv", "ablation-training.csv", "ablation-inputs.csv")
    committed = {name: scores_of(SHIPPED / name) for name in names}
    assert len({title for table in committed.values() for title in table}) == 9
    for name in names[:2]:
        found = scores_of(out / "tables" / name)
        assert "EMIT" in found and len(found) > 1
        for title, scores in found.items():
            assert len(scores) == len(TITLES)
            for column, value in scores.items():  # kinds of processor may differ in a few near ties
                near = 1 if column == TITLES[AVERAGE] else 4
                assert committed[name][title][column] == pytest.approx(value, abs=near)


def test_what_ships_are_the_experiments_medians() -> None:
    """Each id holds the run whose average is the median of its arm's seeds, and says so."""
    experiment = read_experiment(ROOT / "docs" / "experiment" / "mini")
    arms = [arm for arm in experiment.design["arms"] if arm["ships"]]
    found = Replicated({arm.id: arm.answers for arm in experiment.arms if arm.answers})
    for arm in arms:
        record = json.loads((MINI_WEIGHTS / arm["ships"] / "training.json").read_text(encoding="utf-8"))
        values = map(float, found.values(arm["id"], AVERAGE))
        seed = median_seed(dict(zip(found.seeds[arm["id"]], values, strict=True)))
        results = ROOT / "docs" / "experiment" / "mini" / arm["id"]
        planned = json.loads((results / f"seed-{seed}.record.json").read_text(encoding="utf-8"))
        # Trained again on another kind of processor it is the same job, and another run.
        assert [record[key] for key in JOB] == [planned[key] for key in JOB]
    assert len(arms) == 8
    files = [path for path in MINI_WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40e6


def scores_of(path: Path) -> dict[str, dict[str, float]]:
    """Model -> column -> score of a comparison table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["Model"]: {name: float(value) for name, value in row.items() if name in TITLES.values()}
        for row in rows
    }


def test_the_same_command_again_asks_nobody(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run
    before = (out / "tables" / "comparison.txt").read_bytes()
    assert run_cli(["run", "--models", ",".join(MODELS), "--out", str(out)]) == 0
    assert (out / "tables" / "comparison.txt").read_bytes() == before
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    for model in MODELS:
        assert manifest["models"][model]["reused"] == manifest["models"][model]["questions"]
    assert "EMIT" in capsys.readouterr().out
