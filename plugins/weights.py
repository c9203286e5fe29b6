"""Where a model's weights lie, and the digest that names them.

A place is written as ``packaged:NAME`` (a folder of ``plugins/mini_weights``), ``trained:NAME`` (what
``emit-bench train NAME`` leaves in the current folder), a folder, or a hub id, of which
``OWNER/NAME@REVISION`` pins a revision. A folder may hold an adapter in peft's format; then it names the base
that it lies on. Only safetensors are loaded: a pickled checkpoint can run code, so a folder that holds
nothing else is refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from harness.cache import cache_root
from harness.errors import BadInput
from harness.jsonfiles import read_json, write_json
from harness.records import LoadRequest, World

PACKAGED = "packaged:"
TRAINED = "trained:"
#: Of an adapter folder; its ``base_model_name_or_path`` is a place like any other.
ADAPTER = "adapter_config.json"
MINI_WEIGHTS = Path(__file__).parent / "mini_weights"
BASE_TYPE = "internvl"  #: what adapters lie on
#: Whose training set a world's models are trained on, unless one is named: part of a training's folder.
_BENCHMARKS: Mapping[World, str] = {"mini": "mini", "real": "mmad"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(?:@[\w./-]+)?")
#: Files that decide an answer: weights, configuration, tokenizer, processor, chat template.
_DECISIVE = (".safetensors", ".json", ".jinja", ".txt", ".model")
#: And where a repository's own code may run.
_CODE = (".py", ".tiktoken")
_INDEX = "model.safetensors.index.json"
#: Left beside the weights by training and by editors; they decide nothing.
_IDLE = frozenset({"trainer_state.json", "training_args.json", "README.txt", "requirements.txt"})
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint folder that is complete enough to load."""

    folder: Path
    origin: str  #: as the user or the model plugin named it
    config: Mapping[str, Any]  #: its ``config.json``
    base: Weights | None = None  #: what the adapter in ``folder`` lies on; None for a whole checkpoint
    adapter: Path | None = None  #: a folder with an adapter that is laid on these
    code: bool = False  #: whether the folder's own code runs, and so decides answers too

    def parameters(self) -> int:
        """Number of parameters; of an adapter, those of what it lies on."""
        if self.base is not None:
            return self.base.parameters()
        return sum(_parameters(path) for path in sorted(self.folder.glob("*.safetensors")))

    def digest(self) -> str:
        """SHA-256 over names and contents of every file that decides an answer, in hex."""
        digest = _digest(self.folder, (*_DECISIVE, *_CODE) if self.code else _DECISIVE)
        if self.base is not None:
            digest = hashlib.sha256(f"{self.base.digest()}\n{digest}".encode()).hexdigest()
        if self.adapter is not None:
            digest = hashlib.sha256(f"{digest}\n{_digest(self.adapter)}".encode()).hexdigest()
        return digest


def _parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone; raises :class:`BadInput` where it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path} is damaged ({error}); get the checkpoint again") from error


def resolve(
    model: str,
    model_type: str,
    request: LoadRequest,
    defaults: Mapping[str, str],
    gigabytes: float = 0.0,
) -> Weights:
    """The weights that ``request`` asks for; a hub id is fetched when it is not on this machine.

    Args:
        model: id of the model, for messages.
        model_type: what the checkpoint's configuration must say.
        request: ``weights`` overrides the default of its world; ``adapter`` is laid on them.
        defaults: world -> place.
        gigabytes: size of the default weights of the real world, for messages; 0 where it is not known.

    Raises:
        BadInput: there are no such weights here, or of another type; the sentence says what to do.
    """
    place = request.weights or defaults.get(request.world)
    if place is None:
        raise BadInput(
            f"model {model!r} has no default weights for the {request.world} world; "
            f"pass --weights {model}=FOLDER"
        )
    size = f" (about {gigabytes:.0f} GB)" if gigabytes and place == defaults.get("real") else ""
    found = _resolve(model, model_type, place, request.world, size, code=request.trust_remote_code)
    if request.adapter is None:
        return found
    if found.base is not None:
        raise BadInput(f"weights of {model}: {place} is an adapter already; --adapter takes whole weights")
    return replace(found, adapter=_adapter(model, request.adapter, request.world))


def _resolve(
    model: str, model_type: str, place: str, world: World, size: str = "", *, code: bool = False
) -> Weights:
    folder = _folder(model, place, world)
    if folder is None:
        # The configuration first: a checkpoint of the wrong type is not worth sixteen gigabytes.
        first = _from_hub(model, place, ["config.json", ADAPTER], size)
        if not (first / ADAPTER).is_file():
            _config(model, model_type, place, first)
        suffixes = (*_DECISIVE, *_CODE) if code else _DECISIVE
        folder = _from_hub(model, place, [f"*{suffix}" for suffix in suffixes], size)
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        base = _resolve(model, model_type, _base_place(model, folder), world)
        return replace(base, origin=place, adapter=_adapter(model, place, world))
    config = _config(model, model_type, place, folder)
    hint = f"pass --weights {model}=FOLDER with a complete checkpoint"
    if not Path(place).expanduser().is_dir() and _HUB_ID.fullmatch(place):
        hint = f"{_download(place)} where the hub can be reached{size}"
    _check_files(model, place, folder, hint)
    base_of_ours = (
        _resolve(model, BASE_TYPE, _base_place(model, folder), world)
        if (folder / ADAPTER).is_file()
        else None
    )
    return Weights(folder, place, config, base_of_ours, code=code and "auto_map" in config)


