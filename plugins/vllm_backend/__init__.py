"""The backend ``vllm``: models run in vLLM's engine, in this process, with many requests on their way.

How an engine is started lies in ``starting`` and its arguments in ``arguments``; which checkpoint goes into
it in ``loading``; what it is sent in ``inputs``; how groups become requests and outputs become responses in
``model``. Most models run in it whole. Of those that vLLM would show images otherwise, their own code looks
at the images, and vLLM runs the language model alone (``decoder``). Nothing heavy is imported before a
model loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from harness.errors import BadInput
from harness.hookspecs import BackendSpec, hookimpl
from harness.records import LoadRequest, Model
from plugins.checkpoint import Checkpoint, decides
from plugins.engine import precision

BACKEND = "vllm"
#: Engine arguments that change answers by more than rounding; the others are a matter of the machine.
DECIDING = ("hf_overrides", "kv_cache_dtype", "load_format", "model_impl", "quantization")
#: ``model_type`` -> why vLLM is given embeddings of the whole prompt instead of text and images.
EMBEDDED: Mapping[str, str] = {
    "emit": "the heat map and the soft prompt are no part of any model that vLLM knows",
    "llava_onevision": "vLLM cuts images into tiles also beside others, and the model's own code does not",
}
#: ``model_type`` -> why a CPU cannot run it.
NEEDS_GPU: Mapping[str, str] = {
    "gemma3": "tokens of an image see each other, and vLLM's attention on CPUs does not let them",
}


def fingerprint(checkpoint: Checkpoint, request: LoadRequest) -> Mapping[str, Any]:
    """What makes the answers what they are; hashes the weights, loads nothing."""
    return {**decides(checkpoint, request), "dtype": precision(request)}


def load(checkpoint: Checkpoint, request: LoadRequest) -> Model:
    """Start an engine with the model in it.

    Raises:
        BadInput: vLLM is missing or refuses, weights are missing or broken, or an argument is not its.
    """
    from plugins.vllm_backend.arguments import check_names, choose_gpu
    from plugins.vllm_backend.starting import import_vllm

    weights = checkpoint.resolve(request)
    choose_gpu(request)
    vllm = import_vllm(f"model {checkpoint.id!r} is to run on vllm", "--backend transformers")
    check_names(request)

    from plugins.vllm_backend.loading import load_embedded, load_whole

    if checkpoint.model_type in EMBEDDED:
        return load_embedded(vllm, checkpoint, request, weights)
    return load_whole(vllm, checkpoint, request, weights)


def refuse_cpu(checkpoint: Checkpoint) -> None:
    """Raises :class:`BadInput` for a model that would answer otherwise on a CPU than on a GPU."""
    reason = NEEDS_GPU.get(checkpoint.model_type)
    if reason:
        raise BadInput(
            f"model {checkpoint.id!r} needs a GPU on the backend {BACKEND!r}: {reason}; "
            "pass --backend transformers"
        )


def _missing() -> str | None:
    if find_spec("vllm") is None:
        return (
            "vllm is not installed; install it with `pip install 'emit-bench[vllm]'` "
            "in an environment of its own"
        )
    return None


@hookimpl
def emit_bench_backends() -> list[BackendSpec]:
    """The backend of this module."""
    return [
        BackendSpec(
            BACKEND,
            "vLLM's engine in this process, with many requests at a time.",
            _missing,
            deciding=DECIDING,
            arguments=None,
        )
    ]
