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

#: Bytes of a parameter. 4-bit weights come with scales, and some layers stay precise.
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "nf4": 0.7}
#: Keys, values, features and a batch's activations, for eight image pairs of five tiles each, in 10^9 bytes.
_WORKING = 6.0


def check(checkpoint: Checkpoint, request: LoadRequest) -> dict[str, str]:
    """One row of the list.

    Returns:
        ``runs``: backends with commas; ``weights``: where they lie, or that they do not; ``memory``:
            estimated
        gigabytes; ``missing``: one sentence, or empty.
    """
    problems = []
    here = []
    for backend in checkpoint.backends:
        lacking = _lacking(backend)
        if lacking:
            problems.append(f"{backend}: {lacking}")
        else:
            here.append(backend)
    place = request.weights or checkpoint.weights.get(request.world) or "-"
    parameters = checkpoint.billions
    try:
        weights = _local(checkpoint, request)
        parameters = weights.parameters() / 1e9
        _try_processor(checkpoint, weights)
        place = str(weights.origin)
    except BadInput as error:
        here = [backend for backend in here if backend == "server"]
        problems.insert(0, str(error))
    if checkpoint.remote_code and not request.trust_remote_code and "transformers" in here:
        here.remove("transformers")
        problems.append("transformers: pass --trust-remote-code to run the repository's own code")
    return {
        "runs": ", ".join(here),
        "weights": place,
        "memory": _memory(parameters, request),
        "missing": "; ".join(problems),
    }


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
