"""Gemma 3: the tokens of an image see each other, and most layers slide (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint

MODEL = Checkpoint(
    id="gemma-3",
    title="Gemma-3",
    family="gemma-3",
    summary="A general model; every image is 256 tokens.",
    model_type="gemma3",
    weights={"real": "google/gemma-3-12b-it"},
    scale={"real": "12B"},
    billions=12.2,
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
