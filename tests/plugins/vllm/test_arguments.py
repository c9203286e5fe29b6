"""What needs no vLLM: being missing, and choosing a GPU."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.checkpoint import fingerprint, load
from plugins.vllm_backend import emit_bench_backends
from plugins.vllm_backend.arguments import choose_gpu, engine_arguments
from tests.plugins.vllm import scene


def test_the_backend_says_whether_it_can_run() -> None:
    (spec,) = emit_bench_backends()
    missing = spec.available()
    assert spec.name == "vllm"
    assert (missing is None) == (find_spec("vllm") is not None)
    assert missing is None or "pip install 'emit-bench[vllm]'" in missing


def test_missing_vllm_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    declared = scene.checkpoint(scene.save(tmp_path, "internvl"))
    with pytest.raises(
        BadInput, match=r"model 'tiny' is to run on vllm, but .*emit-bench\[vllm\].*pass --backend"
    ):
        load(declared, LoadRequest(world="mini", backend="vllm"))


def test_the_fingerprint_needs_no_vllm_and_knows_the_precision(tmp_path: Path) -> None:
    declared = scene.checkpoint(scene.save(tmp_path, "internvl"))
    request = LoadRequest(world="mini", backend="vllm", device="cpu")
    found = fingerprint(declared, request)
    assert found["dtype"] == "float32" and len(found["weights"]) == 64
    half = LoadRequest(world="mini", backend="vllm", device="cpu", dtype="bfloat16")
    assert fingerprint(declared, half) != found


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return monkeypatch


@pytest.mark.parametrize(
    ("device", "worker", "parallel", "visible", "chosen"),
    [
        ("cuda:2", (0, 1), 1, "", "2"),
        ("cuda:1", (0, 1), 1, "3,5", "5"),
        ("cuda:1", (0, 1), 1, "GPU-a,GPU-b", "GPU-b"),
        ("auto", (0, 1), 1, "", ""),
        ("auto", (5, 6), 1, "", "1"),
        ("cuda", (1, 2), 1, "", "1"),
        ("auto", (1, 2), 2, "", ""),
    ],
)
def test_an_engine_sees_the_gpu_that_is_its(
    four_gpus: pytest.MonkeyPatch,
    device: str,
    worker: tuple[int, int],
    parallel: int,
    visible: str,
    chosen: str,
) -> None:
    four_gpus.setenv("CUDA_VISIBLE_DEVICES", visible)
    resources = {"tensor_parallel_size": parallel}
    choose_gpu(LoadRequest(world="real", backend="vllm", device=device, worker=worker, resources=resources))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen


def test_devices_that_are_not_there_are_one_sentence(four_gpus: pytest.MonkeyPatch) -> None:
    four_gpus.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(BadInput, match="'cuda:2' is not available: CUDA_VISIBLE_DEVICES lists 2"):
        choose_gpu(LoadRequest(world="real", device="cuda:2"))
    with pytest.raises(BadInput, match="device 'gpu' is unknown"):
        choose_gpu(LoadRequest(world="real", device="gpu"))


def test_arguments_of_the_user_stand_above_ours() -> None:
    request = LoadRequest(world="real", share_prefix=False, worker=(0, 2), resources={"enforce_eager": False})
    found = engine_arguments(request, True, dtype="float32")
    assert found["enforce_eager"] is False and found["dtype"] == "float32"
    assert found["enable_prefix_caching"] is False
    assert found["kv_cache_memory_bytes"] == 1 << 30
    assert "kv_cache_memory_bytes" not in engine_arguments(request, False)
