"""From a checkpoint folder to a model on its device, whole or not at all."""

from __future__ import annotations

import logging as logging_of_python
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from emit_model import Contrast, EmitForConditionalGeneration
from harness.errors import BadInput
from plugins.processors import load_processor
from plugins.weights import Weights

#: ``model_type`` of a configuration -> class.
CLASSES: Mapping[str, Any] = {
    "internvl": transformers.InternVLForConditionalGeneration,
    "emit": EmitForConditionalGeneration,
    "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
    "glm4v": transformers.Glm4vForConditionalGeneration,
    "llava": transformers.LlavaForConditionalGeneration,
    "llava_onevision": transformers.LlavaOnevisionForConditionalGeneration,
    "gemma3": transformers.Gemma3ForConditionalGeneration,
}
#: Modules that stay precise in a quantised model: they are small beside the language model, or read out
#: scores. Without the prefix ``model.`` the tower would be quantised all the same.
PRECISE = ("model.vision_tower", "model.visual", "model.multi_modal_projector", "contrast", "lm_head")
#: What transformers raises on files that are damaged or do not belong together, and on a full device.
_BROKEN = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


def read_checkpoint(
    name: str,
    model_type: str,
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype,
    *,
    quantize: str | None = None,
    device_map: str | None = None,
) -> tuple[Any, Any]:
    """Model and processor of a checkpoint.

    Args:
        name: id of the model, for messages.
        model_type: a key of :data:`CLASSES`.
        weights: where it lies.
        device: where the model goes.
        dtype: of its parameters.
        quantize: ``nf4`` for 4-bit weights of the language model, or None.
        device_map: ``auto`` to spread it over all GPUs, or None.

    Raises:
        BadInput: a file is damaged, or the weights lack a parameter: it would start random.
    """
    # The runner shows its own progress.
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hint = f"pass --weights {name}=FOLDER with a complete checkpoint"
    options: dict[str, Any] = {
        "dtype": dtype,
        "device_map": device_map or {"": device},
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
        "attn_implementation": "sdpa",  # takes the masks that rows side by side need
    }
    if quantize is not None:
        options["quantization_config"] = _four_bits(dtype)
    try:
        processor = load_processor(weights.folder, model_type)
    except BadInput as error:
        raise BadInput(f"weights of {name}: {error}; {hint}") from error
    try:
        if weights.base is not None and model_type == "emit":
            model, report = _with_head(weights, options)
        else:
            model, report = CLASSES[model_type].from_pretrained(weights.folder, **options)
        if weights.adapter is not None:
            model = _with_adapter(model, weights.adapter)
    except _BROKEN as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"weights of {name}: {weights.origin} cannot be loaded ({reason}); {hint}") from error
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        raise BadInput(
            f"weights of {name}: {weights.origin} lacks {len(report['missing_keys'])} parameter(s), such as "
            f"{missing}; {hint}"
        )
    for module in model.modules():
        # On CPUs with AVX-512 bf16, 4-bit weights are repacked in place at the first pass, with other
        # results.
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False
    return model, processor


def _four_bits(dtype: torch.dtype) -> Any:
    _hush()
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise BadInput(
            "--quantize nf4 needs bitsandbytes, which is not installed; run `pip install 'emit-bench[qlora]'`"
        ) from error
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(PRECISE),
    )


def _with_head(weights: Weights, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """The base with an adapter of ours merged in, as one plain EMIT; its head is the adapter's."""
    assert weights.base is not None
    contrast = Contrast.from_mapping(weights.config["contrast"])
    loaded: Any = EmitForConditionalGeneration.from_internvl(weights.base.folder, contrast, **options)
    return _with_adapter(loaded[0], weights.folder), {"missing_keys": ()}


def _hush() -> None:
    """What bitsandbytes says of itself while it loads is nothing that a user could act on."""
    logging_of_python.getLogger("bitsandbytes").setLevel(logging_of_python.CRITICAL)


def _with_adapter(model: Any, folder: Any) -> Any:
    """A model with a peft adapter merged in; raises ValueError where the adapter lacks a tensor."""
    _hush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import PeftModel, get_peft_model_state_dict

        wrapped = PeftModel.from_pretrained(model, folder, local_files_only=True)
        with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
            missing = set(get_peft_model_state_dict(wrapped)) - set(stored.keys())
        if missing:
            raise ValueError(f"the adapter lacks {len(missing)} tensor(s), such as {min(missing)}")
        return wrapped.merge_and_unload()
