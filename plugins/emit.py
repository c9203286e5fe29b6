"""EMIT: InternVL3 with a soft prompt and heat-map-guided contrastive embeddings."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.engine import Checkpoint

EMIT = Checkpoint(
    id="emit",
    title="EMIT",
    family="emit",
    summary="EMIT as trained: soft prompt and contrastive embeddings for discrimination and localization.",
    model_type="emit",
    # No Hugging Face checkpoint of the real model is published: a converted or trained folder is passed.
    weights={"mini": "packaged:emit"},
    tiles={"mini": 1, "real": 6},
    scale={"mini": "4.3M", "real": "8B"},
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The models of this family."""
    return [EMIT.spec()]
