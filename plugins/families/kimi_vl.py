"""Kimi-VL: transformers has no class of its own for it (paper, Table 1).

It runs behind vLLM or a server; with transformers only where the repository's own code may run.
"""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint

MODEL = Checkpoint(
    id="kimi-vl",
    title="Kimi-VL",
    family="kimi-vl",
    summary="A mixture of experts with native resolution; by vllm, a server, or --trust-remote-code.",
    model_type="kimi_vl",
    weights={"real": "moonshotai/Kimi-VL-A3B-Instruct"},
    scale={"real": "16B"},
    billions=16.4,
    remote_code=True,
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
