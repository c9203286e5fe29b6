"""``models --check``: what would run here, what is missing, and how much memory it would take.

Reads a checkpoint's configuration and makes its processor, which is where most installations fail; weights
are neither read nor fetched. What is not on this machine is looked for in the hub's local cache only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.backends import lacking
from plugins.weights import TRAINED, Weights

#: Bytes of a parameter. 4-bit weights come with scales, and some layers stay precise.
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "nf4": 0.7}
#: Keys, values, features and a batch's activations, for eight image pairs of five tiles each, in 10^9 bytes.
_WORKING = 6.0


class Declared(Protocol):
    """What is asked of a model's declaration (:class:`plugins.checkpoint.Checkpoint`)."""

    @property
    def model_type(self) -> str:
        """What the weights' configuration must say."""

    @property
    def weights(self) -> Mapping[str, str]:
        """World -> place."""

    @property
    def billions(self) -> float:
        """Parameters, in 10^9; 0 if not known."""

    @property
    def backends(self) -> tuple[str, ...]:
        """What it can run on."""

    @property
    def remote_code(self) -> bool:
        """Whether its repository's code would have to run."""

    def resolve(self, request: LoadRequest) -> Weights:
        """Its weights; raises :class:`BadInput` when they are missing."""


def check(checkpoint: Declared, request: LoadRequest) -> dict[str, str]:
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


def _short(checkpoint: Declared, request: LoadRequest, place: str, error: BadInput) -> str:
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
    return lacking(backend) is None


def _local(checkpoint: Declared, request: LoadRequest) -> Any:
    """The weights, if they are on this machine."""
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True  # looking must not begin a download
    try:
        return checkpoint.resolve(request)
    finally:
        constants.HF_HUB_OFFLINE = offline


def _try_processor(checkpoint: Declared, weights: Any) -> None:
    if checkpoint.remote_code:
        return  # its processor is remote code too
    from transformers.utils import logging

    from plugins.processors import load_processor

    logging.set_verbosity_error()
    load_processor((weights.base or weights).folder, checkpoint.model_type)


def _memory(billions: float, request: LoadRequest) -> str:
    if not billions:
        return "-"
    kind = request.quantize or ("bfloat16" if request.dtype == "auto" else request.dtype)
    working = _WORKING if billions > 1 else 0.5
    return f"{billions * _BYTES.get(kind, 2.0) + working:.1f} GB"
