"""The mini InternVL: the same Hugging Face classes as the 8B model, a few million parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
            "tie_word_embeddings": True,
            "initializer_range": 0.06,  # near 1/sqrt(width): attention sharpens much sooner
            "pad_token_id": pad,
            "eos_token_id": end,
            "bos_token_id": None,
        },
        image_token_id=image_token,
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
