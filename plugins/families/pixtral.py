"""Pixtral: native resolution, a row of tokens for each row of patches (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint

MODEL = Checkpoint(
    id="pixtral",
    title="Pixtral",
    family="pixtral",
    summary="A general model with native resolution.",
    model_type="llava",
    weights={"real": "mistral-community/pixtral-12b"},
    scale={"real": "12B"},
    billions=12.7,
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
