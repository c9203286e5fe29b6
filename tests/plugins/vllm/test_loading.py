"""What an engine is started with: adapters, precision, arguments, devices; and what it leaves behind."""

from __future__ import annotations

import gc
import os
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from harness.errors import BadInput
from tests import families
from tests.plugins.vllm import scene
from tests.plugins.vllm.scene import DIRECT, LOGITS, answers, group, same

pytest.importorskip("vllm", reason="vLLM is not installed; it needs an environment of its own")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
UNITS = [[group(0), group(1)]]


def both(folder: Path, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answers by vllm and by transformers."""
    found = []
    for backend in ("vllm", "transformers"):
        with scene.loaded(scene.checkpoint(folder), backend, **fields) as model:
            found.append(answers(model, UNITS, DIRECT))
    return found[0], found[1]


@pytest.mark.parametrize("name", ["internvl", "llava_interleave"])
def test_an_adapter_is_laid_on_the_weights(name: str, tmp_path: Path) -> None:
    """On the tower too, which vLLM's own adapters leave alone."""
    folder = scene.save(tmp_path / "base", name)
    model, _ = families.build(name)
    wrapped: Any = get_peft_model(model, LoraConfig(r=2, target_modules=r".*(q_proj|v_proj)"))
    assert any("vision_tower" in key and "lora_B" in key for key, _ in wrapped.named_parameters())
    torch.manual_seed(1)
    with torch.no_grad():
        for key, parameter in wrapped.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.3)
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    found, expected = both(folder, adapter=str(tmp_path / "adapter"))
    for key, result in expected.items():
        same(result, found[key])
    plain, _ = both(folder)
    with pytest.raises(AssertionError):
        same(plain["group-0"], found["group-0"])


def test_a_4_bit_emit_is_computed_with_the_weights_it_stands_for(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes")
    folder = scene.save(tmp_path, "emit")
    found, expected = both(folder, quantize="nf4")
    for key, result in expected.items():
        same(result, found[key])
    plain, _ = both(folder)
    with pytest.raises(AssertionError):
        same(plain["group-0"], found["group-0"])


def test_a_contrast_that_is_switched_off_is_off_here_too(tmp_path: Path) -> None:
    """An ablation of EMIT, and its placeholders are fewer."""
    folder = scene.save(tmp_path, "emit")
    declared = replace(scene.checkpoint(folder), contrast={"use_soft_prompt": False})
    results = {}
    for backend in ("vllm", "transformers"):
        with scene.loaded(declared, backend) as model:
            results[backend] = answers(model, UNITS, LOGITS)
    for key, result in results["transformers"].items():
        same(result, results["vllm"][key])


def test_memory_is_given_back(tmp_path: Path) -> None:
    """Keys and values of 64 MiB."""

    def large() -> dict[int, weakref.ref[torch.Tensor]]:
        gc.unfreeze()
        gc.collect()
        tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        return {id(one): weakref.ref(one) for one in tensors if one.untyped_storage().nbytes() > 1 << 24}

    others = large()  # of engines of other tests
    with scene.loaded(scene.checkpoint(scene.save(tmp_path, "internvl")), "vllm") as model:
        answers(model, UNITS, LOGITS)
        held = [reference for key, reference in large().items() if key not in others]
        assert held
    assert not [reference for reference in held if reference() is not None]


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scene.save(tmp_path / "model", "internvl")
    (folder / "video_preprocessor_config.json").unlink()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with scene.loaded(scene.checkpoint(folder), "vllm") as model:
        (work,) = (tmp_path / "temporary").glob("emit-vllm-*")
        assert (work / "video_preprocessor_config.json").is_file()
        answers(model, UNITS, LOGITS)
    assert not list((tmp_path / "temporary").glob("emit-vllm-*"))
    assert (folder / "model.safetensors").is_file()  # what was removed was a link


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene.save(tmp_path_factory.mktemp("internvl"), "internvl")


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"max_modellen": 3}, r"no argument 'max_modellen'; did you mean max_model_len\?"),
        ({"timeout_s": 3}, "no argument 'timeout_s'"),
        ({"dtype": "float16"}, "dtype cannot be chosen for vllm: pass --dtype"),
        ({"device_map": "auto"}, "tensor_parallel_size=N"),
        (
            {"tensor_parallel_size": 3},
            r"does not start with model 'tiny': .* divisible by tensor parallel size",
        ),
        ({"data_parallel_size": 2}, r"does not start with model 'tiny': .*; pass --workers N"),
    ],
)
def test_arguments_that_do_not_fit_are_one_sentence(
    folder: Path, resources: dict[str, Any], told: str
) -> None:
    with (
        pytest.raises(BadInput, match=told),
        scene.loaded(scene.checkpoint(folder), "vllm", resources=resources),
    ):
        pass


def test_arguments_reach_the_engine(folder: Path) -> None:
    wanted = {"max_model_len": 128, "max_num_seqs": 3}
    with scene.loaded(scene.checkpoint(folder), "vllm", resources=wanted) as model:
        config = model.engine.llm_engine.vllm_config
        assert config.scheduler_config.max_num_seqs == 3
        assert config.model_config.max_model_len == 128
        assert "maximum context length is 128" in answers(model, UNITS, LOGITS)["group-0"].reason


def test_half_precision_is_the_requests(folder: Path) -> None:
    with scene.loaded(scene.checkpoint(folder), "vllm", dtype="bfloat16") as model:
        assert model.engine.llm_engine.model_config.dtype == torch.bfloat16


def test_what_this_installation_cannot_do_is_one_sentence(folder: Path) -> None:
    declared = scene.checkpoint(folder)
    for fields, told in (
        ({"quantize": "nf4"}, "--quantize nf4: vllm takes model 'tiny' as its checkpoint is"),
        ({"options": {"quantization": "awq"}}, "does not start with model 'tiny'"),
    ):
        with pytest.raises(BadInput, match=told), scene.loaded(declared, "vllm", **fields):
            pass


def test_a_broken_checkpoint_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    told = pytest.raises(BadInput, match="does not start with model 'tiny'")
    with told, scene.loaded(scene.checkpoint(tmp_path), "vllm"):
        pass
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
