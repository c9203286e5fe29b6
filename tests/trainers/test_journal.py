"""The training's record: cut back to what a checkpoint holds, and drawn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

from trainers.distributed import Tally, World
from trainers.journal import Journal, draw_curves, read_metrics
from trainers.loop import learning_rate
from trainers.objective import permutation
from trainers.settings import Optimisation


def test_lines_beyond_the_checkpoint_are_cut(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(step, {"loss": 1 / step}, {"images_encoded": 2})
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 4, "lo')  # the process died in mid-line
    again = Journal(tmp_path, 2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    again.write(3, {"loss": 0.5}, {})
    again.close()
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 0.5, 0.5]


def test_curves_are_drawn_of_what_moves(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    journal.write(1, {"loss": 1.0, "same": 3.0}, {})
    assert draw_curves(tmp_path) is None  # one point is no curve
    journal.write(2, {"loss": 0.5, "same": 3.0}, {})
    path = draw_curves(tmp_path)
    assert path is not None and path.read_bytes().startswith(b"\x89PNG")
    assert draw_curves(tmp_path / "nowhere") is None


def test_warm_up_and_cosine() -> None:
    settings = Optimisation(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(settings, step, 100) for step in range(100)]
    assert rates[0] == 0.2 and rates[9] == rates[10] == 2.0
    assert abs(rates[55] - 1.0) < 1e-9  # half-way down the cosine
    assert all(a >= b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 0.001


def test_an_epochs_order_is_its_own() -> None:
    first = permutation(1, 0, 50)
    assert sorted(first) == list(range(50))
    assert first == permutation(1, 0, 50)
    assert len({tuple(permutation(seed, epoch, 50)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_work_is_dealt_whole() -> None:
    units = list(range(7))
    shares = [World(rank, 3).share(units) for rank in range(3)]
    assert sorted(unit for share in shares for unit in share) == units
    assert World().share(units) == units


def test_a_missing_gradient_is_zeros_on_one_rank_as_on_many() -> None:
    """AdamW skips a parameter without a gradient, and moves one whose gradient is zero."""
    parameter = torch.nn.Parameter(torch.ones(2))
    World().add_gradients([parameter])
    assert parameter.grad is not None and not parameter.grad.any()


def test_tallies_add_up() -> None:
    tally = Tally(a=1)
    tally.plus({"a": 2, "b": 0.5})
    assert (tally["a"], tally["b"], tally["c"]) == (3, 0.5, 0.0) and "c" not in tally
