"""Reading the tensors of a checkpoint in the released layout, with a LoRA adapter merged as they are read.

Nothing is unpickled and no code of the checkpoint runs. Tensors are read one by one, so that a checkpoint
larger than the memory can be converted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
#: What PEFT and the trainers put around a module's name; none of it is part of the name.
_WRAPPERS = re.compile(r"\.(?:modules_to_save|base_layer|default)(?=\.)")
#: Kinds of LoRA that change a weight by more than ``scale * B @ A``.
_OTHER_KINDS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
)


class Source(Protocol):
    """Where the tensors of a checkpoint come from."""

    @property
    def meta(self) -> Mapping[str, Tensor]:
        """Plain name -> shape and dtype, without the data."""

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored or, under an adapter, as it is adapted."""


def plain_name(stored: str) -> str:
    """A tensor's name without the wrappers of PEFT and of nested projectors.

    >>> plain_name("base_model.model.projector.modules_to_save.default.0.weight")
    'projector.0.weight'
    >>> plain_name("soft_prompt")
    'soft_prompt.weight'
    """
    name = _WRAPPERS.sub("", stored.removeprefix("base_model.model."))
    name = re.sub(r"^projector\.(?:projector\.)+", "projector.", name)
    return "soft_prompt.weight" if name == "soft_prompt" else name


def read_json(path: Path) -> dict[str, Any]:
    """An object from a checkpoint's JSON file; raises ValueError when there is none."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: there is no such folder; pass that of a whole checkpoint")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{path.parent}: there is no {path.name}; pass the folder of a whole checkpoint"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: it cannot be read as JSON; download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: it must hold a JSON object; download it again")
    return content


class Shards:
    """The tensors of one or several safetensors files, under their plain names.

    Args:
        files: of one checkpoint or adapter.

    Raises:
        ValueError: a file is damaged, or a tensor is there twice or quantised.
    """

    def __init__(self, files: list[Path]) -> None:
        self.meta: dict[str, Tensor] = {}
        self._places: dict[str, tuple[Any, str]] = {}
        for path in files:
            try:
                self._open(path)
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{path}: it cannot be read as safetensors ({str(error).splitlines()[0]}); "
                    "download it again"
                ) from error

    @classmethod
    def of_checkpoint(cls, folder: Path) -> Shards:
        """Those of a checkpoint folder, with or without an index."""
        return cls(_checkpoint_files(folder))

    def read(self, name: str) -> Tensor:
        """One tensor as it is stored."""
        file, stored = self._places[name]
        tensor: Tensor = file.get_tensor(stored)
        return tensor

    def _open(self, path: Path) -> None:
        file: Any = safe_open(path, framework="pt")
        for stored in file.keys():  # noqa: SIM118 - no mapping: it has nothing but this method
            name, part = plain_name(stored), file.get_slice(stored)
            dtype = _DTYPES.get(part.get_dtype())
            if dtype is None:
                raise ValueError(
                    f"{path}: {stored} is stored as {part.get_dtype()}; pass weights that are not quantised"
                )
            if name in self.meta:
                raise ValueError(f"{path}: {stored} is there twice; pass a folder with one checkpoint only")
            self.meta[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta")
            self._places[name] = (file, stored)


def _checkpoint_files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        found = sorted(path for path in folder.glob("*.safetensors") if path.name != ADAPTER)
        if found:
            return found
        if (folder / ADAPTER_CONFIG).is_file():
            raise ValueError(f"{folder}: it holds an adapter only; pass the checkpoint below it as well")
        raise ValueError(
            f"{folder}: it holds no .safetensors file (pickled weights are refused); pass the folder of a "
            "checkpoint saved as safetensors"
        )
    parts = read_json(folder / INDEX).get("weight_map")
    names = sorted({str(name) for name in parts.values()}) if isinstance(parts, dict) else []
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder}: there is no {name}, which {INDEX} names; download the shard")
    if not names:
        raise ValueError(f"{folder / INDEX}: it names no shards; download it again")
    return [folder / name for name in names]


@dataclass(frozen=True)
class _Lora:
    """What ``adapter_config.json`` says about rank and scale."""

    folder: Path
    rank: int
    alpha: float
    ranks: Mapping[str, int]  #: pattern of module names -> rank
    alphas: Mapping[str, float]
    rank_stabilised: bool

    @classmethod
    def read(cls, folder: Path) -> _Lora:
        config = read_json(folder / ADAPTER_CONFIG)
        if config.get("peft_type") != "LORA":
            raise ValueError(
                f"{folder}: the adapter is of type {config.get('peft_type')!r}; only LORA can be merged"
            )
        for key in _OTHER_KINDS:
            if config.get(key):
                raise ValueError(f"{folder}: {ADAPTER_CONFIG} sets {key}; only plain LoRA can be merged")
        rank, alpha = config.get("r"), config.get("lora_alpha")
        if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
            raise ValueError(
                f"{folder}: {ADAPTER_CONFIG} has r {rank!r} and lora_alpha {alpha!r}, which is no scale"
            )
        return cls(
            folder,
            rank,
            float(alpha),
            config.get("rank_pattern") or {},
            config.get("alpha_pattern") or {},
            bool(config.get("use_rslora")),
        )

    def rank_of(self, module: str) -> int:
        return int(_by_pattern(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        alpha = float(_by_pattern(self.alphas, module, self.alpha))
        return alpha / (rank**0.5 if self.rank_stabilised else rank)


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that ends a module's name, as PEFT looks it up."""
    for pattern, value in patterns.items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise ValueError(f"{ADAPTER_CONFIG}: {pattern!r} is no pattern of module names") from error
    return default


