"""Pass rates: drawn before stage 2, as it would draw; whatever stops the drawing, the file is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.cli import run_cli
from harness.errors import BadInput
from tests import tiny
from tests.trainers import small
from tests.trainers.commands import command
from trainers import grpo
from trainers.distributed import Tally, World
from trainers.feed import Feed
from trainers.objective import units_of
from trainers.pass_rates import FILE, PassRate, as_table, measure, read_pass_rates
from trainers.rewards import Reward
from trainers.rollout import TorchSampler
from trainers.samples import TrainingSet, read_training_set
from trainers.settings import Settings

DRAWS = ("--draws", "6")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("base") / "base", *tiny.internvl())


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.training_set(tmp_path_factory.mktemp("set"), pairs=9).path


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, base: Path, rows: Path) -> Path:
    out = tmp_path_factory.mktemp("measured") / "emit"
    assert run_cli(command("emit", out, base, rows, *DRAWS)) == 0
    return out


def test_every_question_has_its_rate(measured: Path, rows: Path) -> None:
    rates = read_pass_rates(measured / FILE)
    samples = read_training_set(rows).samples
    assert {(one.id, one.task) for one in rates} == {(sample.id, sample.task) for sample in samples}
    assert len(rates) == len(samples) and {one.draws for one in rates} == {6}
    assert not (measured / "grpo").exists() and not (measured / "model").exists()  # nothing was learnt


def test_a_drawing_that_was_cut_off_goes_on(measured: Path, tmp_path: Path, base: Path, rows: Path) -> None:
    whole = (measured / FILE).read_text()
    cut = whole[: whole.index("\n", 200) + 30]  # in the middle of a line
    (measured / FILE).write_text(cut)
    assert run_cli(command("emit", measured, base, rows, *DRAWS, "--resume")) == 0
    assert sorted((measured / FILE).read_text().splitlines()) == sorted(whole.splitlines())


def test_two_processes_draw_what_one_draws(measured: Path, tmp_path: Path, base: Path, rows: Path) -> None:
    out = tmp_path / "emit"
    arguments = command("emit", out, base, rows, *DRAWS, "--processes", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert sorted((out / FILE).read_text().splitlines()) == sorted((measured / FILE).read_text().splitlines())
    assert "Anomaly Discrimination" in done.stdout and str(out / FILE) in done.stdout


def test_another_number_of_draws_is_refused(
    measured: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (measured / FILE).read_bytes()
    assert run_cli(command("emit", measured, base, rows, "--draws", "4", "--resume")) == 2
    assert "rates of 6 draws a question; draw as many" in capsys.readouterr().err
    assert (measured / FILE).read_bytes() == before


def test_a_file_that_is_no_text_is_refused(
    measured: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (measured / FILE).read_bytes()
    (measured / FILE).write_bytes(b"\xff\xfe\n" + whole)
    assert run_cli(command("emit", measured, base, rows, *DRAWS, "--resume")) == 2
    assert FILE in capsys.readouterr().err
    (measured / FILE).write_bytes(whole)


def test_a_recipe_that_draws_nothing_is_refused(
    tmp_path: Path, base: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(command("internvl3-sft", tmp_path / "sft", base, rows, *DRAWS)) == 2
    assert "internvl3-sft draws no responses; use one with GRPO" in capsys.readouterr().err


def coin(text: str, *about: Any, **more: Any) -> Reward:
    """A random model is never right, so a coin says what is."""
    return Reward(0.0, float(sum(map(ord, text)) % 3 == 0), 0.0, 0.0, 0.0)


def trainer(data: TrainingSet, world: World) -> grpo.Grpo:
    policy, maker = small.policy(awake=True)
    chosen = Settings().replaced({"rollout.max_new_tokens": 5, "rollout.group": 4, "grpo.batch": 4})
    sampler = TorchSampler(policy, chosen.rollout)
    return grpo.Grpo(policy, sampler, Feed(maker, workers=0), data.pairs(), chosen, world)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TrainingSet, dict[str, int]]:
    """A training set, and how many responses to each question are right, by another way."""
    monkeypatch.setattr(grpo, "reward", coin)
    data = small.training_set(tmp_path / "set", pairs=9)
    made = trainer(data, World())
    drawn = [group for unit in units_of(data.pairs(), "think") for group in made.groups(*unit)]
    right = {group.sample.id: sum(group.correct) for group in drawn}
    assert len(set(right.values())) > 2
    return data, right


def rates(path: Path) -> dict[str, int]:
    return {one.id: one.right for one in read_pass_rates(path)}


def test_rates_count_right_responses(tmp_path: Path, counted: tuple[TrainingSet, dict[str, int]]) -> None:
    data, right = counted
    measure(trainer(data, World()), data.pairs(), World(), tmp_path / FILE)
    assert rates(tmp_path / FILE) == right


def test_what_was_cut_off_is_counted_alike(
    tmp_path: Path, counted: tuple[TrainingSet, dict[str, int]]
) -> None:
    data, right = counted
    made, path = trainer(data, World()), tmp_path / FILE
    measure(made, data.pairs(), World(), path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:7]) + lines[7][:20])
    measure(made, data.pairs(), World(), path)
    assert rates(path) == right and len(path.read_text().splitlines()) == len(right)


class Thread(World):
    """A rank in a thread of this process."""

    def __init__(self, rank: int, board: list[Any], meeting: threading.Barrier) -> None:
        super().__init__(rank, len(board))
        self.board, self.meeting = board, meeting

    def gathered(self, value: Any) -> list[Any]:
        self.board[self.rank] = value
        self.meeting.wait(60)
        found = list(self.board)
        self.meeting.wait(60)
        return found

    def add(self, tally: Tally, device: torch.device) -> Tally:
        total = Tally()
        for part in self.gathered(tally):
            total.plus(part)
        return total

    def agree(self, error: str | None) -> str | None:
        return next((said for said in self.gathered(error) if said is not None), None)

    def told(self, value: Any) -> Any:
        return self.gathered(value)[0]


def test_ranks_count_together(tmp_path: Path, counted: tuple[TrainingSet, dict[str, int]]) -> None:
    data, right = counted
    board, meeting = [None, None], threading.Barrier(2)
    worlds = [Thread(rank, board, meeting) for rank in range(2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(measure, trainer(data, world), data.pairs(), world, tmp_path / FILE)
            for world in worlds
        ]
        for run in runs:
            run.result(120)
    assert rates(tmp_path / FILE) == right


def test_a_question_that_nobody_drew_for_is_no_hard_one(
    tmp_path: Path, counted: tuple[TrainingSet, dict[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = counted
    monkeypatch.setattr(World, "share", lambda self, units: list(units)[1:])
    with pytest.raises(RuntimeError, match="no process drew for ad0"):
        measure(trainer(data, World()), data.pairs(), World(), tmp_path / FILE)


def test_one_draw_is_refused_before_anything_is_trained(tmp_path: Path, base: Path, rows: Path) -> None:
    assert run_cli(command("emit", tmp_path / "emit", base, rows, "--draws", "1")) == 2
    assert not (tmp_path / "emit").exists()


def test_after_drawing_stage_2_learns_as_if_nothing_had_been_drawn(
    measured: Path, tmp_path: Path, base: Path, rows: Path
) -> None:
    assert run_cli(command("emit", measured, base, rows, "--resume")) == 0
    assert run_cli(command("emit", tmp_path / "emit", base, rows)) == 0
    one, other = (load_file(out / "model" / "model.safetensors") for out in (measured, tmp_path / "emit"))
    assert all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "a", "task": "object_analysis", "right": 3, "draws": 2}, "3 of 2 cannot be right"),
        ({"id": "a", "task": "object_analysis", "right": 0, "draws": 0}, "0 of 0 cannot be right"),
        ({"id": "a", "right": 3, "draws": 2}, "it is no pass rate"),
        ({"id": "a", "task": "object_analysis", "right": "many", "draws": 2}, "it is no pass rate"),
    ],
)
def test_lines_that_are_no_rates_are_named(tmp_path: Path, line: dict[str, object], message: str) -> None:
    path = tmp_path / FILE
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(BadInput, match=f"line 1: {message}"):
        read_pass_rates(path)


def test_the_table_puts_shares_into_their_strata() -> None:
    rates = [PassRate(str(right), "defect_analysis", right, 8) for right in range(9)]
    line = as_table(rates).splitlines()[1].split()
    assert line == ["Defect", "Analysis", "9", "11.1", "11.1", "33.3", "44.4"]
