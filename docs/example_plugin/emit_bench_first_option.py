"""An example plugin: a model that takes the first option, and a count of the letters that models choose."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from harness.hookspecs import ModelSpec, RunInfo, hookimpl
from harness.records import Decoding, Model, PromptGroup, Response


class FirstOption(Model):
    """Chooses what stands first, whatever the images show."""

    def answer(self, group: PromptGroup, decoding: Decoding) -> list[Response]:
        """One response per prompt, in order."""
        return [Response(f"<answer>{next(iter(prompt.options))}</answer>", 0, 0) for prompt in group.prompts]


@hookimpl
def emit_bench_models() -> list[ModelSpec]:
    """The model ``first-option``."""
    return [
        ModelSpec(
            id="first-option",
            title="First option",
            family="baseline",
            summary="Takes the first option of every question.",
            load=lambda request: FirstOption(),
            fingerprint=lambda request: {"class": "FirstOption", "rule": 1},
            backends=(),
        )
    ]


@hookimpl
def emit_bench_run_finished(run: RunInfo) -> None:
    """Leave the letter counts in the run's folder."""
    (run.out / "letters.csv").write_text(letter_counts(run.out), encoding="utf-8")


@hookimpl
def emit_bench_commands(cli: click.Group) -> None:
    """``emit-bench letters RUN``."""

    @cli.command()
    @click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
    def letters(run: Path) -> None:
        """Count the letters that each model of a run chose."""
        click.echo(letter_counts(run), nl=False)


def letter_counts(out: Path) -> str:
    """CSV lines: model, letter, number of answers."""
    from harness.run import read_run  # here, because most commands do not need it

    counts = Counter((name, a.letter or "none") for name, given in read_run(out)[1].items() for a in given)
    return "model,letter,answers\n" + "".join(f"{m},{c},{n}\n" for (m, c), n in sorted(counts.items()))
