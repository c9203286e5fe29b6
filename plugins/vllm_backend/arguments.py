"""The engine's arguments: ours by default, the user's by ``--backend-arg``, and those decided elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.engine import pick_device

#: What is decided elsewhere -> where.
_DECIDED: Mapping[str, str] = {
    "model": "pass --weights NAME=PATH",
    "tokenizer": "it is the checkpoint's own",
    "dtype": "pass --dtype",
    "seed": "pass --seed",
    "trust_remote_code": "pass --trust-remote-code",
    "enable_prefix_caching": "it follows whether prompts share their prefix",
    "mm_processor_kwargs": "the resolution is the model's own",
    "generation_config": "the protocol says how is decoded",
    "logprobs_mode": "option scores are those of the model as it is",
    "enable_prompt_embeds": "it is on where the model needs it",
    "skip_tokenizer_init": "it is on where the model allows it",
    "enable_mm_embeds": "images are sent as pixels",
    "runner": "models generate here",
    "convert": "models generate here",
    "device_map": "pass --backend-arg tensor_parallel_size=N",  # of the command line, for transformers
}
_CPU_CACHE_BYTES = 1 << 30
#: Images that a prompt may show; a question with more reference images than this fails.
MOST_IMAGES = 16


def given(request: LoadRequest) -> dict[str, Any]:
    """The arguments that the user passed."""
    return {**request.options, **request.resources}


def check_names(request: LoadRequest) -> None:
    """Raises :class:`BadInput` for an argument that vLLM does not have, or that is decided elsewhere."""
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    for name in given(request):
        if name in _DECIDED:
            raise BadInput(f"--backend-arg {name} cannot be chosen for vllm: {_DECIDED[name]}")
        if name not in known:
            close = get_close_matches(name, known - _DECIDED.keys(), n=1)
            hint = f"did you mean {close[0]}?" if close else "its documentation lists the engine's arguments"
            raise BadInput(f"vllm has no argument {name!r}; {hint}")


def engine_arguments(request: LoadRequest, on_cpu: bool, **chosen: Any) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` besides the checkpoint's folder.

    Args:
        request: as the user wants it; stands above our defaults.
        on_cpu: whether this vLLM computes on the CPU.
        chosen: what the way of running decides.
    """
    defaults: dict[str, Any] = {
        "max_model_len": -1,  # as long as the cache allows
        "enforce_eager": on_cpu,
        # On CPUs, seeds and prompts in pieces do not go together.
        "enable_chunked_prefill": not on_cpu,
        "disable_log_stats": True,
    }
    wanted = given(request)
    if on_cpu and "gpu_memory_utilization" not in wanted:
        # The share is only what must be free at the start; the bytes say what is taken.
        defaults |= {"kv_cache_memory_bytes": _CPU_CACHE_BYTES, "gpu_memory_utilization": 0.01}
    ours = {
        "seed": request.seed % (1 << 32),
        "trust_remote_code": request.trust_remote_code,
        "enable_prefix_caching": request.share_prefix,
        "generation_config": "vllm",  # nothing but the protocol decides how is decoded
        "logprobs_mode": "raw_logprobs",
        "use_tqdm_on_load": False,
    }
    return {**defaults, **chosen, **wanted, **ours}


def choose_gpu(request: LoadRequest) -> None:
    """Leave this process the one GPU that it is to use; vLLM takes the first that it sees.

    ``--device cuda:1`` names it. Of several workers each takes another, in turn. Has to come before anything
    has touched a GPU.

    Raises:
        BadInput: the device is unknown or not to be had.
    """
    name, number = request.device, None
    if name.startswith("cuda:") and name.removeprefix("cuda:").isdigit():
        number = int(name.removeprefix("cuda:"))
    elif name in ("auto", "cuda") and given(request).get("tensor_parallel_size", 1) == 1:
        number = _by_turns(request.worker)
    if number is None:
        pick_device(name)
        return
    visible = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part]
    if visible and number >= len(visible):
        raise BadInput(f"device {name!r} is not available: CUDA_VISIBLE_DEVICES lists {len(visible)}")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    pick_device("cuda")


def _by_turns(worker: tuple[int, int]) -> int | None:
    """The GPU of one of several workers; None where there is nothing to choose."""
    if worker[1] < 2:
        return None
    import torch

    count = torch.cuda.device_count()  # asks the driver's library, and leaves the GPUs alone
    return worker[0] % count if count > 1 else None
