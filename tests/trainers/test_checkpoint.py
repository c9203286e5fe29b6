"""Checkpoints: whole or not there, whatever write the process dies at."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import BadInput
from trainers import checkpoint
from trainers.checkpoint import State


def state(step: int) -> State:
    return State(step, {"w": torch.full((4,), float(step))}, {"w/exp_avg": torch.ones(4)}, {"name": "t"})


def test_saved_is_loaded(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    checkpoint.save(tmp_path, state(3), keep=2)
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert (found.step, found.facts) == (3, {"name": "t"})
    assert torch.equal(found.weights["w"], torch.full((4,), 3.0))
    assert torch.equal(found.optimiser["w/exp_avg"], torch.ones(4))


def test_older_ones_go_and_latest_moves(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step), keep=2)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_0000002", "step_0000003"]
    assert (tmp_path / "latest").read_text().strip() == "step_0000003"


def save_and_die(folder: Path, when: int) -> int:
    """Save step 2 in a process that dies with SIGKILL at its ``when``-th operation; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == when:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **options)

        return call

    for home, name in (
        (checkpoint, "save_file"),
        (checkpoint, "_write"),
        (checkpoint, "_sync"),
        (os, "replace"),
        (shutil, "rmtree"),
    ):
        setattr(home, name, counted(getattr(home, name)))
    checkpoint.save(folder, state(2), keep=1)
    os._exit(0)


def test_a_kill_at_any_write_leaves_a_loadable_latest(tmp_path: Path) -> None:
    """Every operation of the second save in turn; the last trial finds none left and survives."""
    seen = set()
    for when in range(1, 60):
        folder = tmp_path / str(when)
        checkpoint.save(folder, state(1), keep=1)
        ended = save_and_die(folder, when)
        found = checkpoint.load(folder)
        assert found is not None, f"nothing can be loaded after operation {when}"
        assert torch.equal(found.weights["w"], torch.full((4,), float(found.step)))
        seen.add(found.step)
        if ended == 0:
            assert when > 12 and found.step == 2
            break
        assert ended == -signal.SIGKILL
        checkpoint.save(folder, state(5), keep=1)  # and the next save clears up
        again = checkpoint.load(folder)
        assert again is not None and again.step == 5
        assert [path.name for path in folder.glob("step_*")] == ["step_0000005"]
        assert not list(folder.glob(".*"))
    else:
        pytest.fail("the save never came to its end")
    assert seen == {1, 2}


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimiser.safetensors", "state.json", "manifest.json"]
)
def test_damage_is_named(tmp_path: Path, name: str) -> None:
    target = checkpoint.save(tmp_path, state(1), keep=1)
    path = target / name
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    with pytest.raises(BadInput, match=r"step_0000001"):
        checkpoint.load(tmp_path)


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    target = checkpoint.save(tmp_path, state(1), keep=1)
    (target / "optimiser.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        checkpoint.load(tmp_path)


def test_optimiser_states_go_there_and_back() -> None:
    def steps(count: int) -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        names = {"a.b": torch.nn.Parameter(torch.ones(3)), "a": torch.nn.Parameter(torch.ones(2))}
        optimiser = torch.optim.AdamW(names.values(), lr=0.1)
        return names, optimiser

    names, optimiser = steps(3)
    for _ in range(3):
        sum(p.square().sum() for p in names.values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    tensors = checkpoint.optimiser_tensors(optimiser, names)
    assert {"a.b/exp_avg", "a/exp_avg_sq", "a/step"} <= set(tensors)
    others, again = steps(0)
    checkpoint.restore_optimiser(again, others, tensors)
    for name, parameter in others.items():
        for key, value in optimiser.state[names[name]].items():
            assert torch.equal(again.state[parameter][key], value)
