"""Tiny random checkpoints of every family of the paper's Table 1, built offline in a second.

As :mod:`tests.tiny`: they answer nonsense, through the classes, chat templates and caches of the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from plugins.processors import image_only
from tests import tiny

CHATML = tiny.CHAT_TEMPLATE
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
GLM_IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"
#: The content of one message, a string or a list of parts; ``IMAGE`` stands for the image's token.
PARTS = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
#: A system message's text, which Pixtral and Gemma put before the first user text.
SYSTEM = (
    "{% set system = namespace(text='') %}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] %}"
    "{% set system.text = (first if first is string else first[0]['text']) + '\n\n' %}"
    "{% set messages = messages[1:] %}{% endif %}{{ bos_token }}"
)
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n"
    + PARTS.replace("IMAGE", GLM_IMAGE)
    + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
PIXTRAL_TEMPLATE = (
    SYSTEM + "{% for m in messages %}{% if m['role'] == 'user' %}[INST]"
    "{% if loop.first %}{{ system.text }}{% endif %}"
    + PARTS.replace("IMAGE", "[IMG]")
    + "[/INST]{% else %}"
    + PARTS.replace("IMAGE", "")
    + "{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA_TEMPLATE = (
    SYSTEM
    + "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% if loop.first %}{{ system.text }}{% endif %}"
    + PARTS.replace("IMAGE", "<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
#: A language model of two layers in which an answer depends on what it is asked; its attention heads are the
#: smallest that vLLM computes on a CPU.
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
}
SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
    "vision_use_head": False,
}
ENDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
Built = tuple[Any, Any]


def tokenizer(special: Sequence[str], *, whole: Sequence[str] = (), **kwargs: Any) -> Any:
    """Byte-level BPE of a few hundred tokens in which every capital letter is one token.

    Args:
        special: special tokens, in the order of their ids.
        whole: ordinary tokens that are never split, and stay as they are in the vocabulary.
        kwargs: the tokenizer's own, such as ``eos_token``.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        tiny.TEXTS * 50,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens(list(whole))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **kwargs)


def chatml(special: Sequence[str], **kwargs: Any) -> Any:
    """A tokenizer of a family that talks ChatML."""
    return tokenizer([*ENDS, *special], pad_token="<|endoftext|>", eos_token="<|im_end|>", **kwargs)


def internvl() -> Built:
    parts = tiny.processor()
    config = tiny.config(parts.tokenizer)
    config.text_config = transformers.Qwen2Config(
        **TEXT, vocab_size=len(parts.tokenizer), tie_word_embeddings=True
    )
    return transformers.InternVLForConditionalGeneration(config), parts


def qwen2_5_vl() -> Built:
    words = chatml(["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"])
    parts = image_only("qwen2_5_vl")(
        image_processor=transformers.Qwen2VLImageProcessorPil(
            patch_size=14, merge_size=2, min_pixels=28 * 28, max_pixels=112 * 112
        ),
        tokenizer=words,
        chat_template=CHATML.replace("<IMG_CONTEXT>\n", QWEN_IMAGE),
    )
    id_of = words.convert_tokens_to_ids
    config = transformers.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": TEXT["hidden_size"],
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        text_config={
            **TEXT,
            "vocab_size": len(words),
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        },
        image_token_id=id_of("<|image_pad|>"),
        video_token_id=id_of("<|video_pad|>"),
        vision_start_token_id=id_of("<|vision_start|>"),
        vision_end_token_id=id_of("<|vision_end|>"),
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config), parts


def glm4v() -> Built:
    pictures = ["<|begin_of_image|>", "<|end_of_image|>", "<|image|>"]
    films = ["<|begin_of_video|>", "<|end_of_video|>", "<|video|>"]
    turns = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"]
    words = tokenizer(
        [*turns, *pictures, *films, "<|begin_of_box|>", "<|end_of_box|>"],
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )
    parts = image_only("glm4v")(
        image_processor=transformers.Glm4vImageProcessorPil(
            patch_size=14, merge_size=2, size={"shortest_edge": 2 * 28 * 28, "longest_edge": 2 * 112 * 112}
        ),
        tokenizer=words,
        chat_template=GLM_TEMPLATE,
    )
    id_of = words.convert_tokens_to_ids
    config = transformers.Glm4vConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": TEXT["hidden_size"],
            "patch_size": 14,
            "image_size": 112,
        },
        text_config={
            **TEXT,
            "vocab_size": len(words),
            "pad_token_id": 0,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 3, 3],
                "partial_rotary_factor": 0.5,
                "rope_theta": 10000.0,
            },
        },
        image_token_id=id_of("<|image|>"),
        video_token_id=id_of("<|video|>"),
        image_start_token_id=id_of("<|begin_of_image|>"),
        image_end_token_id=id_of("<|end_of_image|>"),
        video_start_token_id=id_of("<|begin_of_video|>"),
        video_end_token_id=id_of("<|end_of_video|>"),
    )
    return transformers.Glm4vForConditionalGeneration(config), parts


def llava_onevision() -> Built:
    words = chatml(
        ["<image>", "<video>"], extra_special_tokens={"image_token": "<image>", "video_token": "<video>"}
    )
    grid = [[56, 56], [56, 112], [112, 56], [112, 112]]
    parts = image_only("llava_onevision")(
        image_processor=transformers.LlavaOnevisionImageProcessorPil(
            size={"height": 56, "width": 56}, image_grid_pinpoints=grid
        ),
        tokenizer=words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=CHATML.replace("<IMG_CONTEXT>", "<image>"),
    )
    config = transformers.LlavaOnevisionConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        video_token_id=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grid,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return transformers.LlavaOnevisionForConditionalGeneration(config), parts


