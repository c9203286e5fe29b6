"""EMIT, InternVL3 with soft prompt and contrastive embeddings, and its ablations (paper, Tables 2 and 3)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Checkpoint, tiled


def trained(id: str, title: str, family: str, summary: str) -> Checkpoint:
    """A model that the recipe of the same name makes.

    The package ships the mini ones. No Hugging Face checkpoint of the real ones is published: they are what
    the recipe left in the current folder, or passed with ``--weights``.
    """
    return Checkpoint(
        id=id,
        title=title,
        family=family,
        summary=summary,
        model_type="emit",
        weights={"mini": f"packaged:{id}", "real": f"trained:{id}"},
        images={"mini": tiled(1), "real": tiled(6)},
        scale={"mini": "4.3M", "real": "8B"},
        backends=("transformers", "vllm"),  # a server has no place for a heat map
    )


EMIT = trained("emit", "EMIT", "emit", "EMIT as trained: stage 1, then difficulty-aware GRPO.")
MODELS = (
    EMIT,
    trained(
        "emit-wo-stage1", "EMIT w/o Stage 1", "emit", "Difficulty-aware GRPO with an unaligned projector."
    ),
    trained("emit-wo-stage2", "EMIT w/o Stage 2", "emit", "The base with aligned soft prompt and projector."),
    trained("emit-wo-text", "EMIT w/o text samples", "emit", "Trained without text-only samples."),
    trained("emit-wo-sp", "EMIT w/o SP", "emit", "Without the soft prompt."),
    trained("emit-wo-sp-ce", "EMIT w/o SP & CE", "emit", "Without soft prompt and contrastive embeddings."),
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The models of this family."""
    return [checkpoint.spec() for checkpoint in MODELS]
