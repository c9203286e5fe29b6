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
    titles: tuple[str, str]  #: as tables head them


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
    from harness.source_files import read_source
    from harness.sources import differences, require_comparable
    from harness.text import wrapped

    one = read_source(run_a)
    other = one if run_b is None else read_source(run_b)
    notes = []
    if options["common"]:
        notes += differences(one, other)
    else:
        require_comparable(one, other)
    notes += [f"{side.path}: the run is not finished" for side in (one, other) if not side.finished]
    if options["models"] is None and one is not other:
        notes += [f"left out, for only {s.path} has it: {name}" for s, name in _alone(one, other)]
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
            names=pair.titles if pair.a != pair.b else (f"{pair.a} of {run_a}", f"{pair.b} of {run_b}"),
        )
        found.append((pair, compared))
    if form == "json":
        pairs = [{"a": pair.a, "b": pair.b, **compared.as_json()} for pair, compared in found]
        print_json({"run_a": str(run_a), "run_b": str(run_b or run_a), "notes": notes, "pairs": pairs})
        return ExitCode.OK
    for pair, compared in found:
        click.echo(_table(pair, compared))
        click.echo()
    sentences = {side.sentence: side for side in (one, other)}
    for sentence, side in sentences.items():
        notes.append(f"{side.path}: {sentence}" if len(sentences) > 1 else sentence)
    for note in dict.fromkeys(notes):
        click.echo(wrapped(note))
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


def _alone(one: Source, other: Source) -> list[tuple[Source, str]]:
    """Models that only one of two sources has, where there are some that both have."""
    if not set(one.answers) & set(other.answers):
        return []
    sides = ((one, other), (other, one))
    return [(side, name) for side, against in sides for name in side.answers if name not in against.answers]


def _pair(one: Source, first: str, other: Source, second: str) -> _Pair:
    titles = (first, second)
    if first == second:  # what differs is the run
        places = [side.path.resolve().name for side in (one, other)]
        titles = (places[0], places[1]) if places[0] != places[1] else (str(one.path), str(other.path))
    return _Pair(first, second, (one.answers[first], other.answers[second]), titles)


def _common(pair: _Pair) -> tuple[_Pair, list[str]]:
    from harness.comparison import shared
    from harness.text import number_of

    before, now, differing = shared(*pair.answers)
    sizes = [len(side) for side in pair.answers]
    if not before:
        raise BadInput(f"{' and '.join(pair.titles)} share no question, so there is nothing to compare")
    other = f"; {len(differing):,} more differ under the same number" if differing else ""
    who = f"{pair.a}: " if pair.a == pair.b else ""
    shared_ones = f"{' and '.join(pair.titles)} share {number_of(len(before), 'question')}"
    told = f"{who}{shared_ones}, of {sizes[0]:,} and {sizes[1]:,}{other}."
    return pair._replace(answers=(before, now)), [told]


def _table(pair: _Pair, compared: Comparison) -> str:
    from harness.averaging import TITLES
    from harness.text import columns, number_of, p_value

    sure = f"{100 * (1 - compared.alpha):g} % interval"
    heads = ("Score", *pair.titles, "Change", sure, "p", "p (adj.)", "McNemar", "Gained", "Lost", "Found")
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
                p_value(test.p_value),
                p_value(test.p_adjusted),
                p_value(test.mcnemar),
                f"{test.gained:,}",
                f"{test.lost:,}",
                "-" if test.detectable is None else f"{test.detectable:.2f}",
            )
        )
    clusters = number_of(compared.n_clusters, compared.cluster)
    count = f"{number_of(compared.n_questions, 'question')} on {clusters}"
    who = f"{pair.a}: " if pair.a == pair.b else ""
    return "\n".join(
        [
            f"{who}{pair.titles[1]} against {pair.titles[0]}: {count}, rule {compared.rule}",
            "",
            columns(rows, right_from=1),
            "",
            *_silence(pair, compared.rule),
            f"* significant at {compared.alpha:g} (permuted {compared.cluster}s; Holm over the subtasks).",
            "Found: the true change, in points, that such a comparison finds 4 times in 5.",
        ]
    )


def _silence(pair: _Pair, rule: str) -> list[str]:
    """How many questions each side left without a letter, and what the rule makes of them."""
    counts = [sum(answer.letter is None for answer in side) for side in pair.answers]
    if not any(counts):
        return []
    told = ", ".join(f"{title} {count:,}" for title, count in zip(pair.titles, counts, strict=True))
    meant = "left out of its accuracy; --rule strict counts them as wrong" if rule == "official" else "wrong"
    return [f"Without a letter: {told} ({meant})."]
