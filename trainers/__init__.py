"""The trainers: what turns a base model into an inspector, from pre-training exercises to EMIT's stages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainers.advantage import group_advantages
    from trainers.loss import policy_loss
    from trainers.rewards import reward

__all__ = ["group_advantages", "policy_loss", "reward"]

_HOMES = {
    "group_advantages": "trainers.advantage",
    "policy_loss": "trainers.loss",
    "reward": "trainers.rewards",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562): not everyone here needs torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainers' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
