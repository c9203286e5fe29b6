"""What learns in stage 2: adapters on every linear layer in scope, a few modules in full, NF4 beneath.

Adapters and fully trained modules are peft's, so that switching them off gives back the model of stage 1,
projector and soft prompt included, and their folder is one that peft reads.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import nn

from harness.errors import BadInput
from trainers.settings import ModelSettings

#: Never quantised: the tower's features are compared patch by patch, the head makes the probabilities.
KEPT_PRECISE = ("model.vision_tower", "model.multi_modal_projector", "contrast", "lm_head")
_SCOPES = {
    "all": ("model.language_model.", "model.vision_tower."),
    "language": ("model.language_model.",),
}


def quantisation(settings: ModelSettings, compute: torch.dtype) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` for the weights' precision: none, or NF4 with double quantisation.

    Raises:
        BadInput: bitsandbytes is not installed.
    """
    if settings.quantise == "none":
        return {}
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise BadInput(
            "model.quantise is nf4, but bitsandbytes is not installed; install it with "
            "`pip install 'emit-bench[qlora]'` or pass --set model.quantise=none"
        )
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=list(KEPT_PRECISE),
    )
    return {"quantization_config": config}


def quantised_layers(model: nn.Module) -> dict[str, int]:
    """How many layers are held in 4 bits, by the part of the model that they lie in."""
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            part = ".".join(name.split(".")[:2])
            counts[part] = counts.get(part, 0) + 1
    return counts


def linear_layers(model: nn.Module, scope: str) -> list[str]:
    """Names of every linear layer in a scope, quantised ones included."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(_SCOPES[scope])
    ]


def attach(model: Any, settings: ModelSettings, seed: int) -> Any:
    """Inject fresh adapters into ``model``, in place; returns peft's wrapper around it.

    Afterwards adapters and ``full_modules`` learn and nothing else does. The B matrices start at zero: the
    model is still what it was.
    """
    logging.getLogger("bitsandbytes").setLevel(
        logging.ERROR
    )  # optional kernels that are not there are no news
    from peft import LoraConfig, get_peft_model

    precise = [
        name for name in settings.full_modules if not (name == "contrast" and not model.config.placeholders)
    ]
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules=linear_layers(model, settings.lora_scope),
        modules_to_save=precise or None,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers, not ours to mend
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config)
    for name, module in model.named_modules():
        if name.endswith("modules_to_save.default"):
            _learn_in_single_precision(module)
    return wrapped


def checkpoint_activations(model: Any) -> None:
    """Compute activations anew in the backward pass instead of keeping them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a new name in later versions
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _learn_in_single_precision(module: nn.Module) -> None:
    """Hold a module that learns in float32 inside a model in half: small updates would be rounded away."""
    kind = next(module.parameters()).dtype
    if kind not in (torch.float16, torch.bfloat16):
        return
    module.float()
    module.register_forward_pre_hook(lambda _, given: tuple(value.float() for value in given))
    module.register_forward_hook(lambda _, given, result: result.to(kind))
