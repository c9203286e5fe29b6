"""``emit-bench compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from harness.console import PATH, format_option, print_json
from harness.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from harness.comparison import Comparison
    from harness.records import Answer
    from harness.sources import Source


class _Pair(NamedTuple):
    """What is compared: a's answers are the baseline."""

    a: str
    b: str
    answers: tuple[Sequence[Answer], Sequence[Answer]]


@click.command()
@click.argument("run_a", metavar="RUN_A", type=PATH)
@click.argument("run_b", metavar="[RUN_B]", type=PATH, required=False)
@click.option("--models", help="One model, or A,B: A of the first run against B of the second.")
@click.option(
    "--rule", type=click.Choice(("official", "strict", "pooled")), default="official", show_default=True
)
@click.option(
    "--cluster",
    type=click.Choice(("image", "object")),
    default="image",
    show_default=True,
    help="What is resampled as a whole.",
)
@click.option("--common", is_flag=True, help="Compare the questions that both have.")
@click.option("--alpha", type=click.FloatRange(1e-6, 0.5), default=0.05, show_default=True, help="Level.")
@click.option("--resamples", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the resampling.")
@format_option("table", "json")
def compare(run_a: Path, run_b: Path | None, form: str, **options: Any) -> int:
    """Compare two runs, or two models of one run, question by question.

    Runs, answer files and baseline files can stand on either side. Changes are RUN_B minus RUN_A.
    """
    from harness.comparison import compare as compare_answers
    from harness.sources import differences, read_source, require_comparable

    one = read_source(run_a)
    other = one if run_b is None else read_source(run_b)
    notes = []
    if options["common"]:
        notes += differences(one, other)
    else:
        require_comparable(one, other)
    notes += [f"{side.path}: the run is not finished" for side in (one, other) if not side.finished]
    found: list[tuple[_Pair, Comparison]] = []
    for pair in _pairs(one, other, options["models"]):
        if options["common"]:
            pair, told = _common(pair)
            notes += told
        compared = compare_answers(
            *pair.answers,
            options["rule"],
            cluster=options["cluster"],
            resamples=options["resamples"],
            alpha=options["alpha"],
            seed=options["seed"],
            names=(f"{pair.a} of RUN_A", f"{pair.b} of RUN_{'A' if run_b is None else 'B'}"),
        )
        found.append((pair, compared))
    if form == "json":
        pairs = [{"a": pair.a, "b": pair.b, **compared.as_json()} for pair, compared in found]
        print_json({"run_a": str(run_a), "run_b": str(run_b or run_a), "notes": notes, "pairs": pairs})
        return ExitCode.OK
    for pair, compared in found:
        click.echo(_table(pair, compared))
        click.echo()
    for note in dict.fromkeys((*notes, one.sentence)):
        click.echo(note)
    return ExitCode.OK


def _pairs(one: Source, other: Source, models: str | None) -> list[_Pair]:
    names = [name.strip() for name in (models or "").split(",") if name.strip()]
    if len(names) > 2:
        raise BadInput(f"--models {models}: name one model, or two with a comma between")
    if names:
        first, second = names[0], names[-1]
        for side, name in ((one, first), (other, second)):
            if name not in side.answers:
                raise BadInput(f"{side.path}: it holds no model {name!r}; it has {', '.join(side.answers)}")
        if one is other and first == second:
            raise BadInput(f"--models {models}: name two models of the run, such as A,B")
        return [_pair(one, first, other, second)]
    if one is other:
        if len(one.answers) < 2:
            raise BadInput(f"{one.path}: it holds one model only; name a second run to compare it with")
        base, *rest = one.answers
        return [_pair(one, base, one, name) for name in rest]
    if len(one.answers) == len(other.answers) == 1:
        return [_pair(one, next(iter(one.answers)), other, next(iter(other.answers)))]
    both = [name for name in one.answers if name in other.answers]
    if not both:
        raise BadInput(f"{one.path} and {other.path} have no model in common; pair two with --models A,B")
    return [_pair(one, name, other, name) for name in both]


def _pair(one: Source, first: str, other: Source, second: str) -> _Pair:
    return _Pair(first, second, (one.answers[first], other.answers[second]))


def _common(pair: _Pair) -> tuple[_Pair, list[str]]:
    from harness.comparison import shared

    before, now, differing = shared(*pair.answers)
    sizes = [len(side) for side in pair.answers]
    if not before:
        raise BadInput(f"{pair.a} and {pair.b} share no question, so there is nothing to compare")
    other = f", {len(differing):,} differ under the same number" if differing else ""
    told = f"{pair.a} and {pair.b} share {len(before):,} questions, of {sizes[0]:,} and {sizes[1]:,}{other}."
    return pair._replace(answers=(before, now)), [told]


def _table(pair: _Pair, compared: Comparison) -> str:
    from harness.gate.outputs import TITLES
    from harness.text import columns, number_of

    sure = f"{100 * (1 - compared.alpha):g} % interval"
    heads = ("Score", pair.a, pair.b, "Change", sure, "p", "p (adj.)", "McNemar", "Gained", "Lost", "Found")
    rows = [heads]
    for test in compared.tests:
        star = "*" if test.p_adjusted <= compared.alpha else " "
        rows.append(
            (
                TITLES[test.metric],
                f"{test.baseline:.2f}",
                f"{test.current:.2f}",
                f"{test.delta:+.2f}{star}",
                f"{test.ci_low:+.2f} to {test.ci_high:+.2f}",
                f"{test.p_value:.4f}",
                f"{test.p_adjusted:.4f}",
                f"{test.mcnemar:.4f}",
                f"{test.gained:,}",
                f"{test.lost:,}",
                "-" if test.detectable is None else f"{test.detectable:.2f}",
            )
        )
    clusters = number_of(compared.n_clusters, compared.cluster)
    count = f"{number_of(compared.n_questions, 'question')} on {clusters}"
    return "\n".join(
        [
            f"{pair.b} against {pair.a}: {count}, rule {compared.rule}",
            "",
            columns(rows, right_from=1),
            "",
            f"* significant at {compared.alpha:g} (permuted {compared.cluster}s; Holm over the subtasks).",
            "Found: the true change, in points, that such a comparison finds 4 times in 5.",
        ]
    )
