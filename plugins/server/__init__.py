"""The backend ``server``: models behind any endpoint that speaks OpenAI's chat completions.

vLLM, transformers, SGLang, llama.cpp and commercial services all do. What a model is called there is its
weights' name: ``--weights NAME=SERVED_NAME``, else its hub id. Images travel as data URLs, at most 1024
pixels long, detail ``auto``, PNG, unless ``--backend-arg image_max_side=…``, ``image_detail=low|high`` or
``image_format=jpeg`` (of quality 95) say otherwise. These three change answers and are part of their keys.
Addresses (``--base-url``), ``--concurrency``, ``--timeout`` and ``--backend-arg attempts=…`` are not. The key
comes from ``EMIT_BENCH_API_KEY``, else from ``OPENAI_API_KEY``, and is written nowhere.

``--backend-arg price_per_million=[PROMPT,COMPLETION]`` has the spending counted in the manifest, and
``--backend-arg token_field=max_completion_tokens`` suits services that call the limit so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.hookspecs import BackendSpec, ModelSpec, hookimpl
from harness.records import LoadRequest, Model

if TYPE_CHECKING:
    from plugins.checkpoint import Checkpoint

BACKEND = "server"
#: Arguments that change answers.
DECIDING = ("image_max_side", "image_detail", "image_format")


def load(checkpoint: Checkpoint, request: LoadRequest) -> Model:
    """The model behind the request's servers; nobody is asked yet.

    Raises:
        BadInput: no server is named, or an argument is unfit.
    """
    from plugins.server.model import ServedModel
    from plugins.server.settings import read_settings

    settings = read_settings(checkpoint, request)
    if not settings.endpoints:
        raise BadInput(
            f"model {checkpoint.id!r} on the backend {BACKEND!r}: name the server with --base-url, such as "
            "http://localhost:8000/v1"
        )
    return ServedModel(settings, checkpoint.chat)


def fingerprint(checkpoint: Checkpoint, request: LoadRequest) -> Mapping[str, Any]:
    """What makes the answers what they are, as far as it can be known from here.

    Raises:
        BadInput: an argument is unfit, or the served model has no name.
    """
    from plugins.server.settings import read_settings

    settings = read_settings(checkpoint, request)
    room = {"room": dict(checkpoint.chat.room)} if checkpoint.chat.room else {}
    return {"served": settings.model, "image": asdict(settings.images), **room}


def served() -> Checkpoint:
    """A model of which only a server knows what it is."""
    from plugins.checkpoint import Checkpoint

    return Checkpoint(
        id="served",
        title="Served model",
        family="served",
        summary="Whatever an endpoint serves under the name that --weights served=NAME gives.",
        model_type="",
        weights={},
        backends=(BACKEND,),
    )


def _missing() -> str | None:
    if find_spec("httpx2") is None:
        return "httpx2 is not installed; install it with `pip install httpx2`"
    return None


@hookimpl
def emit_bench_backends() -> list[BackendSpec]:
    """The backend of this package."""
    summary = "Any server that speaks OpenAI's chat completions; needs --base-url."
    return [BackendSpec(BACKEND, summary, _missing, deciding=DECIDING, devices=False, arguments=None)]


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model ``served``."""
    return [replace(served().spec(), measure=None, check=_check)]


def _check(request: LoadRequest) -> Mapping[str, str]:
    """Its row of ``models --check``: what a server holds cannot be seen from here."""
    return {"runs": BACKEND, "weights": request.weights or "-", "memory": "-", "missing": _missing() or ""}
