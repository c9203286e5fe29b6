"""``models --check``: what would run here, what is missing, and how much memory it would take.

Reads a checkpoint's configuration and makes its processor, which is where most installations fail; weights
are neither read nor fetched. What is not on this machine is looked for in the hub's local cache only.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from harness.errors import BadInput
from harness.hookspecs import ENTRY_POINT_GROUP
from harness.records import LoadRequest
from plugins.checkpoint import BACKENDS, Checkpoint
from plugins.weights import TRAINED

#: Bytes of a parameter. 4-bit weights come with scales, and some layers stay precise.
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "nf4": 0.7}
#: Keys, values, features and a batch's activations, for eight image pairs of five tiles each, in 10^9 bytes.
_WORKING = 6.0


def check(checkpoint: Checkpoint, request: LoadRequest) -> dict[str, str]:
    """One row of the list.

    Returns:
        ``runs``: backends with commas, of those that are installed, and ``server`` where an address is given;
        ``weights``: where they lie; ``memory``: estimated gigabytes; ``missing``: one sentence, or empty.
    """
    here = [backend for backend in checkpoint.backends if _usable(backend, request)]
    place = request.weights or checkpoint.weights.get(request.world) or "-"
    parameters, missing = checkpoint.billions, ""
    try:
        weights = _local(checkpoint, request)
        parameters = weights.parameters() / 1e9
        _try_processor(checkpoint, weights)
    except BadInput as error:
        here = [backend for backend in here if backend == "server"]
        missing = _short(checkpoint, request, place, error)
    if checkpoint.remote_code and not request.trust_remote_code and "transformers" in here:
        here.remove("transformers")
        missing = "transformers needs --trust-remote-code for it"
    return {
        "runs": ", ".join(here) or "nothing",
        "weights": place,
        "memory": _memory(parameters, request),
        "missing": missing,
    }


def _short(checkpoint: Checkpoint, request: LoadRequest, place: str, error: BadInput) -> str:
    """What is missing, as short as a line of the list wants it."""
    if request.weights is None and place.startswith(TRAINED):
        data = "" if request.world == "mini" else " --data DIR"
        return f"not trained here: emit-bench train {place.removeprefix(TRAINED)}{data}"
    if request.weights is None and request.adapter is None and "as a hub id" in str(error):
        size = f" (about {2 * checkpoint.billions:.0f} GB)" if checkpoint.billions else ""
        return f"not on this machine{size}: hf download {place}"
    return str(error)


def _usable(backend: str, request: LoadRequest) -> bool:
    if backend == "server" and not request.resources.get("base_urls"):
        return False
    return _lacking(backend) is None


def _local(checkpoint: Checkpoint, request: LoadRequest) -> Any:
    """The weights, if they are on this machine."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True  # looking must not begin a download
    try:
        return checkpoint.resolve(request)
    finally:
        constants.HF_HUB_OFFLINE = offline


def _try_processor(checkpoint: Checkpoint, weights: Any) -> None:
    if checkpoint.remote_code:
        return  # its processor is remote code too
    from transformers.utils import logging

    from plugins.processors import load_processor

    logging.set_verbosity_error()
    load_processor((weights.base or weights).folder, checkpoint.model_type)


def _lacking(backend: str) -> str | None:
    """What a backend lacks here."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.value == BACKENDS[backend]:
            (spec,) = point.load().emit_bench_backends()
            lacking: str | None = spec.available()
            return lacking
    return "it is not installed"


def _memory(billions: float, request: LoadRequest) -> str:
    if not billions:
        return "-"
    kind = request.quantize or ("bfloat16" if request.dtype == "auto" else request.dtype)
    working = _WORKING if billions > 1 else 0.5
    return f"{billions * _BYTES.get(kind, 2.0) + working:.1f} GB"
