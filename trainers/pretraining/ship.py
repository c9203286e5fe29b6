"""Put finished mini checkpoints into the package: half precision, with a note of their making."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from emit_model.modeling import EmitForConditionalGeneration
from emit_model.processing import load_processor
from harness.jsonfiles import read_json

PACKAGED = Path(__file__).resolve().parents[2] / "plugins" / "mini_weights"
NOTE = """# {name}

A miniature checkpoint of the mini world, made from nothing by `python -m trainers.pretraining`: trained on
rendered scenes only, {parameters:,} parameters, stored in half precision. Apache-2.0, like the rest.
"""


def ship(folder: Path, name: str, target: Path = PACKAGED) -> None:
    """Write a finished checkpoint below ``target`` as ``name``, replacing what is there."""
    config, _ = read_json(folder / "config.json")
    loader = EmitForConditionalGeneration if config["model_type"] == "emit" else AutoModelForImageTextToText
    model: Any = loader.from_pretrained(folder, dtype=torch.float32)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shutil.rmtree(target / name, ignore_errors=True)
    model.half().save_pretrained(target / name)
    load_processor(folder).save_pretrained(target / name)
    (target / name / "README.md").write_text(NOTE.format(name=name, parameters=parameters), encoding="utf-8")
