"""The Hugging Face processor of a checkpoint folder, for images and text only, with or without torchvision.

transformers cannot build the processors of models that also see videos without torchvision, for a slot stays
empty; Pixtral's is hidden altogether. Nothing here needs videos: the classes below are the library's own less
that slot, and keep their names, so that a folder saved from here loads in plain transformers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import BadInput

#: Model type -> class in transformers; EMIT's own is in :mod:`emit_model`.
_CLASSES: Mapping[str, str] = {
    "internvl": "InternVLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "glm4v": "Glm4vProcessor",
    "llava_onevision": "LlavaOnevisionProcessor",
    "llava": "LlavaProcessor",
    "gemma3": "Gemma3Processor",
}
#: What resizes and normalises images. torchvision rounds otherwise, and a score may not depend on what else
#: is installed.
IMAGE_BACKEND = "pil"
_PIXTRAL = "transformers.models.pixtral."


def load_processor(folder: str | Path, model_type: str) -> Any:
    """The processor of a checkpoint folder; reads local files only.

    Args:
        folder: with tokenizer and processor files, as saved by transformers or published on the hub.
        model_type: as in the folder's ``config.json``. LLaVA's class serves two kinds of tower: the folder
            says which.

    Raises:
        BadInput: the model type has no processor here, or the folder's files are missing or broken.
    """
    folder = Path(folder)
    if model_type == "emit":
        from emit_model import load_processor as load

        return _read(load, folder)
    if model_type not in _CLASSES:
        raise BadInput(
            f"{folder} holds a model of type {model_type!r}, whose processor is not known here; "
            f"known are emit, {', '.join(_CLASSES)}"
        )
    name = _CLASSES[model_type]
    if model_type == "llava" and _is_pixtral(folder):
        name = "PixtralProcessor"
    processor = _read(_images_only(name).from_pretrained, folder)
    if name == "LlavaProcessor":
        _complete(processor, folder)
    return processor


def image_only(model_type: str, *, pixtral: bool = False) -> type[Any]:
    """The class that :func:`load_processor` makes, for building a processor from its parts.

    Args:
        model_type: one of the model types above, ``emit`` aside.
        pixtral: whether a ``llava`` model has Pixtral's tower.
    """
    return _images_only("PixtralProcessor" if pixtral else _CLASSES[model_type])


@cache
def _images_only(name: str) -> type[Any]:
    """A transformers processor class without its video slot, called as its parent is."""
    if name == "InternVLProcessor":  # made already, where the model is
        from emit_model import InternVLProcessor

        return InternVLProcessor
    import transformers

    parent: type[Any] = _pixtral() if name == "PixtralProcessor" else getattr(transformers, name)

    def get_attributes(cls: type[Any]) -> list[str]:
        return [part for part in super(made, cls).get_attributes() if part != "video_processor"]

    made: type[Any] = type(
        name,
        (parent,),
        {
            "__doc__": f"{name} for images and text only.",
            "__module__": __name__,
            "get_attributes": classmethod(get_attributes),
        },
    )
    return made


def _pixtral() -> type[Any]:
    """Pixtral's processor class.

    Its module takes one function from the torchvision image processor's module. The Pillow one has the same
    function by the same name, and stands in while the module is first imported: then all is as it was.
    """
    from transformers.utils.import_utils import is_torchvision_available

    wanted, given = f"{_PIXTRAL}image_processing_pixtral", f"{_PIXTRAL}image_processing_pil_pixtral"
    module = f"{_PIXTRAL}processing_pixtral"
    if is_torchvision_available() or module in sys.modules:
        return _class(module)
    sys.modules[wanted] = import_module(given)
    try:
        return _class(module)
    finally:
        del sys.modules[wanted]


def _class(module: str) -> type[Any]:
    found: type[Any] = import_module(module).PixtralProcessor
    return found


def _is_pixtral(folder: Path) -> bool:
    """Whether a LLaVA folder's tower is Pixtral's: its processor's name says it, else the tower's type."""
    for file in ("processor_config.json", "preprocessor_config.json"):
        named = _json(folder / file).get("processor_class")
        if named:
            return bool(named == "PixtralProcessor")
    return _tower(folder).get("model_type") == "pixtral"


def _complete(processor: Any, folder: Path) -> None:
    """Fill in what early LLaVA checkpoints leave to the model's configuration: an image's count of tokens."""
    if processor.patch_size is None:
        processor.patch_size = _tower(folder).get("patch_size")
    if processor.vision_feature_select_strategy is None:
        strategy = _json(folder / "config.json").get("vision_feature_select_strategy", "default")
        processor.vision_feature_select_strategy = strategy


def _tower(folder: Path) -> Mapping[str, Any]:
    tower = _json(folder / "config.json").get("vision_config")
    return tower if isinstance(tower, dict) else {}


def _json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} is no readable JSON ({error}); get the checkpoint again") from None
    return content if isinstance(content, dict) else {}


def _read(load: Any, folder: Path) -> Any:
    if not folder.is_dir():
        raise BadInput(f"{folder} is no checkpoint folder; pass --weights NAME=PATH")
    try:
        # Never a repository's own code; unless told so, transformers would ask on the terminal.
        return load(folder, local_files_only=True, trust_remote_code=False, backend=IMAGE_BACKEND)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"the processor of {folder} does not load ({cause}); "
            "the folder needs the tokenizer's and the processor's files"
        ) from error
