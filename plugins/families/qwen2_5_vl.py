"""Qwen2.5-VL (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint, pixels

MODEL = Checkpoint(
    id="qwen2.5-vl",
    title="Qwen2.5-VL",
    family="qwen2.5-vl",
    summary="A general vision-language model with native resolution.",
    model_type="qwen2_5_vl",
    weights={"real": "Qwen/Qwen2.5-VL-7B-Instruct"},
    images={"real": pixels(256 * 28 * 28, 1280 * 28 * 28)},
    scale={"real": "7B"},
    billions=8.3,
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
