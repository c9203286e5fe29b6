"""The backend ``transformers``: models run in this process, a few image pairs at a time.

What runs lies beside it: prompts and the prefix they share (``prompts``), images and their cache
(``images``), what differs between model classes (``wiring``, ``emit``), prefill and decoding (``decode``,
``attention``), the model that joins them (``model``) and its self-test (``verify``). Nothing heavy is
imported before a model loads.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.hookspecs import BackendSpec, hookimpl
from harness.records import LoadRequest, Model
from plugins.checkpoint import Checkpoint, decides

if TYPE_CHECKING:
    import torch

BACKEND = "transformers"


def fingerprint(checkpoint: Checkpoint, request: LoadRequest) -> Mapping[str, Any]:
    """What makes the answers what they are; hashes the weights, loads nothing."""
    return {**decides(checkpoint, request), "dtype": precision(request)}


def load(checkpoint: Checkpoint, request: LoadRequest) -> Model:
    """Read the weights and put the model on its device.

    Raises:
        BadInput: weights are missing or broken, or device or dtype cannot be had.
    """
    if checkpoint.remote_code:
        from plugins.engine.plain import load_plain

        return load_plain(checkpoint, request)
    weights = checkpoint.resolve(request)
    _take_share(request)
    device = pick_device(request.device, request.worker)

    from plugins.engine.model import SharedPrefixModel
    from plugins.engine.reading import read_checkpoint

    model, processor = read_checkpoint(
        checkpoint.id,
        checkpoint.model_type,
        weights,
        device,
        pick_dtype(request.dtype, device),
        quantize=request.quantize,
        device_map=request.resources.get("device_map"),
    )
    if checkpoint.contrast:
        model.config.comparison = model.config.comparison.replaced(**checkpoint.contrast)
    return SharedPrefixModel(
        model,
        processor,
        images=checkpoint.images.get(request.world, {}),
        chat=checkpoint.chat,
        share_prefix=request.share_prefix,
        verify=request.verify_sharing,
    )


def _take_share(request: LoadRequest) -> None:
    """Of several workers on a machine each takes its part of the cores, unless the environment says how."""
    import os

    _, workers = request.worker
    if workers > 1 and "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def pick_device(name: str, worker: tuple[int, int] = (0, 1)) -> torch.device:
    """A device by name; ``auto`` is CUDA when there is one, else the CPU.

    Args:
        name: such as ``auto``, ``cpu``, ``cuda:1``.
        worker: number of a worker and how many there are; on ``auto`` or ``cuda`` they take GPUs in turn.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and worker[1] > 1 and torch.cuda.is_available():
        name = f"cuda:{worker[0] % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {name!r} is not available: this torch sees no CUDA GPU; use --device cpu")
    return device


def precision(request: LoadRequest) -> str:
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
        BackendSpec(
            BACKEND,
            "Hugging Face transformers in this process, on CPU or GPU.",
            _missing,
            arguments=("device_map",),
        ),
    ]
