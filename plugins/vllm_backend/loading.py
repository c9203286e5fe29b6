"""From a family's declaration to an engine with its model in it: whole, or as a decoder on embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from harness.errors import BadInput
from harness.jsonfiles import read_json, write_json
from harness.records import LoadRequest
from plugins.checkpoint import Checkpoint
from plugins.engine import pick_device, pick_dtype, precision
from plugins.engine.model import end_ids
from plugins.engine.reading import read_checkpoint
from plugins.processors import load_processor
from plugins.vllm_backend import refuse_cpu
from plugins.vllm_backend.arguments import MOST_IMAGES, engine_arguments
from plugins.vllm_backend.decoder import ON_EMBEDDINGS, drop_decoder, export_decoder
from plugins.vllm_backend.inputs import EmbeddedInputs, GemmaInputs, WholeInputs
from plugins.vllm_backend.model import VllmModel
from plugins.vllm_backend.starting import on_cpu, start
from plugins.weights import Weights

#: ``model_type`` -> what processes its videos: vLLM starts with no less, though none are shown. Folders that
#: were saved where there is no torchvision name none.
_FILMS: Mapping[str, str] = {
    "internvl": "InternVLVideoProcessor",
    "qwen2_5_vl": "Qwen2VLVideoProcessor",
    "glm4v": "Glm4vVideoProcessor",
}
_FILM_FILE = "video_preprocessor_config.json"
#: Share of a GPU's memory for the engine where the images are encoded beside it.
_BESIDE = 0.85


def load_whole(vllm: Any, checkpoint: Checkpoint, request: LoadRequest, weights: Weights) -> VllmModel:
    """A model that vLLM runs with its vision tower.

    Raises:
        BadInput: it cannot run here, or vLLM refuses.
    """
    cpu = _check_device(request)
    if cpu:
        refuse_cpu(checkpoint)
    if request.quantize:
        raise BadInput(
            f"--quantize {request.quantize}: vllm takes model {checkpoint.id!r} as its checkpoint is; pass a "
            "quantised checkpoint by --weights, or --backend transformers"
        )
    transformers.utils.logging.set_verbosity_error()
    images = checkpoint.images.get(request.world, {})
    processor = _processor(checkpoint, request, weights)
    arguments = engine_arguments(
        request,
        cpu,
        dtype=precision(request),
        # As the transformers backend does: torchvision rounds otherwise.
        mm_processor_kwargs={**({} if checkpoint.remote_code else {"use_fast": False}), **images},
        limit_mm_per_prompt={"image": MOST_IMAGES, "video": 0},
    )
    work = TemporaryDirectory(prefix="emit-vllm-")
    try:
        folder = _complete(checkpoint, request, weights, processor, Path(work.name))
        engine = start(vllm, checkpoint.id, folder, arguments)
    except BaseException:
        work.cleanup()
        raise
    for file in Path(work.name).glob("*.safetensors"):
        file.unlink()  # they are in memory now
    write = GemmaInputs if checkpoint.model_type == "gemma3" else WholeInputs
    ends = _ends(weights.folder, processor)
    return VllmModel(engine, write(processor, checkpoint.chat), ends, checkpoint.chat, work)


def load_embedded(vllm: Any, checkpoint: Checkpoint, request: LoadRequest, weights: Weights) -> VllmModel:
    """A model whose own code looks at the images, and whose language model vLLM runs.

    Raises:
        BadInput: the checkpoint is broken, or vLLM refuses.
    """
    cpu = _check_device(request)
    device = torch.device("cpu") if cpu else pick_device("cuda")
    dtype = pick_dtype(precision(request), device)
    model, processor = read_checkpoint(
        checkpoint.id, checkpoint.model_type, weights, torch.device("cpu"), dtype, quantize=request.quantize
    )
    if checkpoint.contrast:
        model.config.comparison = model.config.comparison.replaced(**checkpoint.contrast)
    ends = end_ids(model, processor)
    with TemporaryDirectory(prefix="emit-vllm-") as work:
        folder = export_decoder(model, Path(work) / "decoder")
        drop_decoder(model)
        model.eval().to(device)
        share = {} if cpu else {"gpu_memory_utilization": _BESIDE}
        arguments = engine_arguments(request, cpu, dtype=precision(request), **ON_EMBEDDINGS, **share)
        engine = start(vllm, checkpoint.id, folder, arguments)
    images = checkpoint.images.get(request.world, {})
    inputs = EmbeddedInputs(model, processor, images, checkpoint.chat, dtype)
    return VllmModel(engine, inputs, ends, checkpoint.chat)


def _check_device(request: LoadRequest) -> bool:
    """Whether all is on the CPU: that is a matter of the installed vLLM alone."""
    cpu = on_cpu()
    if cpu and request.device not in ("auto", "cpu"):
        raise BadInput(
            f"device {request.device!r}: the vllm that is installed computes on the CPU; pass --device cpu"
        )
    if not cpu and request.device == "cpu":
        raise BadInput("device 'cpu': the vllm that is installed computes on a GPU; pass --device auto")
    return cpu


def _processor(checkpoint: Checkpoint, request: LoadRequest, weights: Weights) -> Any:
    if not checkpoint.remote_code:
        return load_processor(weights.folder, checkpoint.model_type)
    if not request.trust_remote_code:
        raise BadInput(
            f"model {checkpoint.id!r} has a tokenizer and processor of its repository's own: pass "
            "--trust-remote-code to run them, or --backend server"
        )
    try:
        return transformers.AutoProcessor.from_pretrained(
            weights.folder, trust_remote_code=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"weights of {checkpoint.id}: its own processor does not load ({reason})") from error


def _ends(folder: Path, processor: Any) -> frozenset[int]:
    """What ends an answer, as transformers reads it from a checkpoint."""
    try:
        config = transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        config = None
    return end_ids(SimpleNamespace(generation_config=config), processor)


def _complete(
    checkpoint: Checkpoint, request: LoadRequest, weights: Weights, processor: Any, work: Path
) -> Path:
    """The checkpoint's folder, or ``work`` with what vLLM misses in it: an adapter merged, a file."""
    if weights.adapter is not None:
        dtype = pick_dtype(precision(request), torch.device("cpu"))
        model, _ = read_checkpoint(checkpoint.id, checkpoint.model_type, weights, torch.device("cpu"), dtype)
        model.save_pretrained(work)
        _as_published(work)
        _link(weights.folder, work, lambda name: not name.startswith("model") and name != "config.json")
    lacks_films = checkpoint.model_type in _FILMS and not _has_films(weights.folder)
    if lacks_films:
        if weights.adapter is None:
            _link(weights.folder, work, lambda name: True)
        images = processor.image_processor
        films: dict[str, Any] = {"video_processor_type": _FILMS[checkpoint.model_type]}
        if checkpoint.model_type == "glm4v":
            films["size"] = dict(images.size)
        write_json(work / _FILM_FILE, films)
    return work if lacks_films or weights.adapter is not None else weights.folder


def _has_films(folder: Path) -> bool:
    if (folder / _FILM_FILE).is_file():
        return True
    file = folder / "processor_config.json"
    config = read_json(file)[0] if file.is_file() else {}
    return isinstance(config, dict) and "video_processor" in config


def _link(source: Path, target: Path, wanted: Any) -> None:
    """Show the files of one folder in another."""
    for file in source.iterdir():
        if file.is_file() and wanted(file.name) and not (target / file.name).exists():
            try:
                (target / file.name).symlink_to(file.resolve())
            except OSError:  # a file system without links
                shutil.copy2(file, target / file.name)


def _as_published(folder: Path) -> None:
    """Give SigLIP's weights the level that transformers no longer writes and that vLLM reads."""
    from safetensors.torch import load_file, save_file

    old, new = "vision_tower.", "vision_tower.vision_model."
    files = {path: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    if not any(name.startswith(f"{old}post_layernorm.") for tensors in files.values() for name in tensors):
        return
    for path, tensors in files.items():
        save_file(
            {name.replace(old, new): tensor for name, tensor in tensors.items()}, path, {"format": "pt"}
        )
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)  # vLLM does without
