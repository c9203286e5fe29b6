"""The commands ``emit-bench data build``, ``describe``, ``leakage`` and ``from-folder``."""

from __future__ import annotations

import click

from harness.hookspecs import hookimpl
from trainers.dataset.build_command import build
from trainers.dataset.describing.command import describe
from trainers.dataset.factory_command import from_folder
from trainers.dataset.leakage_command import leakage


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """Commands about data sets, beside the harness's own."""
    data = cli.commands["data"]
    assert isinstance(data, click.Group)
    for command in (build, describe, from_folder, leakage):
        data.add_command(command)
