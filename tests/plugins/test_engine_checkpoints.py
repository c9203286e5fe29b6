"""Saved checkpoints of the families on the shared engine: precision, 4 bits, adapters, processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.errors import BadInput
from harness.records import Decoding, LoadRequest
from plugins.engine.model import SharedPrefixModel
from plugins.families import gemma3, qwen2_5_vl
from plugins.processors import load_processor
from tests import families
from tests.plugins.asking import DIRECT, pair, same


def request(folder: Path, **changes: Any) -> LoadRequest:
    return LoadRequest(**{"world": "mini", "device": "cpu", "weights": str(folder), **changes})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("saved")

    def find(name: str) -> Path:
        return root / name if (root / name).exists() else families.save(root / name, name)

    return find


def test_a_loaded_checkpoint_answers_as_the_built_one(saved: Callable[[str], Path]) -> None:
    spec = gemma3.MODEL.spec()
    loaded = spec.load(request(saved("gemma3")))
    assert isinstance(loaded, SharedPrefixModel)
    same(loaded.answer(pair(1), DIRECT), SharedPrefixModel(*families.build("gemma3")).answer(pair(1), DIRECT))
    assert loaded.model.dtype == torch.float32


def test_half_precision_takes_images_in_its_own(saved: Callable[[str], Path]) -> None:
    loaded = qwen2_5_vl.MODEL.spec().load(request(saved("qwen2_5_vl"), dtype="bfloat16"))
    responses = loaded.answer(pair(1), Decoding("logits", 1))
    assert all(response.option_logprobs for response in responses)
    assert loaded.counters()["sharing_turned_off"] == 0  # type: ignore[attr-defined]


def test_four_bits_are_precise_where_it_matters(saved: Callable[[str], Path]) -> None:
    import bitsandbytes

    spec, folder = qwen2_5_vl.MODEL.spec(), saved("qwen2_5_vl")
    quantised, whole = (spec.load(request(folder, quantize=kind)) for kind in ("nf4", None))
    kinds = {
        name: isinstance(module, bitsandbytes.nn.Linear4bit)
        for name, module in quantised.model.named_modules()  # type: ignore[attr-defined]
        if isinstance(module, torch.nn.Linear)
    }
    assert {name for name, small in kinds.items() if small} == {
        name for name in kinds if ".language_model." in name
    }
    one, other = (model.answer(pair(1), Decoding("logits", 1))[0] for model in (quantised, whole))
    assert one.option_logprobs is not None and other.option_logprobs is not None
    assert one.option_logprobs != other.option_logprobs
    assert spec.fingerprint(request(folder, quantize="nf4")) != spec.fingerprint(request(folder))


def test_an_adapter_is_laid_on_the_weights(saved: Callable[[str], Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder, spec = saved("qwen2_5_vl"), qwen2_5_vl.MODEL.spec()
    model, processor = families.build("qwen2_5_vl")
    torch.manual_seed(1)
    wrapped = get_peft_model(
        model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False)
    )
    wrapped.save_pretrained(tmp_path / "adapter")
    wanted = SharedPrefixModel(wrapped.merge_and_unload(), processor).answer(pair(1), DIRECT)
    same(spec.load(request(folder, adapter=str(tmp_path / "adapter"))).answer(pair(1), DIRECT), wanted)
    plain = spec.load(request(folder))
    assert [r.text for r in plain.answer(pair(1), DIRECT)] != [r.text for r in wanted]
    assert plain.answer(pair(1), DIRECT)[0].text != wanted[0].text
    prints = [spec.fingerprint(request(folder, adapter=a)) for a in (None, str(tmp_path / "adapter"))]
    assert prints[0]["weights"] != prints[1]["weights"]
    with pytest.raises(BadInput, match=r"adapter of qwen2\.5-vl: .* holds no adapter_config\.json"):
        spec.load(request(folder, adapter=str(folder)))


def test_the_processor_of_a_folder_is_found_by_its_kind(saved: Callable[[str], Path]) -> None:
    assert type(load_processor(saved("pixtral"), "llava")).__name__ == "PixtralProcessor"
    assert type(load_processor(saved("llava_interleave"), "llava")).__name__ == "LlavaProcessor"
