"""vLLM with a language model alone: prompts come as embeddings, made by the model's own code.

Images, hints and tower adapters are in the embeddings, so vLLM needs neither processor nor tower: it gets a
plain decoder once, and embeddings with every prompt. Evaluation and training both work so.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from safetensors.torch import save_file
from torch import Tensor, nn

from harness.jsonfiles import write_json

#: Arguments of an engine that takes embeddings and gives token ids.
ON_EMBEDDINGS = {"skip_tokenizer_init": True, "enable_prompt_embeds": True}


def export_decoder(model: Any, folder: Path) -> Path:
    """Write language model and head as a plain checkpoint, a file a weight; its folder.

    Args:
        model: with ``model.language_model`` and ``lm_head``. Adapters are left out; a 4-bit base is written
            dequantised, for those weights are what it computes with.
        folder: to be made.
    """
    folder.mkdir(parents=True)
    index: dict[str, str] = {}
    for name, weight in _base_weights(model):
        index[name] = f"{name}.safetensors"
        save_file({name: weight}, folder / index[name])
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})
    language = model.model.language_model
    config = deepcopy(language.config)
    config.architectures = [type(language).__name__.removesuffix("Model") + "ForCausalLM"]
    config.tie_word_embeddings = "lm_head.weight" not in index
    config.save_pretrained(folder)
    return folder


def drop_decoder(model: Any) -> None:
    """Forget the language model's layers: what is left embeds prompts. In place."""
    model.model.language_model.layers = nn.ModuleList()
    if model.lm_head.weight is not model.get_input_embeddings().weight:
        model.lm_head = nn.Identity()


def _base_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and weights beneath the adapters, one by one; a head that is the embeddings' own is left out."""
    language, head = model.model.language_model, model.lm_head.weight
    for name, parameter in language.named_parameters():
        if "lora_" not in name:
            yield "model." + name.replace(".base_layer.", "."), _plain(parameter)
    if head.data_ptr() != language.embed_tokens.weight.data_ptr():
        yield "lm_head.weight", _plain(head)


def _plain(parameter: Any) -> Tensor:
    """On the CPU, and not in 4 bits."""
    weight, state = parameter.detach(), getattr(parameter, "quant_state", None)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight, state)
    return cast(Tensor, weight.cpu().contiguous())
