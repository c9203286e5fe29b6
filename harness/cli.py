"""The command line: ``emit-bench``.

Nothing heavy is imported before a command runs, so that ``--help`` answers at once. Sub-commands of other
folders and packages come in through the hook ``emit_bench_commands``. Results go to standard output, progress
and messages to standard error; how a command ends is an :class:`~harness.errors.ExitCode`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from harness.commands import COMMANDS
from harness.errors import BadInput, ExitCode
from harness.plugins import Registry, load_registry
from harness.work import WorkerBug


def make_cli(registry: Registry) -> click.Group:
    """The command group, with the sub-commands of every plugin."""

    @click.group(name="emit-bench", context_settings={"help_option_names": ["-h", "--help"]})
    @click.option("--debug", is_flag=True, help="Show a traceback when something breaks.")
    @click.version_option(package_name="emit-bench")
    @click.pass_context
    def cli(context: click.Context, debug: bool) -> None:
        """Evaluate and train vision-language models for industrial anomaly detection."""
        context.obj = registry

    for command in COMMANDS:
        cli.add_command(command)
    registry.add_commands(cli)
    return cli


def run_cli(arguments: Sequence[str], registry: Registry | None = None) -> int:
    """Run one command and return its exit code; every error ends here as one sentence.

    Args:
        arguments: the command line without the program's name.
        registry: plugins to use; those installed unless given.
    """
    try:
        known = registry or load_registry()
        cli = make_cli(known)
        for plugin in known.quarantined:
            click.echo(f"emit-bench: {plugin} is left out: {plugin.error}", err=True)
        ended = cli.main(list(arguments), prog_name="emit-bench", standalone_mode=False)
        return int(ended) if isinstance(ended, int) else ExitCode.OK
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except BadInput as error:
        click.echo(f"emit-bench: {error}", err=True)
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("emit-bench: interrupted; the same command continues where it stopped", err=True)
        return ExitCode.INCONCLUSIVE
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        place = f"{error.filename}: " if error.filename is not None else ""
        reason = error.strerror or type(error).__name__
        click.echo(f"emit-bench: {place}{reason}; check the path, its permissions and free space", err=True)
        return ExitCode.USAGE
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        first = str(error).split("\n", 1)[0]
        said = first if isinstance(error, WorkerBug) else f"{type(error).__name__}: {first}"
        click.echo(f"emit-bench: internal error: {said} (emit-bench --debug … shows where)", err=True)
        return ExitCode.INTERNAL


def main() -> None:
    """Entry point of the program."""
    sys.exit(run_cli(sys.argv[1:]))


if __name__ == "__main__":
    main()
