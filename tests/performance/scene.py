"""What both sides of the benchmark work on: a random InternVL, image pairs with a question, and cases.

Written to a folder once and read by each side, so that weights, images, prompts and adapters are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from emit_model import InternVLProcessor
from tests import tiny
from tests.trainers.small import row
from trainers.settings import GrpoSettings, LoraScope, ModelSettings, RolloutSettings, Settings

IMAGES = 2
#: Columns and rows that an image of so many tiles is cut into.
GRIDS = {1: (1, 1), 2: (2, 1), 4: (2, 2), 6: (3, 2)}
#: Tokens of a prompt that are neither an image's nor filler.
FRAME = 85
BASE, DATA = "base", "train.jsonl"


@dataclass(frozen=True, slots=True)
class Size:
    """Shapes of the model; widths and depths as its configuration names them."""

    pixels: int  #: side of a tile
    vision: Mapping[str, int]
    text: Mapping[str, int]
    dtype: torch.dtype = torch.float32

    @property
    def tokens(self) -> int:
        """Tokens of one tile."""
        return (self.pixels // 14 // 2) ** 2


SIZES = {
    "tiny": Size(
        224,
        {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512},
        {
            "hidden_size": 128,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 512,
            "vocab_size": 320,
        },
    ),
    # InternVL3-1B's shapes, weights at random: for machines with a GPU.
    "1b": Size(
        448,
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        {
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "vocab_size": 151674,
        },
        torch.bfloat16,
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One point of the grid."""

    tiles: int  #: that each image is cut into; a thumbnail is added where there is more than one
    text: int  #: tokens of the prompt that are no image's
    response: int  #: R, tokens of every response
    group: int = 8  #: G
    questions: int = 1  #: a step, each on images of its own
    size: str = "tiny"
    scope: LoraScope = "language"  #: where the adapters are

    @property
    def shown(self) -> int:
        """Tiles of one question's images, thumbnails included."""
        return IMAGES * (self.tiles + (self.tiles > 1))

    @property
    def prompt(self) -> int:
        """P, tokens of the prompt."""
        return self.shown * SIZES[self.size].tokens + self.text

    @property
    def settings(self) -> Settings:
        """Those of our trainer, which TRL's configuration repeats."""
        return Settings(
            model=ModelSettings(quantise="none", lora_scope=self.scope, tiles=self.tiles),
            rollout=RolloutSettings(group=self.group, max_new_tokens=self.response),
            grpo=GrpoSettings(
                learning_rate=1e-4, warmup=0.0, batch=self.group * self.questions, save_every=10**6
            ),
        )


def write(folder: Path, case: Case, steps: int) -> Path:
    """Write a case's checkpoint and training data, an image pair for every question; returns the folder."""
    size = SIZES[case.size]
    parts = processor(size)
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(_config(size, parts)).to(size.dtype)
    model.generation_config = GenerationConfig(
        eos_token_id=parts.tokenizer.eos_token_id, pad_token_id=parts.tokenizer.pad_token_id
    )
    tiny.save(folder / BASE, model, parts)
    columns, rows = GRIDS[case.tiles]
    lines = []
    for number in range(steps * case.questions):
        for seed, name in enumerate(("reference", "query")):
            picture = tiny.image(2 * number + seed, 256 * columns, 256 * rows)
            picture.save(folder / f"{name}_{number}.png")
        filler = ("The part is flat and grey. " * case.text)[: case.text - FRAME]
        lines.append(row(f"q{number:04}", "anomaly_discrimination", number, knowledge=[filler]))
    (folder / DATA).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def processor(size: Size) -> InternVLProcessor:
    """InternVL's processor with a tokenizer that spells every text byte by byte."""
    return InternVLProcessor(
        GotOcr2ImageProcessorPil(size={"height": size.pixels, "width": size.pixels}),
        _tokenizer(),
        image_seq_length=size.tokens,
        chat_template=tiny.CHAT_TEMPLATE,
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *tiny.SPECIAL.values()]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens=tiny.SPECIAL,
    )


def _config(size: Size, parts: Any) -> InternVLConfig:
    return InternVLConfig(
        vision_config={**size.vision, "image_size": [size.pixels, size.pixels], "patch_size": [14, 14]},
        text_config={
            **size.text,
            "model_type": "qwen2",
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
        image_token_id=parts.image_token_id,
        image_seq_length=size.tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
