"""What the sub-commands share: printing results and messages, and the benchmarks meant without a name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

EMBEDDED_BENCHMARK = "mini"
DOWNLOADED_BENCHMARK = "mmad"
Function = TypeVar("Function", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)


def format_option(*formats: str) -> Callable[[Function], Function]:
    """The option ``--format``; the first of ``formats`` is the default."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(formats),
        default=formats[0],
        show_default=True,
        help="How to print.",
    )


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def say(sentence: str) -> None:
    """A sentence on standard error, above a progress bar if one is shown."""
    from tqdm import tqdm

    tqdm.write(f"emit-bench: {sentence}", file=sys.stderr)
