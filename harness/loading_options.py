"""How models are loaded, as options of a command: backend, weights, device, precision, servers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.records import LoadRequest, World

Function = TypeVar("Function", bound=Callable[..., Any])
DEFAULT_BACKEND = "transformers"
_KEY = re.compile(r"[A-Za-z_]\w*")
_OPTIONS = (
    click.option("--weights", multiple=True, metavar="NAME=PATH", help="Other weights for a model."),
    click.option("--adapter", multiple=True, metavar="NAME=PATH", help="An adapter to lay on its weights."),
    click.option("--device", default="auto", show_default=True, help="Such as cpu or cuda:0."),
    click.option("--device-map", help="auto spreads a model over all GPUs."),
    click.option("--dtype", default="auto", show_default=True, help="Such as float32 or bfloat16."),
    click.option("--quantize", type=click.Choice(["nf4"]), help="Load linear weights in 4 bits."),
    click.option("--trust-remote-code", is_flag=True, help="Let a model's repository run its own code."),
    click.option(
        "--base-url", multiple=True, metavar="URL", help="A server's address; several share the work."
    ),
    click.option("--concurrency", type=click.IntRange(1), help="Most requests on their way to servers."),
    click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds a request may take."
    ),
    click.option("--backend-arg", multiple=True, metavar="KEY=VALUE", help="An argument of the backend."),
)


def loading_options(function: Function) -> Function:
    """Add the options that :func:`load_request` reads."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def load_request(
    registry: Registry,
    world: World,
    backend: str,
    options: Mapping[str, Any],
    *,
    strict: bool = True,
    **more: Any,
) -> LoadRequest:
    """How models are loaded on a backend.

    Args:
        registry: knows the backends.
        world: of the benchmark.
        backend: its name.
        options: of the command line, see :func:`loading_options`; ``--weights`` and ``--adapter`` are left
            to :func:`pairs`, for they are of single models.
        strict: refuse arguments that the backend does not have; else they are meant for another one.
        more: further fields.

    Raises:
        BadInput: the backend is unknown, or an argument is malformed.
    """
    from harness.lookup import find
    from harness.records import LoadRequest

    known = registry.backends.get(backend) if backend == DEFAULT_BACKEND else None
    if known is None and backend != DEFAULT_BACKEND:
        known = find(registry.backends, backend, "backend")
    deciding, resources = _arguments(known.deciding if known else (), options["backend_arg"])
    flags = {"base_urls": "--base-url", "timeout_s": "--timeout", "concurrency": "--concurrency"}
    flags["device_map"] = "--device-map"
    given = {
        "base_urls": tuple(options["base_url"]) or None,
        "concurrency": options["concurrency"],
        "timeout_s": options["timeout"],
        "device_map": options["device_map"],
    }
    resources |= {name: value for name, value in given.items() if value is not None}
    if known is not None and known.arguments is not None:
        for name in set(resources) - set(known.arguments):
            if not strict:
                del resources[name]
                continue
            raise BadInput(
                f"{flags.get(name, f'--backend-arg {name}')}: the backend {backend!r} has no such argument; "
                f"it has {', '.join((*known.deciding, *known.arguments)) or 'none'}"
            )
    return LoadRequest(
        world=world,
        backend=backend,
        device=options["device"],
        dtype=options["dtype"],
        quantize=options["quantize"],
        trust_remote_code=options["trust_remote_code"],
        options=deciding,
        resources=resources,
        **more,
    )


def _arguments(own: Sequence[str], given: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a backend: its ``own`` that change answers, and the others."""
    deciding: dict[str, Any] = {}
    resources: dict[str, Any] = {}
    for argument in given:
        name, equals, text = argument.partition("=")
        if not (equals and _KEY.fullmatch(name)):
            raise BadInput(f"--backend-arg {argument}: write a name, an equals sign and a value")
        (deciding if name in own else resources)[name] = _value(text)
    return deciding, resources


def _value(text: str) -> Any:
    """A number, a truth value or a list as TOML writes them; anything else is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """Model id -> place, from ``NAME=PATH`` options.

    Raises:
        BadInput: one is malformed, or a model is named twice.
    """
    table: dict[str, str] = {}
    for pair in given:
        name, equals, path = pair.partition("=")
        if not (name and equals and path):
            raise BadInput(f"{option} {pair}: write a model's id, an equals sign and a folder or hub id")
        if name in table:
            raise BadInput(f"{option} {pair}: {name} is given twice; keep one of the two")
        table[name] = path
    return table
