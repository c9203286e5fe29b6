"""Where the paper and its released code differ, or the paper is silent: one table, two readings.

``paper`` is what the paper prints; where it gives no value, the most neutral one, or the released value that
its text presupposes. ``release`` is the released training code. Everything that is not listed here is the
same in both and is the default of :mod:`trainers.settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from harness.errors import BadInput

PresetName = Literal["paper", "release"]


@dataclass(frozen=True, slots=True)
class Point:
    """One setting that the two readings give different values."""

    key: str  #: ``section.field`` of :class:`trainers.settings.Settings`
    paper: Any
    release: Any
    why: str


POINTS: tuple[Point, ...] = (
    Point("model.contrast", "paper", "release", "rotated references, similarity 0 outside, 9 hint tokens"),
    Point("model.quantise", "nf4", "none", "paper: QLoRA; release: no quantisation flag"),
    Point("model.full_modules", ("contrast",), ("contrast", "multi_modal_projector"), "trained in full"),
    Point("stage1.weight_decay", 0.01, 1e-4, "paper: AdamW, no value; torch's default"),
    Point("stage1.beta2", 0.999, 0.95, "paper: no value; release: its framework's default"),
    Point("sft.weight_decay", 0.01, 0.1, "as stage 2, which SFT replaces"),
    Point("sft.beta2", 0.999, 0.95, "as stage 2"),
    Point("sft.epochs", 1.0, 2.0, "as stage 2"),
    Point("sft.warmup", 0.03, 0.01, "as stage 2"),
    Point("grpo.epochs", 1.0, 2.0, "paper: one epoch for stage 2"),
    Point("grpo.warmup", 0.03, 0.01, "paper: no value"),
    Point("grpo.weight_decay", 0.01, 0.1, "paper: no value"),
    Point("grpo.beta2", 0.999, 0.95, "paper: no value"),
    Point("grpo.beta", 0.01, 0.005, "weight of the KL divergence"),
    Point("rollout.top_p", 1.0, 0.9, "paper: silent; release: its framework's default"),
    Point("rollout.top_k", 0, 50, "paper: silent; 0 samples from all tokens"),
    Point(
        "grpo.normalise", "group", "sequence", "Eq. 3 divides by the group's tokens; release: by each one's"
    ),
    Point("rollout.budget", 3, 2, "release draws 3 more groups and throws the third away"),
    Point("grpo.reward", "paper", "release", "see trainers.rewards"),
)

PRESETS: Mapping[PresetName, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType({point.key: point.paper for point in POINTS}),
        "release": MappingProxyType({point.key: point.release for point in POINTS}),
    }
)


def preset(name: str) -> Mapping[str, Any]:
    """The values of a preset, by dotted key; raises :class:`BadInput` for an unknown name."""
    if name not in get_args(PresetName):
        raise BadInput(f"there is no preset {name!r}; use paper or release")
    return PRESETS[name]  # type: ignore[index]
