"""What the command line says about servers: read once, refused in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.server import BACKEND, DECIDING
from plugins.server.client import Asking
from plugins.server.endpoint import Endpoint, read_endpoint
from plugins.server.pictures import FORMATS, Format

if TYPE_CHECKING:
    from plugins.checkpoint import Checkpoint

_DETAILS = ("auto", "low", "high")
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

Detail = Literal["auto", "low", "high"]


@dataclass(frozen=True, slots=True)
class Images:
    """How images are sent."""

    max_side: int = 1024  #: pixels of the longer side; MVTec's images are sent as they are
    detail: Detail = "auto"  #: what OpenAI calls resolution; other servers take no notice
    format: Format = "png"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about one model on its servers."""

    model: str  #: as the servers call it
    images: Images
    endpoints: tuple[Endpoint, ...]  #: none, where none is needed yet
    asking: Asking
    token_field: str = "max_tokens"
    prices: tuple[float, float] | None = None  #: of a million tokens of prompt and of completion


def read_settings(checkpoint: Checkpoint, request: LoadRequest) -> Settings:
    """The settings of a model; cheap, asks nobody.

    Raises:
        BadInput: an argument is unknown or unfit, or the served model has no name.
    """
    for option, value in (("--adapter", request.adapter), ("--quantize", request.quantize)):
        if value is not None:
            raise BadInput(
                f"{option}: on the backend {BACKEND!r} the server holds the weights; leave it out, and say "
                f"what it serves by --weights {checkpoint.id}=NAME"
            )
    model = _served(checkpoint, request)
    given = dict(request.resources)
    known = ("base_urls", "concurrency", "timeout_s", "attempts", "token_field", "price_per_million")
    for name in given:
        if name not in known:
            raise BadInput(
                f"--backend-arg {name}: the backend {BACKEND!r} knows no such argument; "
                f"it knows {', '.join((*DECIDING, *known))}"
            )
    return Settings(
        model=model,
        images=_images(request.options),
        endpoints=_endpoints(checkpoint, model, given.get("base_urls", ())),
        asking=_asking(given, request.worker[1]),
        token_field=_one_of(given, "token_field", _TOKEN_FIELDS),
        prices=_prices(given.get("price_per_million")),
    )


def _served(checkpoint: Checkpoint, request: LoadRequest) -> str:
    """What the servers call the model."""
    name = request.weights or checkpoint.weights.get("real", "")
    if request.weights is None and not _HUB_ID.fullmatch(name):
        raise BadInput(
            f"model {checkpoint.id!r} has no hub id by which a server could know it; "
            f"pass --weights {checkpoint.id}=NAME with the name under which it is served"
        )
    return name.strip()


def _endpoints(checkpoint: Checkpoint, model: str, given: object) -> tuple[Endpoint, ...]:
    urls = [given] if isinstance(given, str) else given
    if not (isinstance(urls, list | tuple) and all(isinstance(url, str) for url in urls)):
        raise BadInput("--base-url: it is no address; write one such as http://localhost:8000/v1")
    named = f"--weights {checkpoint.id}=NAME"
    found = [read_endpoint(url, model, "--base-url", named) for url in urls]
    return tuple({endpoint.url: endpoint for endpoint in found}.values())


def _asking(given: Mapping[str, Any], workers: int) -> Asking:
    """How servers are asked; each of several workers has its share of what may be on its way."""
    usual = Asking()
    at_once = _number(given, "concurrency", usual.concurrency, whole=True)
    return Asking(
        timeout=_number(given, "timeout_s", usual.timeout),
        tries=int(_number(given, "attempts", usual.tries, whole=True)),
        concurrency=max(1, int(at_once) // workers),
    )


def _images(given: Mapping[str, Any]) -> Images:
    usual = Images()
    return Images(
        max_side=int(_number(given, "image_max_side", usual.max_side, whole=True)),
        detail=cast(Detail, _one_of(given, "image_detail", _DETAILS)),
        format=cast(Format, _one_of(given, "image_format", FORMATS)),
    )


def _prices(given: object) -> tuple[float, float] | None:
    if given is None:
        return None
    if not (isinstance(given, list | tuple) and len(given) == 2 and all(_fit(price) for price in given)):
        raise BadInput(
            "--backend-arg price_per_million: write the price of a million tokens of prompt and that of a "
            "million of completion, such as [2.5,10]"
        )
    return float(given[0]), float(given[1])


def _number(given: Mapping[str, Any], name: str, usual: float, whole: bool = False) -> float:
    value = given.get(name, usual)
    if not _fit(value) or value <= 0 or (whole and value != int(value)):
        kind = "whole number" if whole else "number"
        raise BadInput(f"--backend-arg {name}={value}: write a {kind} above 0, such as {usual:g}")
    return float(value)


def _fit(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9


def _one_of(given: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = given.get(name, known[0])
    if value not in known:
        raise BadInput(f"--backend-arg {name}={value}: it is one of {', '.join(known)}")
    return str(value)
