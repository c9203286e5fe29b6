"""``emit-bench import-weights``: the released EMIT checkpoint becomes a folder that ``--weights`` takes."""

from __future__ import annotations

from pathlib import Path

import click

from harness.errors import BadInput
from harness.hookspecs import hookimpl

FOLDER = click.Path(path_type=Path)


@click.command("import-weights")
@click.argument("source", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--adapter", type=FOLDER, help="A LoRA adapter of SOURCE, merged into it.")
@click.option("--base", type=FOLDER, help="The checkpoint below SOURCE, where SOURCE is an adapter.")
def import_weights(source: Path, out: Path, adapter: Path | None, base: Path | None) -> None:
    """Write the released EMIT checkpoint in SOURCE into the new folder OUT, in this package's layout.

    SOURCE holds an InternVL chat model's config.json, safetensors and tokenizer, or a LoRA adapter on top of
    them. Nothing of it is executed or unpickled.
    """
    checkpoint, lora = _parts(source, adapter, base)
    from emit_model.importing import import_released

    try:
        done = import_released(checkpoint, out, adapter=lora, progress=_tell)
    except ValueError as error:
        raise BadInput(str(error)) from error
    click.echo(
        f"{out}: EMIT with {done.values:,} parameters in {str(done.config.dtype).removeprefix('torch.')}"
    )
    click.echo(f"To run it: emit-bench run --models emit --weights emit={out} --data DIR")


def _parts(source: Path, adapter: Path | None, base: Path | None) -> tuple[Path, Path | None]:
    """The checkpoint and the adapter that the arguments name."""
    if (source / "adapter_config.json").is_file() and not (source / "config.json").is_file():
        if base is None or adapter is not None:
            raise BadInput(
                f"{source}: it is an adapter; name the checkpoint below it, and only that, with --base"
            )
        return base, source
    if base is not None:
        raise BadInput(f"{source}: it is no adapter (it lacks adapter_config.json); leave --base out")
    return source, adapter


def _tell(done: int, total: int) -> None:
    click.echo(f"emit-bench: weight file {done} of {total} written", err=True)


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """``emit-bench import-weights``."""
    cli.add_command(import_weights)
