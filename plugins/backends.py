"""The ways a checkpoint is run, each a plugin of its own: where it is, and whether it can run here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from harness.hookspecs import ENTRY_POINT_GROUP

#: Backend -> module with ``load`` and ``fingerprint``, both of (checkpoint, request).
BACKENDS: Mapping[str, str] = {
    "transformers": "plugins.engine",
    "vllm": "plugins.vllm_backend",
    "server": "plugins.server",
}


def module_of(backend: str) -> Any:
    """The module that runs checkpoints; imported only when one is loaded, for it may be heavy."""
    return import_module(BACKENDS[backend])


def lacking(backend: str) -> str | None:
    """What a backend lacks here, in a sentence; None if it can run."""
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.value == BACKENDS[backend]:
            (spec,) = point.load().emit_bench_backends()
            found: str | None = spec.available()
            return found
    return "it is not installed"
