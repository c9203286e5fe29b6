"""Put finished mini checkpoints into the package: half precision, with a note of their making.

``python -m trainers.pretraining.ship FOLDER NAME`` ships a whole checkpoint or an adapter.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from emit_model.modeling import EmitForConditionalGeneration
from emit_model.processing import load_processor
from harness.jsonfiles import read_json, write_text
from plugins.weights import ADAPTER, MINI_WEIGHTS

NOTE = """# {name}

{what} of the mini world, made {maker} on rendered
pictures only: {parameters:,} parameters, stored in half precision. Apache-2.0, like the rest.
"""


def ship(folder: Path, name: str, target: Path = MINI_WEIGHTS) -> None:
    """Write a finished checkpoint or adapter below ``target`` as ``name``, replacing what is there."""
    shutil.rmtree(target / name, ignore_errors=True)
    adapter = (folder / ADAPTER).is_file()
    parameters = (_ship_adapter if adapter else _ship_model)(folder, target / name)
    what = "An adapter" if adapter else "A miniature checkpoint"
    maker = f"from `internvl3-base` by `emit-bench train {name}`"
    if name == "internvl3-base":
        maker = "from nothing by `python -m trainers.pretraining`"
    note = NOTE.format(name=name, what=what, maker=maker, parameters=parameters)
    (target / name / "README.md").write_text(note, encoding="utf-8")


def _ship_model(folder: Path, target: Path) -> int:
    config, _ = read_json(folder / "config.json")
    loader = EmitForConditionalGeneration if config["model_type"] == "emit" else AutoModelForImageTextToText
    model: Any = loader.from_pretrained(folder, dtype=torch.float32)
    model.half().save_pretrained(target)
    load_processor(folder).save_pretrained(target)
    return sum(parameter.numel() for parameter in model.parameters())


def _ship_adapter(folder: Path, target: Path) -> int:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("README.md"))
    config, _ = read_json(target / ADAPTER)
    modules = sorted(config["target_modules"])  # a set to peft, which writes it in any order
    write_text(target / ADAPTER, json.dumps({**config, "target_modules": modules}, indent=2) + "\n")
    path = target / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(
        {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}, path
    )
    return sum(value.numel() for value in tensors.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    ship(options.folder, options.name)
