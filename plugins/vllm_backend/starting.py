"""Importing vLLM, starting an engine, and giving its memory back."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.records import KNOWN_FAILURES

#: An engine within this process that leaves its threads alone and is quiet; what the user set stands.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
#: What vLLM and the libraries beneath raise on arguments and checkpoints that do not fit, besides their own.
_REFUSALS = (TypeError, AssertionError, ImportError, AttributeError)


def import_vllm(why: str, instead: str) -> Any:
    """The module ``vllm``.

    Args:
        why: what it is wanted for, as the beginning of a sentence.
        instead: what can be passed where it cannot be had.

    Raises:
        BadInput: it is missing, or broken by extensions built for another torch.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except (ImportError, OSError, RuntimeError) as error:
        cause = "".join(str(error).splitlines()[:1])
        raise BadInput(
            f"{why}, but vllm cannot be imported ({cause}); install it with `pip install 'emit-bench[vllm]'` "
            f"in an environment of its own, or pass {instead}"
        ) from error
    return vllm


def on_cpu() -> bool:
    """Whether the vLLM that is installed here computes on the CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def start(vllm: Any, name: str, folder: Path, arguments: dict[str, Any]) -> Any:
    """An engine with a checkpoint in it.

    Args:
        vllm: the module.
        name: id of the model, for messages.
        folder: of the checkpoint.
        arguments: of ``vllm.LLM``.

    Raises:
        BadInput: vLLM refuses an argument or the checkpoint, or there is not enough memory.
    """
    hook = sys.excepthook
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what vLLM itself calls
            return vllm.LLM(str(folder), **arguments)
    except failures(*_REFUSALS) as error:
        remedy = "pass --backend-arg KEY=VALUE to change an engine argument, or --backend transformers"
        if arguments.get("data_parallel_size", 1) > 1:
            remedy = "pass --workers N for several engines, each on a GPU of its own"
        raise BadInput(f"vllm does not start with model {name!r}: {cause_of(error)}; {remedy}") from error
    finally:
        sys.excepthook = hook  # torch's process groups each put a prefix before the lines of a traceback


def failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What vLLM raises on one request, or on all; with ``more``."""
    from vllm.exceptions import VLLMError

    return (*KNOWN_FAILURES, VLLMError, *more)


def cause_of(error: BaseException) -> str:
    """The line of an error that says why; validation errors say it behind a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("Value error, ")]
    line = (telling or lines or [type(error).__name__])[0]
    return line.removeprefix("Value error, ").split(" [type=")[0].rstrip(".")


def stop(engine: Any) -> None:
    """Shut an engine down and free its memory; whoever still holds it holds an empty shell."""
    engine.llm_engine.engine_core.shutdown()
    for part in ("model_executor", "engine_core", "renderer", "input_processor", "output_processor"):
        setattr(engine.llm_engine, part, None)
    engine.llm_engine = None

    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
    gc.collect()
