"""What a training leaves: the adapter in peft's format, and the whole model with everything merged in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from emit_model.modeling import EmitForConditionalGeneration
from harness.errors import BadInput
from plugins.weights import Weights
from trainers.policy import Policy


def save_head(model: Any, path: Path) -> None:
    """Write soft prompt and projector, statistics included."""
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in model.contrast.state_dict().items()}, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load_head(model: Any, path: Path) -> None:
    """Read what :func:`save_head` wrote; raises :class:`BadInput` when it does not fit."""
    try:
        model.contrast.load_state_dict(load_file(path))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"{path}: it is not what stage 1 leaves ({reason}); delete the folder to train from the start"
        ) from error


def write(policy: Policy, base: Weights, out: Path) -> None:
    """Write ``adapter/`` (if there is one) and ``model/`` below ``out``, each whole or not at all."""
    if policy.adapters is not None:
        work = _fresh(out / ".adapter.partial")
        place = str(base.folder.resolve()) if Path(base.origin).is_dir() else base.origin
        policy.adapters.peft_config["default"].base_model_name_or_path = place
        policy.adapters.save_pretrained(work, save_embedding_layers=False)
        policy.model.config.save_pretrained(work)
        policy.processor.save_pretrained(work)
        _settle(work, out / "adapter")
    work = _fresh(out / ".model.partial")
    whole(policy, base).save_pretrained(work)
    policy.processor.save_pretrained(work)
    _settle(work, out / "model")


@torch.no_grad()
def whole(policy: Policy, base: Weights) -> EmitForConditionalGeneration:
    """A plain EMIT with what was learnt, merged into the base's own precise weights.

    A 4-bit base is not merged into: its rounding would move the result. The base is read anew instead.
    """
    model: EmitForConditionalGeneration = EmitForConditionalGeneration.from_internvl(
        base.folder, policy.model.config.comparison, dtype="auto", local_files_only=True
    )
    source = policy.model
    head = source.contrast
    head = head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head
    model.contrast.load_state_dict(head.state_dict())
    targets = dict(model.named_modules())
    for name, module in source.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            down, up = module.lora_A["default"].weight.float(), module.lora_B["default"].weight.float()
            weight = targets[name].weight
            change = module.scaling["default"] * up @ down
            weight.copy_((weight.float() + change.to(weight.device)).to(weight.dtype))
        elif hasattr(module, "modules_to_save") and name != "contrast":
            targets[name].load_state_dict(module.modules_to_save["default"].state_dict())
    return model


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _settle(work: Path, target: Path) -> None:
    """Put a finished folder in its place; safetensors files come readable by their owner alone otherwise."""
    plain = (work / "config.json").stat().st_mode
    for path in work.glob("*.safetensors"):
        path.chmod(plain)
    shutil.rmtree(target, ignore_errors=True)
    work.replace(target)
