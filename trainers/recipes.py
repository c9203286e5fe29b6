"""What ``emit-bench train`` can make: every trained row of the paper's tables, and the arms between them.

A recipe is data: the stages it goes through and what it sets otherwise than the preset. All of them train the
same model from the same base, so two recipes differ in what their names say and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Stage = Literal["stage1", "sft", "grpo"]

DIFFICULTY_AWARE: Mapping[str, Any] = {
    "rollout.resampling": "same",
    "rollout.unsolved": "drop",
    "grpo.weighting": "difficulty",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training."""

    name: str
    summary: str
    stages: tuple[Stage, ...] = ("stage1", "grpo")
    settings: Mapping[str, Any] = field(default_factory=lambda: DIFFICULTY_AWARE)


def _emit(**changes: Any) -> dict[str, Any]:
    return {**DIFFICULTY_AWARE, **{key.replace("__", "."): value for key, value in changes.items()}}


RECIPES: tuple[Recipe, ...] = (
    Recipe("emit", "EMIT: stage 1, then difficulty-aware GRPO."),
    Recipe("internvl3-sft", "Stage 1, then SFT in place of stage 2 (Table 1).", ("stage1", "sft"), {}),
    Recipe("internvl3-grpo", "Stage 1, then plain GRPO in place of stage 2 (Table 1).", settings={}),
    Recipe("emit-wo-stage1", "Difficulty-aware GRPO with an unaligned projector (Table 2).", ("grpo",)),
    Recipe("emit-wo-stage2", "Stage 1 alone (Table 2).", ("stage1",)),
    Recipe(
        "emit-wo-text", "EMIT without text-only samples (Table 2).", settings=_emit(data__text_samples=False)
    ),
    Recipe("emit-wo-sp", "EMIT without the soft prompt (Table 3).", settings=_emit(model__soft_prompt=False)),
    Recipe(
        "emit-wo-sp-ce",
        "EMIT without soft prompt and contrastive embeddings, so without stage 1 (Table 3).",
        ("grpo",),
        _emit(model__soft_prompt=False, model__contrastive_embeddings=False),
    ),
    Recipe(
        "emit-wo-resampling",
        "Weights without resampling; all-wrong groups count twice, as Eq. 5 says.",
        settings=_emit(rollout__resampling="none", rollout__unsolved="keep"),
    ),
    Recipe("emit-wo-weighting", "Resampling without weights.", settings=_emit(grpo__weighting="none")),
    Recipe(
        "emit-constant-weight",
        "The control of Eq. 5: every group gets the mean weight of its step.",
        settings=_emit(grpo__weighting="constant"),
    ),
    Recipe(
        "emit-equal-draws",
        "The control of resampling: plain GRPO that learns from every group that resampling draws.",
        settings={"rollout.resampling": "all"},
    ),
)
