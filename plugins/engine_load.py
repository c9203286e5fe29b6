"""From a checkpoint folder to a model on its device, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import InternVLForConditionalGeneration
from transformers.utils import logging

from emit_model import Contrast, EmitForConditionalGeneration, load_processor
from harness.errors import BadInput
from plugins.weights import Weights

CLASSES: dict[str, Any] = {
    "internvl": InternVLForConditionalGeneration,
    "emit": EmitForConditionalGeneration,
}
#: What transformers raises on files that are damaged or do not belong together, and on a full device.
_BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


def read_checkpoint(
    name: str, model_type: str, weights: Weights, device: torch.device, dtype: torch.dtype
) -> tuple[Any, Any]:
    """Model and processor of a checkpoint.

    Args:
        name: id of the model, for messages.
        model_type: a key of :data:`CLASSES`.
        weights: where it lies.
        device: where the model goes.
        dtype: of its parameters.

    Raises:
        BadInput: a file is damaged, or the weights lack a parameter: it would start random.
    """
    # The runner shows its own progress.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hint = f"pass --weights {name}=FOLDER with a complete checkpoint"
    try:
        processor = load_processor(weights.folder, local_files_only=True)
        options = {
            "dtype": dtype,
            "device_map": {"": device},
            "local_files_only": True,
            "use_safetensors": True,
            "output_loading_info": True,
        }
        if weights.base is not None:
            return _with_adapter(weights, options), processor
        model, report = CLASSES[model_type].from_pretrained(weights.folder, **options)
    except _BROKEN as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"weights of {name}: {weights.origin} cannot be loaded ({reason}); {hint}") from error
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise BadInput(
            f"weights of {name}: {weights.origin} lacks {len(report['missing_keys'])} parameter(s), such as "
            f"{missing}; {hint}"
        )
    return model, processor


def _with_adapter(weights: Weights, options: Mapping[str, Any]) -> Any:
    """The base with its adapter merged in, as one plain EMIT."""
    from peft import PeftModel, get_peft_model_state_dict

    assert weights.base is not None
    contrast = Contrast.from_mapping(weights.config["contrast"])
    loaded: Any = EmitForConditionalGeneration.from_internvl(weights.base.folder, contrast, **options)
    wrapped = PeftModel.from_pretrained(loaded[0], weights.folder, local_files_only=True)
    with safe_open(weights.folder / "adapter_model.safetensors", "pt") as stored:
        missing = set(get_peft_model_state_dict(wrapped)) - set(stored.keys())
    if missing:
        raise ValueError(f"the adapter lacks {len(missing)} tensor(s), such as {min(missing)}")
    return wrapped.merge_and_unload()
