"""What a model plugin says about its model, and the registry's entry that this becomes.

A family is a short declaration: a :class:`Checkpoint` with the class of its weights, its resolution, and what
its chat is particular about. Everything that runs it is shared: the backends ``transformers``
(:mod:`plugins.engine`), ``vllm`` (:mod:`plugins.vllm_backend`) and ``server`` (:mod:`plugins.server`) each
load any checkpoint. Nothing heavy is imported before a model loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from harness.errors import BadInput
from harness.hookspecs import ModelSpec
from harness.records import LoadRequest, Model
from plugins.backends import BACKENDS, module_of
from plugins.checking import check
from plugins.weights import Weights, resolve


def tiled(tiles: int) -> dict[str, Any]:
    """Resolution of the InternVL family: so many tiles at most, and the whole image behind several."""
    return {"crop_to_patches": tiles > 1, "min_patches": 1, "max_patches": tiles}


def pixels(least: int, most: int) -> dict[str, Any]:
    """Resolution of the Qwen family, in pixels of a resized image."""
    return {"min_pixels": least, "max_pixels": most}


@dataclass(frozen=True)
class Chat:
    """What is particular about the chat of a family."""

    #: Tokens that carry meaning in an answer, such as GLM's box, although the tokenizer calls them special.
    keep: tuple[str, ...] = ()
    #: Answer mode -> what the answer is made to begin with: in ``logits`` mode a model that always thinks
    #: is asked behind an empty thought, for its first token would be no letter.
    opening: Mapping[str, str] = field(default_factory=dict)
    #: Answer mode -> token limit where the protocol's is lower: a model that thinks unasked needs room.
    room: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A model plugin's declaration."""

    id: str
    title: str
    family: str
    summary: str
    model_type: str  #: what the weights' configuration must say, such as ``internvl``
    weights: Mapping[str, str]  #: world -> place, see :mod:`plugins.weights`
    scale: Mapping[str, str] = field(default_factory=dict)  #: world -> parameters, as tables print them
    billions: float = 0.0  #: parameters of the default weights of the real world, in 10^9; 0 if not known
    #: World -> arguments of the image processor: the resolution. Missing worlds take the processor's own.
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    chat: Chat = Chat()
    backends: tuple[str, ...] = tuple(BACKENDS)
    #: transformers has no class of its own for it: the repository's code would have to run.
    remote_code: bool = False
    #: Fields of ``contrast`` that replace the checkpoint's own: ablations of EMIT.
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
            backends=self.backends,
            weights=self.weights,
            scale=self.scale,
            measure=lambda request: self.resolve(request).parameters(),
            check=partial(check, self),
        )

    def resolve(self, request: LoadRequest) -> Weights:
        """Its weights; raises :class:`BadInput` when they are missing or of another kind of model."""
        return resolve(self.id, self.model_type, request, self.weights, gigabytes=2 * self.billions)


def load(checkpoint: Checkpoint, request: LoadRequest) -> Model:
    """Load a model on the request's backend.

    Raises:
        BadInput: it does not run there, weights are missing or broken, or device or dtype cannot be had.
    """
    model: Model = _backend(checkpoint, request).load(checkpoint, request)
    return model


def fingerprint(checkpoint: Checkpoint, request: LoadRequest) -> Mapping[str, Any]:
    """What makes the answers what they are; loads nothing."""
    found: Mapping[str, Any] = _backend(checkpoint, request).fingerprint(checkpoint, request)
    return found


def _backend(checkpoint: Checkpoint, request: LoadRequest) -> Any:
    if request.backend not in checkpoint.backends:
        raise BadInput(
            f"model {checkpoint.id!r} does not run on the backend {request.backend!r}; "
            f"pass --backend {' or '.join(checkpoint.backends)}"
        )
    return module_of(request.backend)


def decides(checkpoint: Checkpoint, request: LoadRequest) -> dict[str, Any]:
    """The part of a fingerprint that is the same on every backend that reads weights; hashes them."""
    return {
        "weights": checkpoint.resolve(request).digest(),
        "model_type": checkpoint.model_type,
        "images": dict(checkpoint.images.get(request.world, {})),
        "chat": {name: value for name, value in asdict(checkpoint.chat).items() if value},
        "contrast": dict(checkpoint.contrast),
        "quantize": request.quantize,
    }
