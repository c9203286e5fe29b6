"""The harness: questions, prompts, plugins, running, storing, scoring and the command line's shell.

The names below are the stable Python interface; each is imported when it is first used, so that the
command line starts at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.benchmarks import load_benchmark
    from harness.comparison import compare
    from harness.errors import BadInput, ExitCode
    from harness.extraction import extract_letter
    from harness.scoring import score

__all__ = ["BadInput", "ExitCode", "compare", "extract_letter", "load_benchmark", "score"]

_HOMES = {
    "BadInput": "harness.errors",
    "ExitCode": "harness.errors",
    "compare": "harness.comparison",
    "extract_letter": "harness.extraction",
    "load_benchmark": "harness.benchmarks",
    "score": "harness.scoring",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
