"""The backend ``transformers``: models run in this process, one image pair at a time.

A model plugin of the InternVL family declares a :class:`Checkpoint`; this module makes its registry entry.
What runs lies beside it: prompts and the prefix they share (``engine_prompts``), images and their cache
(``engine_images``), prefill and decoding (``engine_decode``), and the model that joins them
(``engine_model``; ``engine_emit`` for EMIT). Nothing heavy is imported before a model loads.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.hookspecs import BackendSpec, ModelSpec, hookimpl
from harness.records import LoadRequest, Model
from plugins.weights import Weights, resolve

if TYPE_CHECKING:
    import torch

BACKEND = "transformers"


@dataclass(frozen=True)
class Checkpoint:
    """What a model plugin says about its model."""

    id: str
    title: str
    family: str
    summary: str
    model_type: str  #: ``internvl`` or ``emit``: what the weights' configuration must say
    weights: Mapping[str, str]  #: world -> place, see :mod:`plugins.weights`
    tiles: Mapping[str, int]  #: world -> most tiles an image is cut into; 1 is the whole image only
    scale: Mapping[str, str] = field(default_factory=dict)  #: world -> parameters
    #: Fields of ``contrast`` that replace the checkpoint's own: ablations.
    contrast: Mapping[str, Any] = field(default_factory=dict)

    def spec(self) -> ModelSpec:
        """The registry's entry for it."""
        return ModelSpec(
            id=self.id,
            title=self.title,
            family=self.family,
            summary=self.summary,
            load=partial(load, self),
            fingerprint=partial(fingerprint, self),
            backends=(BACKEND,),
            weights=self.weights,
            scale=self.scale,
            measure=lambda request: self.resolve(request).parameters(),
        )

    def resolve(self, request: LoadRequest) -> Weights:
        """Its weights; raises :class:`BadInput` when they are missing or of another kind of model."""
        return resolve(self.id, self.model_type, request, self.weights)


def fingerprint(checkpoint: Checkpoint, request: LoadRequest) -> Mapping[str, Any]:
    """What makes the answers what they are; hashes the weights, loads nothing."""
    return {
        "weights": checkpoint.resolve(request).digest(),
        "model_type": checkpoint.model_type,
        "tiles": checkpoint.tiles[request.world],
        "contrast": dict(checkpoint.contrast),
        "dtype": _precision(request),
    }


def load(checkpoint: Checkpoint, request: LoadRequest) -> Model:
    """Read the weights and put the model on its device.

    Raises:
        BadInput: weights are missing or broken, or device or dtype cannot be had.
    """
    if request.backend != BACKEND:
        raise BadInput(
            f"model {checkpoint.id!r} runs on backend {BACKEND!r} only, not on {request.backend!r}"
        )
    weights = checkpoint.resolve(request)

    device = pick_device(request.device)

    from plugins.engine_load import read_checkpoint

    model, processor = read_checkpoint(
        checkpoint.id, checkpoint.model_type, weights, device, pick_dtype(request.dtype, device)
    )
    tiles, share = checkpoint.tiles[request.world], request.share_prefix
    if checkpoint.model_type == "emit":
        from plugins.engine_emit import EmitModel

        model.config.comparison = model.config.comparison.replaced(**checkpoint.contrast)
        return EmitModel(model, processor, tiles=tiles, share_prefix=share)

    from plugins.engine_model import SharedPrefixModel

    return SharedPrefixModel(model, processor, tiles=tiles, share_prefix=share)


def pick_device(name: str) -> torch.device:
    """A device by name; ``auto`` is CUDA when there is one, else the CPU."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {name!r} is not available: this torch sees no CUDA GPU; use --device cpu")
    return device


def _precision(request: LoadRequest) -> str:
    """The dtype that loading will pick: ``auto`` differs between machines, and so do the answers.

    Nothing heavy is imported where a GPU is out of the question: a finished run is read without torch.
    """
    if request.dtype != "auto" or request.device == "cpu":
        return "float32" if request.dtype == "auto" else request.dtype
    if request.device == "auto" and not _may_have_gpu():
        return "float32"
    return str(pick_dtype("auto", pick_device(request.device))).removeprefix("torch.")


def _may_have_gpu() -> bool:
    """False where torch cannot find a GPU: it is a build for CPUs, or there is no CUDA driver."""
    try:
        build = metadata.version("torch").partition("+")[2]
        if build == "cpu" or build.startswith("rocm"):
            return build != "cpu"
        ctypes.CDLL("libcuda.so.1" if sys.platform != "win32" else "nvcuda.dll")
    except (metadata.PackageNotFoundError, OSError):
        return False
    return True


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """A dtype by name; ``auto`` is float32 on the CPU and bfloat16 elsewhere."""
    import torch

    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in names:
        raise BadInput(f"dtype {name!r} is unknown; use auto, {', '.join(names)}")
    return names[name]


def _missing() -> str | None:
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            return f"{package} is not installed; install it with `pip install {package}`"
    return None


@hookimpl
def emit_bench_backends() -> list[BackendSpec]:
    """The backend of this module."""
    return [
        BackendSpec(BACKEND, "Hugging Face transformers in this process, on CPU or one GPU.", _missing),
    ]
