"""The Hugging Face class: loading, placeholders, comparison, training modes, generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from emit_model import COMP_TOKEN, PRESETS, Contrast, EmitForConditionalGeneration, heat_map
from emit_model.processing import HINT
from tests import tiny

Inputs = dict[str, Tensor]


@pytest.fixture(scope="module")
def tiny_emit() -> tuple[EmitForConditionalGeneration, Any]:
    return tiny.emit()


def inputs(
    model: EmitForConditionalGeneration, parts: Any, questions: tuple[str, ...] = ("Any defect?",)
) -> Inputs:
    """Reference, query and a question with its placeholders, a row each question; left-padded."""
    texts, images = [], []
    for row, question in enumerate(questions):
        hints = COMP_TOKEN * model.config.placeholders
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question + hints}]
        texts.append(
            parts.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        )
        images += [tiny.image(2 * row), tiny.image(2 * row + 1)]
    batch = dict(parts(text=texts, images=images, return_tensors="pt", padding=True, crop_to_patches=False))
    pixels = batch["pixel_values"]
    batch["comparison_pixel_values"] = torch.stack([pixels[1::2], pixels[0::2]], dim=1)
    return batch


def test_saved_and_loaded_through_the_auto_class(tmp_path: Path, tiny_emit: Any) -> None:
    model, parts = tiny_emit
    tiny.save(tmp_path, model, parts)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(loaded, EmitForConditionalGeneration)
    for (name, first), (other, second) in zip(
        model.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert name == other
        assert first.equal(second), name
    batch = inputs(model, parts)
    with torch.no_grad():
        assert model(**batch).logits.equal(loaded(**batch).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_a_plain_internvl_checkpoint_loads_as_it_is(tmp_path: Path, tied: bool) -> None:
    """The real model's head is a matrix of its own, stored under another name than the module's."""
    plain, parts = tiny.internvl(tied=tied)
    tiny.save(tmp_path, plain, parts)
    model, report = EmitForConditionalGeneration.from_internvl(
        tmp_path, Contrast(layers=(1, 2), comp_token_id=999), output_loading_info=True
    )
    assert {key.split(".")[0] for key in report["missing_keys"]} == {"contrast"}
    assert not report["unexpected_keys"]
    text = "<IMG_CONTEXT>\nAny defect?"
    batch = dict(parts(text=text, images=[tiny.image(0)], return_tensors="pt", crop_to_patches=False))
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, plain(**batch).logits, atol=0, rtol=0)
    assert model.contrast.conv.bias.eq(0).all()
    assert (model.contrast.norm.running_mean.item(), model.contrast.norm.running_var.item()) == (0, 1)
    # kaiming_normal_ for leaky_relu (slope 0.01) over 16 inputs
    assert model.contrast.conv.weight.std().item() == pytest.approx((2 / 1.0001 / 16) ** 0.5, rel=0.15)


def test_placeholders_hold_soft_prompt_then_projected_heat_map_row_by_row(tiny_emit: Any) -> None:
    model, parts = tiny_emit
    batch = inputs(model, parts)
    pixels = batch["comparison_pixel_values"]
    with torch.no_grad():
        tower = model.model.vision_tower(pixel_values=pixels[0], output_hidden_states=True).hidden_states
        layers = [tower[i][:, 1:].reshape(2, 4, 4, -1) for i in (1, 2, 4)]
        heat = heat_map([x[:1] for x in layers], [x[None, 1:] for x in layers], window=1)
        torch.testing.assert_close(model.compare_pixels(pixels), heat)
        hints = model.hints(heat)[0]
        features = model.get_image_features(pixel_values=batch["pixel_values"]).pooler_output
        embeds = model.embed_prompt(batch["input_ids"], features, hints[None])
    assert len(hints) == model.config.placeholders == 3 + 4
    assert hints[:3].equal(model.contrast.soft_prompt)
    norm, conv = model.contrast.norm, model.contrast.conv
    # By hand: normalise with the running statistics, pad by 1, and the first 4x4 patch at each stride of 2.
    plane = torch.nn.functional.pad(heat[0, 0] / (1 + norm.eps) ** 0.5, (1, 1, 1, 1))
    for token, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        wanted = (conv.weight[:, 0] * plane[top : top + 4, left : left + 4]).sum((1, 2)) + conv.bias
        torch.testing.assert_close(hints[3 + token], wanted)
    places = batch["input_ids"][0] == model.config.comparison.comp_token_id
    assert embeds[0, places].equal(hints)
    images = batch["input_ids"][0] == model.config.image_token_id
    assert embeds[0, images].equal(features.flatten(0, 1))


def test_the_comparison_reaches_the_answer_and_precomputed_heat_maps_give_the_same(tiny_emit: Any) -> None:
    model, parts = tiny_emit
    batch = inputs(model, parts, ("Any defect?", "Where is the defect in it?"))
    pixels = batch.pop("comparison_pixel_values")
    with torch.no_grad():
        logits = model(**batch, comparison_pixel_values=pixels).logits
        again = model(**batch, heat_maps=model.compare_pixels(pixels)).logits
        same = pixels[:, 1:].expand_as(pixels)  # a query that is its own reference
        other = model(**batch, comparison_pixel_values=same).logits
    assert logits.equal(again)
    assert (logits - other).abs().amax() > 1e-3


def test_one_tower_pass_serves_language_model_and_comparison(tiny_emit: Any) -> None:
    model, parts = tiny_emit
    pixels = inputs(model, parts)["pixel_values"]
    with torch.no_grad():
        features, patches = model.encode_images(pixels)
        assert features.equal(model.get_image_features(pixel_values=pixels).pooler_output)
        for joint, alone in zip(patches, model.patch_features(pixels), strict=True):
            assert joint.shape == (2, 4, 4, 32)
            assert joint.equal(alone)
    embeds = model.model.vision_tower.embeddings(pixels)
    first = EmitForConditionalGeneration._patches.__get__(model)([embeds] * 5)
    assert first[0].flatten(1, 2).equal(embeds[:, 1:])  # the class token is gone, the rest row by row


def test_more_references_and_rotations_only_lower_the_heat() -> None:
    model, _ = tiny.emit(contrast=Contrast(layers=(2, 4), window=1, rotations=(0, 1, 2, 3)))
    plain, _ = tiny.emit(contrast=Contrast(layers=(2, 4), window=1))
    pixels = torch.randn(2, 3, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    one, two = plain.compare_pixels(pixels[:, :2]), plain.compare_pixels(pixels)
    turned = model.compare_pixels(pixels[:, :2])
    assert (two <= one + 1e-6).all()
    assert (turned <= one + 1e-6).all()
    assert (two < one - 1e-6).any()
    assert (turned < one - 1e-6).any()
    views = model.reference_views(pixels[0, 1:])
    assert views[:4].equal(torch.stack([torch.rot90(pixels[0, 1], k, (1, 2)) for k in range(4)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparison_pixel_values": None}, "holds 7 <COMP_CONTEXT> tokens, but 0"),
        ({"heat_maps": torch.zeros(1, 1, 4, 4)}, "not both"),
        ({"comparison_pixel_values": None, "heat_maps": torch.zeros(2, 1, 4, 4)}, "holds 7 .* but 14"),
        ({"pixel_values": None}, "holds 8 image tokens, but 0"),
    ],
)
def test_vectors_and_places_must_match(tiny_emit: Any, change: dict[str, Any], message: str) -> None:
    model, parts = tiny_emit
    with pytest.raises(ValueError, match=message):
        model(**{**inputs(model, parts), **change})


def test_a_comparison_nobody_asked_for_is_refused(tiny_emit: Any) -> None:
    model, _ = tiny_emit
    with pytest.raises(ValueError, match="holds 0 <COMP_CONTEXT> tokens, but 7"):
        model(input_ids=torch.tensor([[50, 51]]), heat_maps=torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("soft", "contrast", "count"), [(False, True, 4), (True, False, 3), (False, False, 0)]
)
def test_ablations(soft: bool, contrast: bool, count: int) -> None:
    model, parts = tiny.emit(
        contrast=Contrast(
            layers=(1, 2, 4), window=1, soft_prompt_length=3, use_soft_prompt=soft, use_contrast=contrast
        )
    )
    assert model.config.placeholders == count
    batch = inputs(model, parts)
    if not count:
        batch.pop("comparison_pixel_values")
    with torch.no_grad():
        assert model(**batch).logits.isfinite().all()


def test_the_soft_prompt_starts_from_the_hints_embeddings(tiny_emit: Any) -> None:
    model, parts = tiny.emit(contrast=Contrast(layers=(1,), soft_prompt_length=9))
    ids = parts.tokenizer(HINT, add_special_tokens=False)["input_ids"]
    model.init_soft_prompt(ids[:4])
    table = model.get_input_embeddings().weight
    assert model.contrast.soft_prompt.equal(table[torch.tensor([*ids[:4], *ids[:4], ids[0]])])
    assert model.contrast.soft_prompt.requires_grad
    with pytest.raises(ValueError, match="no tokens"):
        model.init_soft_prompt([])


def test_the_norm_keeps_its_statistics_in_training_mode() -> None:
    model, _ = tiny.emit()
    heat = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model.train()
    model.contrast(heat)
    assert model.contrast.norm.running_mean.item() == 0
    assert model.contrast.training and not model.contrast.norm.training


def test_projector_starts_between_two_words() -> None:
    """One standard deviation above the mean says the low word; 1/gain further, the high one."""
    model = tiny.emit()[0]
    model.init_projector(30, 40, gain=0.5)
    table = model.get_input_embeddings().weight
    for heat, word in ((1.0, 30), (3.0, 40)):
        with torch.no_grad():
            said = model.contrast(torch.full((1, 1, 8, 8), heat))[0]
        torch.testing.assert_close(said, table[word].expand_as(said), atol=1e-4, rtol=0)


def test_stage_one_gradients_reach_soft_prompt_and_projector_only() -> None:
    model, parts = tiny.emit()
    model.requires_grad_(False)
    model.contrast.requires_grad_(True)
    batch = inputs(model, parts)
    loss = model(**batch, labels=batch["input_ids"].masked_fill(batch["input_ids"] >= 400, -100)).loss
    loss.backward()
    learned = {name for name, value in model.named_parameters() if value.grad is not None}
    assert learned == {
        f"contrast.{n}" for n in ("soft_prompt", "norm.weight", "norm.bias", "conv.weight", "conv.bias")
    }
    assert all(value.grad.abs().sum() > 0 for value in model.contrast.parameters())


def test_generate_is_greedy_on_its_own_forward(tiny_emit: Any) -> None:
    model, parts = tiny_emit
    batch = inputs(model, parts, ("Any defect?", "Where is the defect in it?"))
    made = model.generate(**batch, max_new_tokens=5, do_sample=False, eos_token_id=-1)
    ids = batch["input_ids"]
    assert made[:, : ids.shape[1]].equal(ids)
    for step in range(5):
        so_far = made[:, : ids.shape[1] + step]
        mask = torch.cat([batch["attention_mask"], torch.ones(2, step, dtype=torch.long)], dim=1)
        with torch.no_grad():
            logits = model(**{**batch, "input_ids": so_far, "attention_mask": mask}).logits
        assert made[:, ids.shape[1] + step].equal(logits[:, -1].argmax(-1))


def test_generate_takes_heat_maps_as_well(tiny_emit: Any) -> None:
    model, parts = tiny_emit
    batch = inputs(model, parts)
    made = model.generate(**batch, max_new_tokens=4, do_sample=False)
    heat_maps = model.compare_pixels(batch.pop("comparison_pixel_values"))
    assert model.generate(**batch, heat_maps=heat_maps, max_new_tokens=4, do_sample=False).equal(made)


def test_generate_several_answers_a_prompt(tiny_emit: Any) -> None:
    """Rows of one prompt must all see that prompt's images and comparison: greedily, they are equal."""
    model, parts = tiny_emit
    batch = inputs(model, parts, ("Any defect?", "Where is the defect in it?"))
    one = model.generate(**batch, max_new_tokens=4, do_sample=False, eos_token_id=-1)
    torch.manual_seed(0)
    many = model.generate(
        **batch, max_new_tokens=4, do_sample=True, temperature=1e-4, num_return_sequences=3, eos_token_id=-1
    )
    assert many.equal(one.repeat_interleave(3, dim=0))


def test_half_precision_keeps_what_emit_adds_in_single(tmp_path: Path, tiny_emit: Any) -> None:
    model, parts = tiny_emit
    tiny.save(tmp_path, model, parts)
    half = EmitForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert {value.dtype for value in half.contrast.parameters()} == {torch.float32}
    with torch.no_grad():
        assert half(**inputs(model, parts)).logits.dtype == torch.bfloat16


def test_presets_run_on_a_tiny_tower() -> None:
    for preset in PRESETS.values():
        model, parts = tiny.emit(contrast=preset.scaled(depth=4, grid=4))
        with torch.no_grad():
            assert model(**inputs(model, parts)).logits.isfinite().all()
