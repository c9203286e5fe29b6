"""``manifest.json``: what a run was, so that somebody else can judge or repeat it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.jsonfiles import read_json, write_json

if TYPE_CHECKING:
    from harness.records import LoadRequest, World
    from harness.run_info import RunInfo
    from harness.specs import ModelSpec

FILE_NAME = "manifest.json"
FORMAT = 1
_UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"), (1, ""))
#: What is read back, and as what.
_READ: dict[str, type] = {"status": str, "benchmark": dict, "protocol": dict, "models": dict}
_PACKAGES = ("emit-bench", "torch", "transformers", "tokenizers", "numpy", "pillow", "jinja2", "vllm")


def describe_run(run: RunInfo) -> dict[str, Any]:
    """The manifest of a run that starts now."""
    benchmark = run.benchmark
    return {
        "format": FORMAT,
        "status": "running",
        "started": _now(),
        "finished": None,
        "command": list(run.command),
        "seed": run.seed,
        "limit": run.limit,
        "max_failed": run.max_failed,
        **({"variant": dict(run.variant)} if run.variant else {}),
        "benchmark": {
            "name": benchmark.name,
            "world": benchmark.world,
            "root": str(benchmark.root),
            "digest": benchmark.digest,
            "images": len(run.items),
            "questions": sum(len(item.questions) for item in run.items),
            "without_knowledge": list(run.without_knowledge),
            "substituted_references": run.substituted_references,
        },
        "protocol": {"digest": run.protocol.digest, **asdict(run.protocol)},
        "models": {},
        "versions": {"python": platform.python_version(), **versions()},
        "git": _git(),
        "machine": _machine(),
    }


def describe_model(
    run: RunInfo, model: str, digest: str, counts: Mapping[str, Any], counters: Mapping[str, float]
) -> dict[str, Any]:
    """A model's part of the manifest: what it is, how it was loaded, and the exact work it did."""
    spec = next(spec for spec in run.models if spec.id == model)
    request = run.requests[model]
    served = run.fingerprints[model].get("served")
    return {
        "title": spec.title,
        "family": spec.family,
        "scale": _scale(spec, request, served),
        "weights_of": None if served else world_of_weights(spec, request),
        "digest": digest,
        "fingerprint": dict(run.fingerprints[model]),
        "weights": served or request.weights or spec.weights.get(request.world),
        "backend": request.backend if spec.backends else None,
        "device": request.device,
        "dtype": request.dtype,
        "share_prefix": request.share_prefix,
        "adapter": request.adapter,
        "quantize": request.quantize,
        "options": dict(request.options),
        "labour": asdict(run.labour),
        **counts,
        "counters": dict(counters),
    }


def _scale(spec: ModelSpec, request: LoadRequest, served: str | None = None) -> str:
    """Parameters as a table prints them: of default weights what the model says, of others their number."""
    if served is not None:
        return spec.scale.get("real", "-") if served == spec.weights.get("real") else "-"
    world = world_of_weights(spec, request)
    count = spec.measure(request) if world is None and spec.measure is not None else None
    if count is not None:
        size, name = next((count / unit, name) for unit, name in _UNITS if count >= unit or unit == 1)
        return f"{size:.0f}{name}" if size >= 10 else f"{size:.2g}{name}"
    return spec.scale.get(world or request.world, "-")


def world_of_weights(spec: ModelSpec, request: LoadRequest) -> World | None:
    """The world whose default weights these are; None for any others."""
    owners: dict[str, Any] = {place: world for world, place in spec.weights.items()}
    found: World | None = owners.get(request.weights) if request.weights else request.world
    return found


def write_manifest(out: Path, manifest: Mapping[str, Any]) -> None:
    """Replace a run's manifest in one step."""
    write_json(out / FILE_NAME, manifest)


def read_manifest(out: Path) -> dict[str, Any]:
    """A run's manifest.

    Raises:
        BadInput: the folder is no run's, or its manifest is broken.
    """
    path = out / FILE_NAME
    if not path.is_file():
        raise BadInput(f"{out}: there is no {FILE_NAME}; name the folder of an `emit-bench run`")
    content, _ = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f"{path}: it is no manifest of format {FORMAT}; run the evaluation again")
    for name, kind in _READ.items():
        if not isinstance(content.get(name), kind):
            raise BadInput(f"{path}: {name} is missing or of the wrong kind; run the evaluation again")
    return content


def finish(manifest: dict[str, Any]) -> None:
    """Mark a manifest as that of a finished run."""
    manifest["status"] = "finished"
    manifest["finished"] = _now()
    manifest["machine"] = _machine()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Package -> version, of those that decide answers and are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git() -> dict[str, Any] | None:
    """Commit of the source tree this program runs from, if it is a checkout of its own."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _machine() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # described when a model brought it in, never imported for this
    accelerators: list[str] = []
    if torch is not None and torch.cuda.is_available():
        accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "accelerators": accelerators,
    }