class Adapted:
    """A checkpoint with a LoRA adapter merged into it as its tensors are read.

    A weight under LoRA becomes ``W + scale * B @ A``, computed in float32 and stored in W's dtype; a tensor
    that the adapter holds whole (``modules_to_save``) takes the place of the checkpoint's.

    Args:
        base: the checkpoint.
        folder: of the adapter: ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        ValueError: the adapter is of another kind, or does not fit the checkpoint.
    """

    def __init__(self, base: Shards, folder: Path) -> None:
        settings = _Lora.read(folder)
        if not (folder / ADAPTER).is_file():
            raise ValueError(
                f"{folder}: there is no {ADAPTER} (pickled adapters are refused); save it as safetensors"
            )
        self._base, self._adapter = base, Shards([folder / ADAPTER])
        lora = {name for name in self._adapter.meta if ".lora_" in name}
        whole = {name: meta for name, meta in self._adapter.meta.items() if name not in lora}
        self.meta: dict[str, Tensor] = {**base.meta, **whole}
        self._whole = frozenset(whole)
        self._modules = self._pairs(lora, settings)

    def read(self, name: str) -> Tensor:
        """One tensor with what the adapter does to it."""
        if name in self._whole:
            return self._adapter.read(name)
        weight, found = self._base.read(name), self._modules.get(name)
        if found is None:
            return weight
        module, scale = found
        up, down = (self._adapter.read(f"{module}.lora_{half}.weight").float() for half in "BA")
        return (weight.float() + scale * (up @ down)).to(weight.dtype)

    def _pairs(self, lora: set[str], settings: _Lora) -> dict[str, tuple[str, float]]:
        """Weight -> the module that it belongs to, and its scale."""
        modules = sorted({name.split(".lora_")[0] for name in lora})
        halves = {f"{module}.lora_{half}.weight" for module in modules for half in "AB"}
        weights, folder = {f"{module}.weight" for module in modules}, settings.folder
        _refuse(folder, lora - halves, "tensor(s) are of another kind than plain LoRA")
        _refuse(folder, halves - lora, "LoRA tensor(s) are missing")
        _refuse(
            folder, weights - self._base.meta.keys(), "weight(s) that it adapts are not in the checkpoint"
        )
        misfits = {misfit for module in modules if (misfit := self._misfit(module, settings))}
        _refuse(folder, misfits, "LoRA pair(s) do not fit")
        return {f"{module}.weight": (module, settings.scale_of(module)) for module in modules}

    def _misfit(self, module: str, settings: _Lora) -> str | None:
        rank = settings.rank_of(module)
        down, up = (self._adapter.meta[f"{module}.lora_{half}.weight"].shape for half in "AB")
        weight = self._base.meta[f"{module}.weight"].shape
        if len(weight) == 2 and down == (rank, weight[1]) and up == (weight[0], rank):
            return None
        return f"{module}: A {tuple(down)} and B {tuple(up)} at rank {rank} on a weight {tuple(weight)}"


def _refuse(folder: Path, names: set[str], what: str) -> None:
    if names:
        raise ValueError(
            f"{folder}: of the adapter, {len(names)} {what}, such as {min(names)}; pass it whole and with "
            "the checkpoint that it was trained on"
        )
