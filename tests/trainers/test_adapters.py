"""Adapters and 4-bit weights: what learns, what is quantised, and what must not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.weights import Weights, resolve
from tests import tiny
from tests.trainers import small
from trainers import export
from trainers.adapters import attach, linear_layers, quantisation, quantised_layers
from trainers.packing import Suffix
from trainers.policy import Policy
from trainers.settings import ModelSettings, Settings
from trainers.training import new_emit

CHOSEN = {"model.layers": (1, 2), "model.window": 1, "model.tiles": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    folder = tiny.save(tmp_path_factory.mktemp("base") / "base", *tiny.internvl())
    return resolve("base", "internvl", LoadRequest(world="mini", weights=str(folder)), {})


def emit(base: Weights, **changes: Any) -> tuple[Any, Any, Settings]:
    settings = Settings().replaced({**CHOSEN, **{f"model.{key}": value for key, value in changes.items()}})
    model, parts = new_emit(base, settings, torch.device("cpu"), "float32")
    return model.requires_grad_(False), parts, settings


def test_scopes_name_the_layers_they_say(base: Weights) -> None:
    model, _, _ = emit(base, quantise="none")
    everything, language = linear_layers(model, "all"), linear_layers(model, "language")
    assert len(language) == 2 * 7
    tower = set(everything) - set(language)
    assert len(tower) == 4 * 6 and all(name.startswith("model.vision_tower.") for name in tower)
    assert not any("lm_head" in name or "contrast" in name for name in everything)


@pytest.mark.parametrize("scope", ["all", "language"])
def test_adapters_and_full_modules_learn_and_nothing_else(base: Weights, scope: str) -> None:
    model, _, _ = emit(base, quantise="none")
    attach(model, ModelSettings(quantise="none", lora_scope=scope), seed=1)  # type: ignore[arg-type]
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name or "contrast.modules_to_save" in name for name in names)
    assert any("vision_tower" in name for name in names) == (scope == "all")


def test_the_release_trains_the_image_projector_in_full(base: Weights) -> None:
    model, _, _ = emit(base, quantise="none")
    attach(model, ModelSettings(full_modules=("contrast", "multi_modal_projector")), seed=1)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any("multi_modal_projector.modules_to_save" in name for name in names)


def test_adapters_are_drawn_from_the_seed(base: Weights) -> None:
    drawn = []
    for seed in (1, 1, 2):
        model, _, _ = emit(base, quantise="none")
        torch.rand(3)  # whatever was drawn before
        attach(model, ModelSettings(), seed=seed)
        drawn.append(next(p for name, p in model.named_parameters() if "lora_A" in name).detach().clone())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_only_the_language_model_is_quantised(base: Weights) -> None:
    """transformers would quantise tower and projector too, and ignores their short names."""
    model, _, _ = emit(base, quantise="nf4")
    assert quantised_layers(model) == {"model.language_model": 14}
    layer = model.model.language_model.layers[0].mlp.up_proj
    assert layer.weight.quant_type == "nf4"
    assert layer.weight.quant_state.nested  # double quantisation
    assert type(model.lm_head) is torch.nn.Linear
    assert model.contrast.conv.weight.dtype == torch.float32


def test_missing_bitsandbytes_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"bitsandbytes is not installed; install it with .*quantise=none"):
        quantisation(ModelSettings(quantise="nf4"), torch.float32)
    assert quantisation(ModelSettings(quantise="none"), torch.float32) == {}


def scored(policy: Policy, prompt: Any) -> torch.Tensor:
    responses = [Suffix((), (50, 60, 70)), Suffix((), (80, 90))]
    logps, _ = policy.log_probs(prompt, policy.look(prompt), prompt.rows[0], responses, contrastive=1)
    return logps


def test_qlora_learns_its_reference_stays_and_the_export_is_precise(base: Weights, tmp_path: Path) -> None:
    data = small.training_set(tmp_path / "set")
    model, parts, settings = emit(base, quantise="nf4")
    maker = small.PromptMaker(parts, small.PROTOCOL, model.config.placeholders, 1)
    prompt = small.prompt(maker, [data.samples[0]])
    model.train()  # bitsandbytes repacks its weights for inference on CPU otherwise
    before = Policy(model, parts)
    with torch.no_grad():
        stage_one = scored(before, prompt)
    policy = Policy(model, parts, attach(model, settings.model, seed=1))
    optimiser = torch.optim.AdamW(policy.learners().values(), lr=0.01)
    for _ in range(2):
        optimiser.zero_grad()
        scored(policy, prompt).sum().backward()
        optimiser.step()
    with torch.no_grad():
        learnt = scored(policy, prompt)
    with policy.reference():
        reference = scored(policy, prompt)
    torch.testing.assert_close(reference, stage_one, rtol=0, atol=1e-6)
    assert float((learnt - reference).abs().max()) > 1e-2

    whole = export.whole(policy, base)
    assert quantised_layers(whole) == {}
    plain = {name: value for name, value in whole.state_dict().items() if name.endswith("mlp.up_proj.weight")}
    original, _, _ = emit(base, quantise="none")
    for name, value in plain.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        change = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        assert bool(change.any())
        torch.testing.assert_close(value, original.state_dict()[name] + change, rtol=0, atol=1e-6)
    assert torch.equal(whole.contrast.soft_prompt, model.contrast.modules_to_save["default"].soft_prompt)
