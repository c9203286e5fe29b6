"""From the released layout of EMIT to this package's: tensor names, shapes and configuration.

The released checkpoint is a subclass of OpenGVLab's ``InternVLChatModel``. Its tensors are those of Hugging
Face's InternVL under other names; only the vision tower's attention differs in more, as query, key and value
are one fused matrix there. :data:`RENAMED` is the whole difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from emit_model.configuration import PRESETS, EmitConfig
from emit_model.modeling import EmitForConditionalGeneration
from emit_model.released import plain_name

Shapes = Mapping[str, Sequence[int]]
EMBEDDINGS = "language_model.model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"
SOFT_PROMPT = "soft_prompt.weight"
CONVOLUTION = "projector.1.weight"

_LAYER = re.compile(r"(vision_(?:model|tower)\.encoder\.layers?\.)(\d+)\.")
_THEIRS, _OURS = "vision_model.encoder.layers.#.", "vision_tower.encoder.layer.#."
#: Released name or its beginning -> ours on disk; ``#`` is a layer's number. A name with several entries is
#: a fused matrix: its rows are shared out among them in order.
RENAMED: tuple[tuple[str, str], ...] = (
    ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.patch_embeddings.projection."),
    (_THEIRS + "attn.qkv.", _OURS + "attention.q_proj."),
    (_THEIRS + "attn.qkv.", _OURS + "attention.k_proj."),
    (_THEIRS + "attn.qkv.", _OURS + "attention.v_proj."),
    (_THEIRS + "attn.proj.", _OURS + "attention.projection_layer."),
    (_THEIRS + "attn.q_norm.", _OURS + "attention.q_norm."),
    (_THEIRS + "attn.k_norm.", _OURS + "attention.k_norm."),
    (_THEIRS + "norm1.", _OURS + "layernorm_before."),
    (_THEIRS + "norm2.", _OURS + "layernorm_after."),
    (_THEIRS + "ls1", _OURS + "lambda_1"),
    (_THEIRS + "ls2", _OURS + "lambda_2"),
    (_THEIRS + "mlp.", _OURS + "mlp."),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
    ("language_model.", "language_model."),
    ("projector.0.", "contrast.norm."),
    ("projector.1.", "contrast.conv."),
    (SOFT_PROMPT, "contrast.soft_prompt"),
)
#: Beginning of a parameter's name in the model -> on disk, where checkpoints keep InternVL's older names.
_ON_DISK = (
    ("model.language_model.", "language_model.model."),
    ("model.", ""),
    ("lm_head.", "language_model.lm_head."),
)

_TEXT_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "hidden_act",
    "initializer_range",
    "max_position_embeddings",
    "max_window_layers",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "use_sliding_window",
)
_TEXT_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
)
#: Fields of InternViT -> ours. InternViT's defaults are another tower's, so its sizes must be there.
_VISION_FIELDS = {
    "attention_dropout": "attention_dropout",
    "dropout": "projection_dropout",
    "hidden_act": "hidden_act",
    "initializer_factor": "layer_scale_init_value",
    "initializer_range": "initializer_range",
    "layer_norm_eps": "layer_norm_eps",
    "num_channels": "num_channels",
}
_VISION_SIZES = {
    "hidden_size": "hidden_size",
    "image_size": "image_size",
    "intermediate_size": "intermediate_size",
    "norm_type": "norm_type",
    "num_attention_heads": "num_attention_heads",
    "num_hidden_layers": "num_hidden_layers",
    "patch_size": "patch_size",
    "qk_normalization": "use_qk_norm",
    "qkv_bias": "attention_bias",
}
#: The conversation that InternVL3 was trained on, and EMIT with it.
CHAT = "internvl2_5"


@dataclass(frozen=True)
class TokenIds:
    """What a configuration has to know of the checkpoint's tokenizer."""

    image: int  #: ``<IMG_CONTEXT>``
    comp: int  #: ``<COMP_CONTEXT>``
    end: int  #: ``<|im_end|>``, which ends an answer


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The new names of ``name``: one for every pair whose first part it is or begins with."""
    layer = _LAYER.match(name)
    plain = _LAYER.sub(r"\1#.", name, count=1)
    found = [
        new + plain[len(old) :]
        for old, new in pairs
        if plain == old or (old.endswith(".") and plain.startswith(old))
    ]
    return tuple(new.replace("#", layer[2], 1) if layer else new for new in found)


def convert_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the released layout under this package's names on disk; values and dtypes stay.

    Args:
        tensors: by their released names, also those of PEFT's wrappers; meta tensors will do.

    Raises:
        ValueError: a name that the layout does not have, or a fused matrix that cannot be shared out.
    """
    converted: dict[str, Tensor] = {}
    unknown = [name for name in tensors if not _renamed(plain_name(name), RENAMED)]
    if unknown:
        raise _wrong("tensor(s) are not of the released layout", len(unknown), min(unknown))
    for name, tensor in tensors.items():
        targets = _renamed(plain_name(name), RENAMED)
        if len(targets) == 1:
            converted[targets[0]] = tensor
            continue
        if not tensor.ndim or tensor.shape[0] % len(targets):
            raise ValueError(f"{name} of shape {tuple(tensor.shape)} is no fused query, key and value")
        # Copies, because safetensors does not write tensors that share their memory.
        parts = (part.clone() for part in tensor.chunk(len(targets)))
        converted.update(zip(targets, parts, strict=True))
    return converted


