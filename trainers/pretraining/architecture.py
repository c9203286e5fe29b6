"""The mini InternVL: the same Hugging Face classes as the 8B model, a few million parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trainers.pretraining.scenes import SIZE

if TYPE_CHECKING:
    from transformers import InternVLConfig, InternVLVisionConfig

PATCH = 12  #: pixels a side: 12 x 12 patches, four in each direction to a cell of the 3x3 grid
IMAGE_TOKENS = (SIZE // PATCH // 2) ** 2  #: after pixel shuffle


def vision_config() -> InternVLVisionConfig:
    """The vision tower: 4 blocks of width 128 over 144 px."""
    from transformers import InternVLVisionConfig

    return InternVLVisionConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        image_size=[SIZE, SIZE],
        patch_size=[PATCH, PATCH],
        use_mean_pooling=False,
        layer_scale_init_value=1.0,
        norm_type="layer_norm",
    )


def model_config(vocabulary: int, image_token: int, pad: int, end: int) -> InternVLConfig:
    """The whole model: that tower, and a Qwen2 language model of 6 layers of width 192."""
    from transformers import InternVLConfig

    return InternVLConfig(
        vision_config=vision_config().to_dict(),
        text_config={
            "model_type": "qwen2",
            "vocab_size": vocabulary,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
            "initializer_range": 0.06,  # near 1/sqrt(width): attention sharpens much sooner
            "pad_token_id": pad,
            "eos_token_id": end,
            "bos_token_id": None,
        },
        image_token_id=image_token,
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )


@torch.no_grad()
def put_induction_within_reach(language_model: Any) -> None:
    """Start some attention heads as what induction is made of, so that letters bind in minutes and not hours.

    In every layer, half of the heads start with keys equal to queries (a token looks at its like) and the
    output transposed to the value (what it sees, it copies). In the first two layers one more head copies the
    token before, by biases that the rotary embedding turns into ``cos(theta (distance - 1))`` for the five
    fastest rotations. All of it is only a starting point.
    """
    config = language_model.config
    language_model.embed_tokens.weight.normal_(std=1.0)  # or the first block's output drowns what a token is
    width, heads = config.hidden_size // config.num_attention_heads, config.num_attention_heads
    half = heads // 2 * width
    theta = config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2) / width)
    fast = slice(0, 5)
    for depth, layer in enumerate(language_model.layers):
        attention = layer.self_attn
        for output in (attention.o_proj, layer.mlp.down_proj):
            output.weight /= (2 * len(language_model.layers)) ** 0.5
        attention.k_proj.weight[:half] = attention.q_proj.weight[:half]
        attention.o_proj.weight[:, :half] = attention.v_proj.weight[:half].T
        if depth < 2:
            query, key = (p.bias[-width:].view(2, -1) for p in (attention.q_proj, attention.k_proj))
            query[0, fast] = 4.0
            key[0, fast] = 4.0 * theta[fast].cos()
            key[1, fast] = 4.0 * theta[fast].sin()
            attention.o_proj.weight[:, -width:] = attention.v_proj.weight[-width:].T
