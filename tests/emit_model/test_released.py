"""LoRA adapters on a released checkpoint: the merged weights, and one sentence where they do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emit_model import EmitForConditionalGeneration, load_processor
from emit_model.conversion import convert_state
from emit_model.importing import import_released
from tests import released
from tests.released import same, stored

LLM = "language_model.model.layers.1."
TOWER = "vision_model.encoder.layers.2."


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EmitForConditionalGeneration]:
    folder = tmp_path_factory.mktemp("released")
    return folder, released.write_checkpoint(folder)


@pytest.fixture
def folder(original: Any, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original[0], tmp_path / "source"))


def lora(seed: int, module: str, rows: int, columns: int, rank: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{module}.lora_A.weight": torch.randn(rank, columns, generator=generator),
        f"{module}.lora_B.weight": torch.randn(rows, rank, generator=generator),
    }


PAIRS = {
    **lora(1, LLM + "self_attn.q_proj", 48, 48),
    **lora(2, LLM + "mlp.down_proj", 48, 96),
    **lora(3, TOWER + "attn.qkv", 96, 32),
}
WHOLE = {
    "mlp1.0.weight": torch.full((128,), 0.25),
    "projector.modules_to_save.0.running_mean": torch.tensor([0.5]),
    "soft_prompt.weight": torch.full((9, 48), 0.125),
}


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({}, (4.0, 4.0, 4.0)),
        ({"use_rslora": True}, (8 / 2**0.5,) * 3),
        ({"alpha_pattern": {"mlp.down_proj": 2, r"vision_model\..*": 6}}, (4.0, 1.0, 3.0)),
    ],
    ids=["plain", "rank-stabilised", "alpha-pattern"],
)
def test_an_adapter_is_merged(
    original: Any, tmp_path: Path, settings: dict[str, Any], scales: tuple[float, ...]
) -> None:
    adapter = released.write_adapter(tmp_path / "adapter", {**PAIRS, **WHOLE}, **settings)
    import_released(original[0], tmp_path / "out", adapter=adapter)
    wanted = released.tensors_of(original[1])
    modules = (LLM + "self_attn.q_proj", LLM + "mlp.down_proj", TOWER + "attn.qkv")
    for module, scale in zip(modules, scales, strict=True):
        delta = PAIRS[f"{module}.lora_B.weight"] @ PAIRS[f"{module}.lora_A.weight"]
        wanted[f"{module}.weight"] = wanted[f"{module}.weight"] + scale * delta
    wanted.update({name.replace("modules_to_save.", ""): value for name, value in WHOLE.items()})
    assert same(stored(tmp_path / "out"), convert_state(wanted))


def test_half_precision_is_merged_in_single(original: Any, folder: Path, tmp_path: Path) -> None:
    """A bfloat16 weight of 1 cannot take up many steps of 1/512 one by one, but takes their sum."""
    name = LLM + "self_attn.o_proj"
    tensors = released.tensors_of(original[1])
    tensors[f"{name}.weight"] = torch.ones(48, 48, dtype=torch.bfloat16)
    released.write_weights(folder, tensors)
    pair = {f"{name}.lora_A.weight": torch.ones(32, 48), f"{name}.lora_B.weight": torch.ones(48, 32)}
    half = {key: value.bfloat16() for key, value in pair.items()}
    adapter = released.write_adapter(tmp_path / "adapter", half, r=32, lora_alpha=1 / 16)
    import_released(folder, tmp_path / "out", adapter=adapter)
    merged = stored(tmp_path / "out")[f"{name}.weight"]
    assert merged.dtype == torch.bfloat16
    assert merged.eq(1 + 1 / 16).all()


def test_other_ranks_by_pattern_and_the_adapters_own_tokenizer(original: Any, tmp_path: Path) -> None:
    name = LLM + "mlp.up_proj"
    adapter = released.write_adapter(
        tmp_path / "adapter", lora(4, name, 96, 48, rank=5), rank_pattern={"up_proj": 5}
    )
    released.write_tokenizer(adapter, (*released.ADDED[:-1], "<think>", "<COMP_CONTEXT>"))
    config = import_released(original[0], tmp_path / "out", adapter=adapter).config
    assert config.comparison.comp_token_id == 410
    assert load_processor(tmp_path / "out").tokenizer.convert_tokens_to_ids("<think>") == 409


BAD_ADAPTERS: list[tuple[str, dict[str, Tensor], dict[str, Any], str]] = [
    ("rank", PAIRS, {"r": 4}, r"3 LoRA pair\(s\) do not fit, .* at rank 4 on a weight"),
    (
        "shape",
        lora(0, LLM + "mlp.up_proj", 95, 48),
        {},
        r"do not fit, .* B \(95, 2\) at rank 2 on .* \(96, 48\)",
    ),
    ("vector", lora(0, TOWER + "norm1", 32, 32), {}, r"do not fit, .* on a weight \(32,\)"),
    (
        "target",
        lora(0, "language_model.model.layers.7.mlp.up_proj", 96, 48),
        {},
        "1 weight.* not in the checkpoint",
    ),
    (
        "half",
        dict([next(iter(PAIRS.items()))]),
        {},
        r"1 LoRA tensor\(s\) are missing, .*q_proj.lora_B.weight",
    ),
    ("DoRA's vector", {f"{LLM}self_attn.q_proj.lora_magnitude_vector": torch.ones(48)}, {}, "another kind"),
    ("DoRA", PAIRS, {"use_dora": True}, "sets use_dora"),
    ("prompt tuning", PAIRS, {"peft_type": "PROMPT_TUNING"}, "of type 'PROMPT_TUNING'"),
    ("no rank", PAIRS, {"r": None}, "r None and lora_alpha 8"),
    ("pattern", PAIRS, {"alpha_pattern": {"(": 1}}, r"'\(' is no pattern"),
    (
        "whole misshapen",
        {"mlp1.0.weight": torch.ones(3)},
        {},
        r"mlp1.0.weight with \(3,\) in place of \(128,\)",
    ),
]


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [row[1:] for row in BAD_ADAPTERS],
    ids=[row[0] for row in BAD_ADAPTERS],
)
def test_an_adapter_that_does_not_fit_is_one_sentence(
    original: Any, tmp_path: Path, tensors: dict[str, Tensor], settings: dict[str, Any], message: str
) -> None:
    adapter = released.write_adapter(tmp_path / "adapter", tensors, **settings)
    with pytest.raises(ValueError, match=message) as caught:
        import_released(original[0], tmp_path / "out", adapter=adapter)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_adapter_alone_or_pickled_is_refused(original: Any, tmp_path: Path) -> None:
    adapter = released.write_adapter(tmp_path / "adapter", PAIRS)
    shutil.copy(original[0] / "config.json", adapter)
    with pytest.raises(ValueError, match="holds an adapter only; pass the checkpoint below it"):
        import_released(adapter, tmp_path / "out")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match="pickled adapters are refused"):
        import_released(original[0], tmp_path / "out", adapter=adapter)
