"""AnomalyR1: Qwen2.5-VL-3B trained by GRPO for anomaly detection (paper, Table 1).

Its own protocol is ``--protocol anomalyr1``: the query alone, no knowledge, a bare prompt.
"""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Chat, Checkpoint, pixels

MODEL = Checkpoint(
    id="anomalyr1",
    title="AnomalyR1",
    family="anomalyr1",
    summary="Qwen2.5-VL-3B after GRPO on anomaly detection; has a protocol of its own, anomalyr1.",
    model_type="qwen2_5_vl",
    weights={"real": "chaos4669/AnomalyR1"},
    images={"real": pixels(256 * 28 * 28, 1280 * 28 * 28)},
    scale={"real": "3B"},
    billions=3.8,
    chat=Chat(opening={"logits": "<think></think><answer>"}),
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