def llava_interleave() -> Built:
    words = chatml(["<image>"], extra_special_tokens={"image_token": "<image>"})
    parts = image_only("llava")(
        image_processor=transformers.SiglipImageProcessorPil(size={"height": 56, "width": 56}),
        tokenizer=words,
        patch_size=14,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=CHATML.replace("<IMG_CONTEXT>", "<image>"),
    )
    config = transformers.LlavaConfig(
        vision_config=SIGLIP,
        text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return transformers.LlavaForConditionalGeneration(config), parts


def pixtral() -> Built:
    words = tokenizer(
        ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"],
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
    )
    parts = image_only("llava", pixtral=True)(
        image_processor=transformers.PixtralImageProcessorPil(
            size={"longest_edge": 64}, patch_size={"height": 16, "width": 16}
        ),
        tokenizer=words,
        patch_size=16,
        chat_template=PIXTRAL_TEMPLATE,
    )
    config = transformers.LlavaConfig(
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 64,  # the processor's; vLLM counts an image's tokens by it
            "patch_size": 16,
            "head_dim": 12,
        },
        text_config={"model_type": "mistral", "vocab_size": len(words), "head_dim": 32, **TEXT},
        image_token_id=words.convert_tokens_to_ids("[IMG]"),
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    return transformers.LlavaForConditionalGeneration(config), parts


def gemma3() -> Built:
    turns = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    words = tokenizer(
        ["<pad>", "<eos>", "<bos>", "<unk>", *turns],
        whole=["\n", "\n\n", "\n\n\n", "\n\n\n\n"],  # single tokens in Gemma's vocabulary, and relied upon
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    parts = image_only("gemma3")(
        image_processor=transformers.Gemma3ImageProcessorPil(size={"height": 112, "width": 112}),
        tokenizer=words,
        image_seq_length=16,
        chat_template=GEMMA_TEMPLATE,
    )
    id_of = words.convert_tokens_to_ids
    config = transformers.Gemma3Config(
        vision_config={**SIGLIP, "image_size": 112},
        text_config={
            "model_type": "gemma3_text",
            "vocab_size": len(words),
            "head_dim": 32,
            "sliding_window": 16,  # shorter than a prompt, as in the real one
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 32,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            **TEXT,
        },
        eos_token_id=[1, id_of("<end_of_turn>")],
        mm_tokens_per_image=16,
        boi_token_index=id_of("<start_of_image>"),
        eoi_token_index=id_of("<end_of_image>"),
        image_token_index=id_of("<image_soft_token>"),
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        # Untrained, it sees nothing and repeats its last token: the picture's projection starts at zero, and
        # the embeddings, scaled up and tied, drown what the layers add to them.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.3)
        for layer in model.model.language_model.layers:
            layer.post_attention_layernorm.weight.fill_(8.0)
            layer.post_feedforward_layernorm.weight.fill_(8.0)
    return model, parts


FAMILIES: dict[str, Callable[[], Built]] = {
    "internvl": internvl,
    "qwen2_5_vl": qwen2_5_vl,
    "glm4v": glm4v,
    "llava_onevision": llava_onevision,
    "llava_interleave": llava_interleave,
    "pixtral": pixtral,
    "gemma3": gemma3,
}
#: What ends an answer besides the tokenizer's end token.
FURTHER_ENDS = {"glm4v": ["<|user|>"], "gemma3": ["<end_of_turn>"]}

#: What would process videos, where the family takes them.
FILMS = {
    "internvl": "InternVLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "glm4v": "Glm4vVideoProcessor",
    "llava_onevision": "LlavaOnevisionVideoProcessor",
}


def build(name: str, seed: int = 0) -> Built:
    """A random model and its processor.

    Args:
        name: one of ``FAMILIES``.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    model, parts = FAMILIES[name]()
    words = parts.tokenizer
    ends = [words.eos_token_id, *words.convert_tokens_to_ids(FURTHER_ENDS.get(name, []))]
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=ends, pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id
    )
    return model.eval(), parts


def save(folder: Path, name: str, seed: int = 0) -> Path:
    """Write a checkpoint folder as the real ones are laid out."""
    model, parts = build(name, seed)
    model.save_pretrained(folder)
    parts.save_pretrained(folder)
    _as_published(folder / "model.safetensors")
    if name in FILMS:  # as published; vLLM starts with no less
        films = {
            "video_processor_type": FILMS[name],
            "processor_class": type(parts).__name__,
            "size": {"shortest_edge": 2 * 28 * 28, "longest_edge": 2 * 112 * 112},
        }
        (folder / "video_preprocessor_config.json").write_text(json.dumps(films))
    return folder


def _as_published(file: Path) -> None:
    """Give SigLIP's weights the level that transformers no longer writes; published checkpoints have it."""
    weights = load_file(file)
    if any(name.startswith("vision_tower.post_layernorm.") for name in weights):
        old, new = "vision_tower.", "vision_tower.vision_model."
        save_file({name.replace(old, new): weights[name] for name in weights}, file, {"format": "pt"})