def released_shapes(config: EmitConfig) -> dict[str, tuple[int, ...]]:
    """The released name and shape of every tensor that a checkpoint of this configuration holds."""
    with torch.device("meta"):
        model = EmitForConditionalGeneration(config)
    back = [(ours, theirs) for theirs, ours in RENAMED]
    shapes: dict[str, tuple[int, ...]] = {}
    for parameter, value in model.state_dict().items():
        (name,) = _renamed(_on_disk(parameter), back)
        shape = tuple(value.shape)
        if name in shapes:  # another part of a fused matrix
            shape = (shapes[name][0] + shape[0], *shape[1:])
        shapes[name] = shape
    if config.tie_word_embeddings:
        del shapes[HEAD]
    return shapes


def _on_disk(parameter: str) -> str:
    for inside, stored in _ON_DISK:
        if parameter.startswith(inside):
            return stored + parameter[len(inside) :]
    return parameter


def check_shapes(found: Shapes, config: EmitConfig) -> None:
    """Raise ValueError unless a checkpoint holds exactly the tensors that its configuration describes.

    Args:
        found: plain released name -> shape.
        config: as :func:`convert_config` made it.
    """
    wanted = released_shapes(config)
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    bent = sorted(name for name in wanted.keys() & found.keys() if tuple(found[name]) != wanted[name])
    if missing:
        raise _wrong("tensor(s) that config.json describes are missing", len(missing), min(missing))
    if extra:
        raise _wrong("tensor(s) are unknown to the EMIT that config.json describes", len(extra), min(extra))
    if bent:
        example = f"{bent[0]} with {tuple(found[bent[0]])} in place of {wanted[bent[0]]}"
        raise _wrong("tensor(s) have another shape than config.json says", len(bent), example)


def _wrong(what: str, count: int, example: str) -> ValueError:
    return ValueError(f"{count} {what}, such as {example}; pass an EMIT checkpoint as it was released")


def check_chat(chat: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``config.json`` is one of an InternVL chat model that this package can be."""
    kind = chat.get("model_type")
    if not all(isinstance(chat.get(part), Mapping) for part in ("llm_config", "vision_config")):
        raise ValueError(
            f"config.json is of type {kind!r} and no InternVL chat config (it lacks llm_config or "
            "vision_config); pass a checkpoint in the released layout"
        )
    architecture = chat["llm_config"].get("architectures") or [None]
    for field, found, wanted in (
        ("llm_config.architectures", architecture[0], "Qwen2ForCausalLM"),
        ("template", chat.get("template"), CHAT),
        # Version 1 leaves the image features transposed, and is the default where none is named.
        ("ps_version", chat.get("ps_version", "v1"), "v2"),
    ):
        if found != wanted:
            raise ValueError(f"config.json has {field} {found!r}; only {wanted!r} can be imported")
    for section, sizes in (("llm_config", _TEXT_SIZES), ("vision_config", tuple(_VISION_SIZES))):
        absent = [field for field in sizes if chat[section].get(field) is None]
        if absent:
            raise ValueError(f"config.json lacks {section}.{absent[0]}; download it again")
    if not (chat["llm_config"].get("rope_theta") or chat["llm_config"].get("rope_parameters")):
        raise ValueError("config.json lacks llm_config.rope_theta; download it again")


def convert_config(
    chat: Mapping[str, Any], shapes: Shapes, tokens: TokenIds, *, preset: str = "release"
) -> EmitConfig:
    """EMIT's configuration from that of an InternVL chat model and the shapes of its tensors.

    Vocabulary, soft prompt length and kernel are those of the tensors. Layers and window leave no trace in
    them: they are the preset's, in proportion to the vision tower.

    Args:
        chat: content of ``config.json``.
        shapes: plain released name -> shape.
        tokens: ids of the checkpoint's tokenizer.
        preset: a key of :data:`emit_model.PRESETS`.

    Raises:
        ValueError: it is another kind of configuration, lacks a field, or has one of a wrong type.
    """
    check_chat(chat)
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; use {', '.join(PRESETS)}")
    llm, tower = chat["llm_config"], chat["vision_config"]
    # The embedding matrix may be longer than the vocabulary in config.json, which nobody updates.
    rows = shapes.get(EMBEDDINGS, (llm.get("vocab_size"),))[0]
    # These models store their head even where the language model that they grew from was tied.
    tied = HEAD not in shapes and bool(llm.get("tie_word_embeddings") or chat.get("tie_word_embeddings"))
    text = {field: llm[field] for field in (*_TEXT_SIZES, *_TEXT_FIELDS) if field in llm}
    known = {**_VISION_SIZES, **_VISION_FIELDS}
    vision = {ours: tower[theirs] for theirs, ours in known.items() if theirs in tower}
    size, ratio = chat.get("force_image_size") or tower["image_size"], chat.get("downsample_ratio", 0.5)
    try:
        grid = size // tower["patch_size"]
        contrast = PRESETS[preset].scaled(tower["num_hidden_layers"], grid)
        contrast = contrast.replaced(
            comp_token_id=tokens.comp,
            soft_prompt_length=shapes.get(SOFT_PROMPT, (contrast.soft_prompt_length,))[0],
            kernel=shapes.get(CONVOLUTION, (contrast.kernel,))[-1],
        )
        return EmitConfig(
            vision_config={**vision, "image_size": size},
            text_config={
                **text,
                "model_type": "qwen2",
                "vocab_size": rows,
                "eos_token_id": tokens.end,
                "tie_word_embeddings": tied,
            },
            image_token_id=tokens.image,
            image_seq_length=int((grid * ratio) ** 2),
            downsample_ratio=ratio,
            vision_feature_layer=chat.get("select_layer", -1),
            tie_word_embeddings=tied,
            contrast=contrast.section(),
        )
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config.json cannot be converted ({reason}); download it again") from error
