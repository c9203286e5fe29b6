"""A tiny checkpoint in the layout of the released EMIT, written without the package's own tables.

Tokenizer files are those that the slow Qwen2 tokenizer saves; the configuration has InternVL3's fields.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import Qwen2Tokenizer

from emit_model import PRESETS, EmitConfig, EmitForConditionalGeneration
from tests import tiny

ADDED = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>", "<tool_call>"),
    *("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "<COMP_CONTEXT>"),
)
#: In the released naming: the beginning of a name -> the beginning of the module's name here.
BEGINNINGS = {
    "model.vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
    "model.vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
    "model.vision_tower.embeddings.patch_embeddings.projection": "vision_model.embeddings.patch_embedding",
    "model.vision_tower.encoder.layer": "vision_model.encoder.layers",
    "model.multi_modal_projector.layer_norm": "mlp1.0",
    "model.multi_modal_projector.linear_1": "mlp1.1",
    "model.multi_modal_projector.linear_2": "mlp1.3",
    "model.language_model": "language_model.model",
    "lm_head": "language_model.lm_head",
    "contrast.norm": "projector.0",
    "contrast.conv": "projector.1",
    "contrast.soft_prompt": "soft_prompt.weight",
}
IN_A_LAYER = {
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
}


def write_tokenizer(folder: Path, added: tuple[str, ...] = ADDED) -> int:
    """The slow form of a Qwen2 tokenizer: 400 pieces, then ``added``; returns the number of tokens."""
    vocabulary, merges = _pieces()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    table = {
        str(len(vocabulary) + i): {"content": token, **flags, "special": token != "<tool_call>"}
        for i, token in enumerate(added)
    }
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": table,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|video_pad|>"],
        "chat_template": "{{ 'of the base model' }}",
        "eos_token": "<|im_end|>",
        "model_max_length": 1000000,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary) + len(added)


@lru_cache(maxsize=1)
def _pieces() -> tuple[dict[str, int], list[str]]:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(tiny.TEXTS * 50, trainer)
    model = json.loads(core.to_str())["model"]
    return model["vocab"], [" ".join(merge) for merge in model["merges"]]


def tiny_emit(folder: Path, qk_norm: bool = False) -> EmitForConditionalGeneration:
    """A random EMIT for the tokenizer in ``folder``; no two of its values are alike."""
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    names = {"context_image_token": "<IMG_CONTEXT>"}
    plain = tiny.config(Qwen2Tokenizer.from_pretrained(folder, extra_special_tokens=names), tied=False)
    plain.vision_config.attention_bias, plain.vision_config.use_qk_norm = True, qk_norm
    plain.text_config.vocab_size = len(tokenizer) + 3  # rows are padded to a round number
    plain.text_config.eos_token_id = tokenizer.eos_token_id
    contrast = PRESETS["release"].scaled(depth=4, grid=4)
    contrast = contrast.replaced(comp_token_id=tokenizer.convert_tokens_to_ids("<COMP_CONTEXT>"))
    model = EmitForConditionalGeneration(EmitConfig.from_internvl(plain, contrast)).eval()
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)
    model.contrast.norm.running_var.fill_(0.7)
    model.contrast.norm.num_batches_tracked.fill_(41)
    return model


def tensors_of(model: EmitForConditionalGeneration) -> dict[str, Tensor]:
    """Its state in the released layout: names, and query, key and value of the tower as one matrix."""
    tensors: dict[str, Tensor] = {}
    state = model.state_dict()
    for ours, value in state.items():
        begin = max((name for name in BEGINNINGS if ours.startswith(name)), key=len)
        name = BEGINNINGS[begin] + ours[len(begin) :]
        if ".attention.k_proj." in ours or ".attention.v_proj." in ours:
            continue
        if ".attention.q_proj." in ours:
            parts = [state[ours.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            name, value = name.replace("attention.q_proj", "attn.qkv"), torch.cat(parts)
        for inside, released in IN_A_LAYER.items():
            name = name.replace(inside, released) if name.startswith("vision_model.") else name
        tensors[name] = value.clone()
    return tensors


def chat_config(model: EmitForConditionalGeneration) -> dict[str, Any]:
    """The ``config.json`` of an InternVL chat model of the same sizes."""
    text: Any = model.config.text_config
    tower: Any = model.config.vision_config
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "hidden_act")
    return {
        "architectures": ["CustomizedInternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 56,
        "llm_config": {
            **{name: getattr(text, name) for name in sizes},
            "_name_or_path": "./pretrained/Qwen2.5-7B-Instruct",
            "architectures": ["Qwen2ForCausalLM"],
            "eos_token_id": 0,
            "initializer_range": text.initializer_range,
            "max_position_embeddings": 4096,
            "moe_config": None,
            "num_key_value_heads": text.num_key_value_heads,
            "rms_norm_eps": 1e-6,
            "rope_scaling": None,
            "rope_theta": 10000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "use_sliding_window": False,
            "vocab_size": text.vocab_size - 7,  # of before the vocabulary grew
        },
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_thumbnail": True,
        "vision_config": {
            **{name: getattr(tower, name) for name in sizes},
            "architectures": ["InternVisionModel"],
            "attention_dropout": 0.0,
            "drop_path_rate": 0.1,
            "dropout": 0.0,
            "image_size": 56,
            "initializer_factor": 0.1,
            "layer_norm_eps": 1e-6,
            "num_experts": 8,
            "norm_type": "layer_norm",
            "patch_size": 14,
            "qk_normalization": tower.use_qk_norm,
            "qkv_bias": True,
            "use_flash_attn": True,
        },
    }


def write_weights(folder: Path, tensors: dict[str, Tensor], shards: int = 1) -> None:
    """One safetensors file, or several with an index."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[i::shards])
        save_file(part, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_checkpoint(folder: Path) -> EmitForConditionalGeneration:
    """A whole checkpoint folder; returns the model that it holds."""
    write_tokenizer(folder)
    model = tiny_emit(folder)
    write_weights(folder, tensors_of(model))
    (folder / "config.json").write_text(json.dumps(chat_config(model)))
    return model


def write_adapter(folder: Path, tensors: dict[str, Tensor], **settings: Any) -> Path:
    """A PEFT adapter folder: rank 2, alpha 8, unless ``settings`` say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "use_rslora": False,
        "use_dora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": ["mlp1", "projector", "soft_prompt"],
        "target_modules": "^(language_model|vision_model)(?!.*(lm_head)).*",
    }
    (folder / "adapter_config.json").write_text(json.dumps({**config, **settings}))
    save_file(
        {f"base_model.model.{name}": value for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )
    return folder


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint folder."""
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether names, dtypes and every bit agree."""
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype and value.equal(second[name]) for name, value in first.items()
    )
