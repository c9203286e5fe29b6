"""Tiny random checkpoints, built offline in a second: InternVL and EMIT, with tokenizer and processor.

They answer nonsense, but through the same classes, prompts and caches as the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from emit_model import Contrast, EmitConfig, EmitForConditionalGeneration, InternVLProcessor, add_comp_token

torch.set_num_threads(1)  # fast on shared machines, and the same sums everywhere

TEXTS = (
    "Are there any defects in the second image? A. Yes B. No Answer with the letter of the correct option.",
    "<think>The query image shows a scratch on the metal surface.</think><answer>B</answer> Question:",
    "Below are some hints for your reference: system user assistant industrial inspector",
)
SPECIAL = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of a few hundred tokens in which every capital letter is one token."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        TEXTS * 50,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *SPECIAL.values()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens=SPECIAL,
    )


def processor(size: int = 56, patch: int = 14) -> InternVLProcessor:
    """Processor for square images of ``size`` px."""
    return InternVLProcessor(
        GotOcr2ImageProcessorPil(size={"height": size, "width": size}, crop_to_patches=False),
        tokenizer(),
        image_seq_length=(size // patch // 2) ** 2,
        chat_template=CHAT_TEMPLATE,
    )


def config(
    vocabulary: PreTrainedTokenizerFast, size: int = 56, patch: int = 14, tied: bool = True
) -> InternVLConfig:
    """A tower of four blocks on a 4x4 grid and a language model of two."""
    return InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": [size, size],
            "patch_size": [patch, patch],
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(vocabulary),
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.3,
            "tie_word_embeddings": tied,
        },
        image_token_id=vocabulary.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=(size // patch // 2) ** 2,
        downsample_ratio=0.5,
        tie_word_embeddings=tied,
    )


def internvl(
    seed: int = 0, eos: Sequence[int] = (), tied: bool = True
) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """A random InternVL and its processor; ``eos`` are further end tokens of its generation config."""
    parts = processor()
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(config(parts.tokenizer, tied=tied)).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=[parts.tokenizer.eos_token_id, *eos], pad_token_id=parts.tokenizer.pad_token_id
    )
    return model, parts


def emit(
    seed: int = 0, contrast: Contrast | None = None
) -> tuple[EmitForConditionalGeneration, InternVLProcessor]:
    """A random EMIT and its processor; ``contrast`` is used with the tokenizer's own placeholder id."""
    parts = processor()
    torch.manual_seed(seed)
    plain = config(parts.tokenizer)
    token = add_comp_token(parts.tokenizer)
    settings = contrast or Contrast(layers=(1, 2, 4), window=1, soft_prompt_length=3)
    settings = Contrast(**{**settings.__dict__, "comp_token_id": token})
    model = EmitForConditionalGeneration(EmitConfig.from_internvl(plain, settings)).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=parts.tokenizer.eos_token_id, pad_token_id=parts.tokenizer.pad_token_id
    )
    return model, parts


def save(folder: Path, model: InternVLForConditionalGeneration, parts: InternVLProcessor) -> Path:
    """Write a checkpoint folder as the real ones are laid out."""
    model.save_pretrained(folder)
    parts.save_pretrained(folder)
    return folder


def image(seed: int, width: int = 60, height: int = 60) -> Image.Image:
    """A random but smooth RGB image."""
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
