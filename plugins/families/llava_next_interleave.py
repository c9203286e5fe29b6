"""LLaVA-NeXT-Interleave: made for prompts with several images (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint

MODEL = Checkpoint(
    id="llava-next-interleave",
    title="LLaVA-NeXT-Interleave",
    family="llava-next-interleave",
    summary="A general model for interleaved images.",
    model_type="llava",
    weights={"real": "llava-hf/llava-interleave-qwen-7b-hf"},
    scale={"real": "7B"},
    billions=8.1,
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