def _adapter(model: str, place: str, world: World) -> Path:
    """The folder of a peft adapter."""
    folder = _folder(model, place, world, "adapter") or _from_hub(model, place, ["adapter_*"])
    for name in (ADAPTER, "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise BadInput(f"adapter of {model}: {place} holds no {name}; pass a folder that peft saved")
    return folder


def _base_place(model: str, folder: Path) -> str:
    """Where the base of an adapter lies."""
    record, _ = read_json(folder / ADAPTER)
    place = record.get("base_model_name_or_path") if isinstance(record, dict) else None
    if not (isinstance(place, str) and place):
        raise BadInput(
            f"weights of {model}: {folder / ADAPTER} names no base; write its folder or hub id under "
            "base_model_name_or_path"
        )
    return place


def _folder(model: str, place: str, world: World, what: str = "weights") -> Path | None:
    """The folder that ``place`` names, or None for a hub id."""
    if place.startswith(PACKAGED):
        return MINI_WEIGHTS / place.removeprefix(PACKAGED)
    if place.startswith(TRAINED):
        name = place.removeprefix(TRAINED)
        benchmark = _BENCHMARKS[world]
        folder = Path("runs") / f"train-{benchmark}-{name}" / "model"
        if not folder.is_dir():
            data = "" if world == "mini" else " --data DIR"
            small = f" ({PACKAGED}{name} is the miniature one)" if (MINI_WEIGHTS / name).is_dir() else ""
            raise BadInput(
                f"model {model!r} has not been trained here: there is no {folder}; run "
                f"`emit-bench train {name}{data}` first, or pass --weights {model}=FOLDER{small}"
            )
        return folder
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise BadInput(f"{what} of {model}: {place} is a file; pass the checkpoint's folder")
    if _HUB_ID.fullmatch(place):
        return None
    raise BadInput(
        f"{what} of {model}: {place} does not exist; pass an existing folder, a hub id OWNER/NAME or "
        f"{PACKAGED}NAME"
    )


def _from_hub(model: str, place: str, patterns: list[str], size: str = "") -> Path:
    """The local copy of a hub id, with the files that match."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _, revision = place.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except HFValidationError as error:
        raise BadInput(
            f"weights of {model}: {place} is neither a folder here nor a hub id; "
            f"pass --weights {model}=FOLDER"
        ) from error
    except (OSError, HfHubHTTPError) as error:
        # The hub's own sentences run over several lines and may quote a token's name.
        raise BadInput(
            f"weights of {model}: there is no folder {place} here, and as a hub id{size} it is not on this "
            f"machine and cannot be fetched; {_download(place)} where the hub can be reached, or pass "
            f"--weights {model}=FOLDER"
        ) from error


def _download(place: str) -> str:
    """The command that gets a hub id."""
    name, _, revision = place.partition("@")
    return f"run `hf download {name}{f' --revision {revision}' if revision else ''}`"


def _config(model: str, model_type: str, place: str, folder: Path) -> Mapping[str, Any]:
    """The checkpoint's configuration, which must be of the type wanted."""
    hint = f"pass --weights {model}=FOLDER with a complete checkpoint"
    if not folder.is_dir():
        shipped = ", ".join(sorted(path.name for path in MINI_WEIGHTS.glob("*/")))
        raise BadInput(
            f"weights of {model}: {place} is not part of this installation ({PACKAGED} has {shipped}); {hint}"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise BadInput(f"weights of {model}: {folder} holds no config.json; {hint}")
    config, _ = read_json(path)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise BadInput(
            f"weights of {model}: {place} is a checkpoint of type {found!r}, but {model_type!r} is needed; "
            f"pass --weights {model}=FOLDER with one of that type"
        )
    return cast(Mapping[str, Any], config)


def _check_files(model: str, place: str, folder: Path, hint: str) -> None:
    found = {path.name for path in folder.glob("*.safetensors")}
    if not found:
        raise BadInput(
            f"weights of {model}: {place} holds no .safetensors file (pickled weights are refused); {hint}"
        )
    if (folder / _INDEX).is_file():
        index, _ = read_json(folder / _INDEX)
        parts = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
            raise BadInput(f"weights of {model}: {folder / _INDEX} names no weight files; {hint}")
        missing = sorted(set(parts.values()) - found)
        if missing:
            raise BadInput(f"weights of {model}: {place} lacks {missing[0]}, which its index names; {hint}")


def _digest(folder: Path, suffixes: tuple[str, ...] = _DECISIVE) -> str:
    known = _known_digests()
    before = dict(known)
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in suffixes and path.name not in _IDLE and path.is_file():
            total.update(f"{path.name}\0{_file_digest(path, known)}\n".encode())
    if known != before:
        with contextlib.suppress(OSError, BadInput):  # without a cache it is only slower
            write_json(_memory(), known)
    return total.hexdigest()


def _file_digest(path: Path, known: dict[str, str]) -> str:
    """SHA-256 of a file, remembered under its path, size and time of change: 16 GB take half a minute."""
    real = path.resolve()
    stat = real.stat()
    key = f"{real}|{stat.st_size}|{stat.st_mtime_ns}"
    if key not in known:
        digest = hashlib.sha256()
        with real.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        for stale in [other for other in known if other.startswith(f"{real}|")]:
            del known[stale]
        known[key] = digest.hexdigest()
    return known[key]


def _memory() -> Path:
    return cache_root() / "weights.json"


def _known_digests() -> dict[str, str]:
    try:
        content = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError, BadInput):  # none yet, damaged, or no cache: it is computed again
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}
