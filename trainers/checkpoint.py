"""Checkpoints that are whole or not there: a folder, renamed into place, named by ``latest`` last.

Saved is what changes: tensors that learn and the statistics beside them, the optimiser's moments, the step.
The base model is not copied. Nothing is pickled. A kill at any write leaves the folder that ``latest`` names
untouched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.errors import BadInput
from harness.folders import sha256_of

LATEST = "latest"
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class State:
    """Everything that resuming needs."""

    step: int  #: steps that are done
    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    facts: Mapping[str, Any]  #: what the training is; a resumed one must say the same


def save(folder: Path, state: State, keep: int) -> Path:
    """Write a checkpoint below ``folder`` and move ``latest`` to it; older ones than ``keep`` go after that.

    Returns:
        The checkpoint's folder.
    """
    name = f"step_{state.step:07d}"
    target, work = folder / name, folder / f".{name}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    for remnant in folder.glob(".step_*.partial"):
        shutil.rmtree(remnant, ignore_errors=True)
    work.mkdir()
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in state.weights.items()},
        work / "weights.safetensors",
    )
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in state.optimiser.items()},
        work / "optimiser.safetensors",
    )
    _write(work / "state.json", json.dumps({"step": state.step, "facts": dict(state.facts)}, indent=1))
    manifest = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(work.iterdir())
    }
    _write(work / _MANIFEST, json.dumps(manifest, indent=1))
    for path in work.iterdir():
        _sync(path)
    _sync(work)
    shutil.rmtree(target, ignore_errors=True)  # a remnant that ``latest`` does not name
    os.replace(work, target)
    _write(folder / f".{LATEST}.partial", name + "\n")
    _sync(folder / f".{LATEST}.partial")
    os.replace(folder / f".{LATEST}.partial", folder / LATEST)
    _sync(folder)
    for old in sorted(folder.glob("step_*"))[:-keep]:
        if old.name != name:
            shutil.rmtree(old, ignore_errors=True)
    return target


def load(folder: Path) -> State | None:
    """The checkpoint that ``latest`` names, verified against its manifest; None where nothing was saved.

    Raises:
        BadInput: it is damaged; the sentence names the file.
    """
    pointer = folder / LATEST
    if not pointer.is_file():
        return None
    target = folder / pointer.read_text(encoding="utf-8").strip()
    hint = "delete the folder to train from the start"
    try:
        manifest = json.loads((target / _MANIFEST).read_text(encoding="utf-8"))
        for name, said in manifest.items():
            path = target / name
            if path.stat().st_size != said["bytes"] or sha256_of(path) != said["sha256"]:
                raise BadInput(f"{path}: it is not what was saved (its SHA-256 differs); {hint}")
        state = json.loads((target / "state.json").read_text(encoding="utf-8"))
        weights = load_file(target / "weights.safetensors")
        optimiser = load_file(target / "optimiser.safetensors")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{target}: the checkpoint cannot be read ({error}); {hint}") from error
    return State(int(state["step"]), weights, optimiser, state["facts"])


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An optimiser's state by parameter name: ``<name>/<field>`` -> tensor."""
    found = {}
    for name, parameter in names.items():
        for key, value in optimiser.state.get(parameter, {}).items():
            found[f"{name}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def restore_optimiser(
    optimiser: torch.optim.Optimizer, names: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what :func:`optimiser_tensors` gave."""
    for name, parameter in names.items():
        for key in [key for key in tensors if key.rpartition("/")[0] == name]:
            field, value = key.rpartition("/")[2], tensors[key]
            optimiser.state[parameter][field] = value if field == "step" else value.to(parameter.device)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Ask the system to have it on disk, file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
