"""Importing the released layout: every tensor in its place, the same answers, a sentence on bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from emit_model import COMP_TOKEN, PRESETS, EmitForConditionalGeneration, load_processor
from emit_model.conversion import TokenIds, convert_config, convert_state
from emit_model.importing import import_released
from harness.records import Decoding, LoadRequest, Picture, Prompt, PromptGroup
from plugins.families import emit
from tests import released, tiny
from tests.released import same, stored

TOWER = "vision_model.encoder.layers.2."


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EmitForConditionalGeneration]:
    folder = tmp_path_factory.mktemp("released")
    return folder, released.write_checkpoint(folder)


@pytest.fixture(scope="module")
def imported(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_released(original[0], tmp_path_factory.mktemp("imported") / "emit").folder


def batch_of(model: EmitForConditionalGeneration, parts: Any) -> dict[str, Tensor]:
    """Reference, query, and a question with its placeholders."""
    hints = COMP_TOKEN * model.config.placeholders
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Any defect?" + hints}]
    text = parts.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [tiny.image(0), tiny.image(1)]
    batch = dict(parts(text=[text], images=images, return_tensors="pt", crop_to_patches=False))
    batch["comparison_pixel_values"] = batch["pixel_values"].flip(0)[None]
    return batch


def test_the_import_is_the_model_that_the_checkpoint_was_written_from(original: Any, imported: Path) -> None:
    model = original[1]
    loaded, report = EmitForConditionalGeneration.from_pretrained(imported, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert same(model.state_dict(), loaded.state_dict())
    parts = load_processor(imported)
    batch = batch_of(model, parts)
    with torch.no_grad():
        mine, theirs = (m(**batch, output_hidden_states=True) for m in (model, loaded))
    assert mine.logits.equal(theirs.logits)
    assert all(a.equal(b) for a, b in zip(mine.hidden_states, theirs.hidden_states, strict=True))
    assert loaded.config.comparison == model.config.comparison
    assert loaded.generation_config.eos_token_id == parts.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not list(imported.parent.glob(".*"))


def test_the_folder_is_as_save_pretrained_writes_it(original: Any, imported: Path, tmp_path: Path) -> None:
    original[1].save_pretrained(tmp_path)
    assert same(stored(imported), stored(tmp_path))
    with safe_open(imported / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert len({path.stat().st_mode for path in imported.iterdir()}) == 1
    mine, theirs = (json.loads((place / "config.json").read_text()) for place in (imported, tmp_path))
    assert mine == theirs


def test_tokens_and_pictures_are_those_of_the_release(original: Any, imported: Path) -> None:
    parts = load_processor(imported)
    ids = {token: 400 + i for i, token in enumerate(released.ADDED)}
    assert {token: parts.tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    text = "<|im_start|>user\nA. Yes<img><IMG_CONTEXT></img><COMP_CONTEXT><|im_end|>"
    inside = parts.tokenizer(text)["input_ids"]
    assert [token for token in inside if token >= 400] == [401, 405, 407, 406, 409, 402]
    assert parts.tokenizer.decode(inside) == text
    assert (parts.image_token, parts.image_seq_length) == ("<IMG_CONTEXT>", 4)
    pixels = parts.image_processor(images=[tiny.image(0, 56, 56)], crop_to_patches=False)["pixel_values"]
    raw = torch.from_numpy(np.array(tiny.image(0, 56, 56))).permute(2, 0, 1) / 255
    mean, spread = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(torch.as_tensor(pixels[0]), (raw - mean) / spread)
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": [{"type": "image"}]}]
    wanted = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT><|im_end|>\n"
    assert parts.apply_chat_template(chat, add_generation_prompt=True) == wanted + "<|im_start|>assistant\n"


def test_the_emit_model_answers_from_it(imported: Path) -> None:
    (spec,) = (spec for spec in emit.emit_bench_models() if spec.id == "emit")
    model = spec.load(LoadRequest(world="real", weights=str(imported), device="cpu"))
    query, reference = Picture("q", tiny.image(0)), Picture("r", tiny.image(1))
    asked = (Prompt("p", "Any defect?", {"A": "Yes.", "B": "No."}, True),)
    group = PromptGroup("", (reference, query), (reference,), query, asked)
    (response,) = model.answer(group, Decoding("logits", 1))
    assert response.text in ("A", "B")
    model.close()


@pytest.mark.parametrize("qk_norm", [False, True])
def test_fused_attention_is_taken_apart_as_internvit_uses_it(tmp_path: Path, qk_norm: bool) -> None:
    """Its own formula: (batch, tokens, 3, heads, width), norms over the whole width before the heads part."""
    released.write_tokenizer(tmp_path)
    model = released.tiny_emit(tmp_path, qk_norm)
    tensors = released.tensors_of(model)
    attention = model.model.vision_tower.encoder.layer[2].attention
    name, converted = "vision_tower.encoder.layer.2.attention.", convert_state(tensors)
    attention.load_state_dict({k.removeprefix(name): v for k, v in converted.items() if k.startswith(name)})
    own = {k.removeprefix(TOWER + "attn."): v for k, v in tensors.items() if k.startswith(TOWER + "attn.")}
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    query, key, value = (
        functional.linear(x, own["qkv.weight"], own["qkv.bias"]).reshape(1, 5, 3, 32).unbind(2)
    )
    if qk_norm:
        query, key = (
            own[f"{part}_norm.weight"] * rows * (rows.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
            for part, rows in (("q", query), ("k", key))
        )
    heads = [rows.reshape(1, 5, 4, 8).transpose(1, 2) for rows in (query, key, value)]
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(1, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            attention(x)[0], functional.linear(mixed, own["proj.weight"], own["proj.bias"])
        )


def test_names_under_wrappers_and_nested_projectors() -> None:
    value = torch.zeros(4)
    for name, ours in (
        ("soft_prompt", "contrast.soft_prompt"),
        ("base_model.model.soft_prompt.modules_to_save.default.weight", "contrast.soft_prompt"),
        ("projector.projector.0.running_mean", "contrast.norm.running_mean"),
        ("base_model.model.projector.modules_to_save.1.bias", "contrast.conv.bias"),
        (f"base_model.model.{TOWER}mlp.fc1.base_layer.bias", "vision_tower.encoder.layer.2.mlp.fc1.bias"),
    ):
        assert convert_state({name: value}) == {ours: value}
    with pytest.raises(ValueError, match=r"2 tensor\(s\) are not of the released layout, such as audio\.x"):
        convert_state({"audio.x": value, "vision_model.head": value, "mlp1.0.bias": value})
    with pytest.raises(ValueError, match="no fused query, key and value"):
        convert_state({f"{TOWER}attn.qkv.bias": value})


def test_the_real_sizes_give_the_release_as_its_paper_and_code_describe_it() -> None:
    """The 8B: nothing is scaled, and vocabulary, soft prompt and kernel are the tensors'."""
    chat = json.loads(json.dumps(REAL))
    shapes = {
        "language_model.model.embed_tokens.weight": (151680, 3584),
        "language_model.lm_head.weight": (151680, 3584),
        "soft_prompt.weight": (9, 3584),
        "projector.1.weight": (3584, 1, 4, 4),
    }
    config = convert_config(chat, shapes, TokenIds(151667, 151674, 151645))
    text: Any = config.text_config
    assert config.comparison == PRESETS["release"].replaced(comp_token_id=151674)
    assert (config.grid, config.image_seq_length, config.placeholders) == ((32, 32), 256, 265)
    assert (text.vocab_size, text.eos_token_id, text.tie_word_embeddings) == (151680, 151645, False)
    assert text.rope_parameters["rope_theta"] == 1e6
    assert (text.rope_parameters["rope_type"], text.rope_parameters["factor"]) == ("dynamic", 2.0)
    paper = convert_config(
        chat, {**shapes, "soft_prompt.weight": (8, 3584)}, TokenIds(1, 2, 3), preset="paper"
    )
    assert paper.comparison == PRESETS["paper"].replaced(comp_token_id=2)
    with pytest.raises(ValueError, match="preset 'none' is unknown; use paper, release"):
        convert_config(chat, shapes, TokenIds(1, 2, 3), preset="none")


REAL: dict[str, Any] = {
    "model_type": "internvl_chat",
    "ps_version": "v2",
    "template": "internvl2_5",
    "downsample_ratio": 0.5,
    "force_image_size": 448,
    "select_layer": -1,
    "llm_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "max_window_layers": 70,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "vocab_size": 151674,
    },
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 448,
        "intermediate_size": 4096,
        "norm_type": "layer_norm",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "qk_normalization": False,
        "qkv_bias": True,
    },
}
