"""MiMo-VL: a model that thinks, of Qwen2.5-VL's class (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Chat, Checkpoint, pixels

MODEL = Checkpoint(
    id="mimo-vl",
    title="MiMo-VL",
    family="mimo-vl",
    summary="A thinking model of Qwen2.5-VL's class.",
    model_type="qwen2_5_vl",
    weights={"real": "XiaomiMiMo/MiMo-VL-7B-RL"},
    images={"real": pixels(256 * 28 * 28, 1280 * 28 * 28)},
    scale={"real": "7B"},
    billions=8.3,
    # It thinks whether asked to or not.
    chat=Chat(opening={"logits": "<think>\n\n</think>\n\n"}, room={"direct": 1024, "think": 1024}),
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
