"""Running out of memory: how it is told from other failures, and what is let go of then."""

from __future__ import annotations

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether it is a full memory: torch's allocator, the device's own, a library's, or the CPU's."""
    text = str(error)
    signs = ("out of memory", "allocate memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in text for sign in signs)


def free(error: BaseException) -> None:
    """Let go of what filled the memory; the traceback holds it."""
    error.__traceback__ = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
