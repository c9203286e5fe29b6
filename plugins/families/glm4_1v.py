"""GLM-4.1V-Thinking: a model that thinks and puts its answer into a box (paper, Table 1)."""

from __future__ import annotations

from harness.hookspecs import ModelSpec, hookimpl
from plugins.checkpoint import Chat, Checkpoint

MODEL = Checkpoint(
    id="glm-4.1v",
    title="GLM-4.1V-Thinking",
    family="glm-4.1v",
    summary="A thinking model that boxes its answer.",
    model_type="glm4v",
    weights={"real": "zai-org/GLM-4.1V-9B-Thinking"},
    scale={"real": "9B"},
    billions=10.3,
    # It thinks whether asked to or not.
    chat=Chat(
        keep=("<|begin_of_box|>", "<|end_of_box|>"),
        opening={"logits": "<think></think><answer><|begin_of_box|>"},
        room={"direct": 1024, "think": 1024},
    ),
)


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model of this family."""
    return [MODEL.spec()]
