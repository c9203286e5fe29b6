"""InternVL3: the base model of EMIT, and what plain training makes of it (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint, tiled
from plugins.families.emit import trained

BASE = Checkpoint(
    id="internvl3-base",
    title="InternVL3 (base)",
    family="internvl3",
    summary="The model that EMIT starts from, untrained for inspection.",
    model_type="internvl",
    weights={"mini": "packaged:internvl3-base", "real": "OpenGVLab/InternVL3-8B-hf"},
    images={"mini": tiled(1), "real": tiled(6)},
    scale={"mini": "4.3M", "real": "8B"},
    billions=7.9,
)
TRAINED = (
    trained("internvl3-sft", "InternVL3 (SFT)", "internvl3", "SFT in place of EMIT's second stage."),
    trained("internvl3-grpo", "InternVL3 (GRPO)", "internvl3", "Plain GRPO in place of EMIT's second stage."),
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The models of this family."""
    return [checkpoint.spec() for checkpoint in (BASE, *TRAINED)]
