"""The EMIT model: heat maps, projector, soft prompt, and the Hugging Face class around InternVL.

The heat map needs torch alone; ``transformers`` is imported when a class that needs it is first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from emit_model.heat_maps import heat_map

if TYPE_CHECKING:
    from emit_model.configuration import PRESETS, Contrast, EmitConfig
    from emit_model.modeling import EmitForConditionalGeneration
    from emit_model.processing import COMP_TOKEN, InternVLProcessor, add_comp_token, load_processor

_LAZY = {
    "PRESETS": "configuration",
    "Contrast": "configuration",
    "EmitConfig": "configuration",
    "EmitForConditionalGeneration": "modeling",
    "COMP_TOKEN": "processing",
    "InternVLProcessor": "processing",
    "add_comp_token": "processing",
    "load_processor": "processing",
}

__all__ = [
    "COMP_TOKEN",
    "PRESETS",
    "Contrast",
    "EmitConfig",
    "EmitForConditionalGeneration",
    "InternVLProcessor",
    "add_comp_token",
    "heat_map",
    "load_processor",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"emit_model.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
