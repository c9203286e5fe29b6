"""InternVL3, the base model of EMIT."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.engine import Checkpoint

BASE = Checkpoint(
    id="internvl3-base",
    title="InternVL3 (base)",
    family="internvl3",
    summary="The model that EMIT starts from, untrained for inspection.",
    model_type="internvl",
    weights={"mini": "packaged:internvl3-base", "real": "OpenGVLab/InternVL3-8B-hf"},
    tiles={"mini": 1, "real": 6},
    scale={"mini": "4.3M", "real": "8B"},
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The models of this family."""
    return [BASE.spec()]
