"""LLaVA-OneVision: an image alone is cut into tiles, several are not (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint

MODEL = Checkpoint(
    id="llava-onevision",
    title="LLaVA-OneVision",
    family="llava-onevision",
    summary="A general model for one image, several, and video.",
    model_type="llava_onevision",
    weights={"real": "llava-hf/llava-onevision-qwen2-7b-ov-hf"},
    scale={"real": "7B"},
    billions=8.0,
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
