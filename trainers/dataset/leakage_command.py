"""``emit-bench data leakage``: the audit on the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.console import DOWNLOADED_BENCHMARK, format_option, print_json
from harness.errors import BadInput, ExitCode
from trainers.dataset.hashes import NEAR

if TYPE_CHECKING:
    from harness.hookspecs import Benchmark
    from harness.plugins import Registry
    from trainers.dataset.leakage import Audit, Bar, ImageFinding, QuestionFinding

_PATH = click.Path(path_type=Path)
_ROWS = "train.jsonl"
_WIDE = 90  #: characters of a question in the table


@click.command()
@click.argument("train", metavar="TRAIN", type=_PATH)
@click.argument("bench", metavar="BENCH")
@click.option("--bound", type=click.IntRange(min=0), default=0, show_default=True, help="Leaks allowed.")
@click.option(
    "--near",
    type=click.FloatRange(0, 32),
    default=NEAR,
    show_default=True,
    help="Grey levels that a near-duplicate may differ; 0 compares bytes only.",
)
@click.option("--examples", type=click.IntRange(min=0), default=5, show_default=True, help="Shown of each.")
@click.option("--out", type=_PATH, metavar="REPORT", help="Also write all findings into this JSON file.")
@click.option("--workers", type=click.IntRange(0, 64), default=2, show_default=True, help="Image threads.")
@format_option("table", "json")
@click.pass_obj
def leakage(
    registry: Registry,
    /,
    train: Path,
    bench: str,
    bound: int,
    near: float,
    examples: int,
    out: Path | None,
    workers: int,
    form: str,
) -> int:
    """Look for a benchmark's images and questions in a training set.

    TRAIN is a training file, or a folder that holds train.jsonl. BENCH is a folder in MMAD's format, or a
    benchmark's name such as mini. Ends with 1 when there are more leaks than --bound.
    """
    from harness.jsonfiles import write_json
    from trainers.dataset.leakage import audit
    from trainers.samples import read_training_set

    training = read_training_set(train / _ROWS if train.is_dir() else train)
    found = audit(training, _benchmark(registry, bench), _progress, near=near, workers=workers)
    clean = found.leaks <= bound
    content = {"verdict": "pass" if clean else "leak", "bound": bound, **found.as_json()}
    if out is not None:
        write_json(out, content)
    if form == "json":
        print_json(content)
    else:
        click.echo(as_text(found, bound, examples))
    return ExitCode.OK if clean else ExitCode.REGRESSION


def _benchmark(registry: Registry, word: str) -> Benchmark:
    from harness.lookup import find

    if word in registry.benchmarks:
        return registry.benchmarks[word].load(None)
    if not Path(word).is_dir():
        raise BadInput(
            f"{word}: there is no such folder and no such benchmark; name a folder in MMAD's "
            f"format, or one of {', '.join(registry.benchmarks)}"
        )
    return find(registry.benchmarks, DOWNLOADED_BENCHMARK, "benchmark").load(Path(word))


def _progress(title: str, total: int) -> AbstractContextManager[Bar]:
    from tqdm import tqdm

    bar: AbstractContextManager[Bar] = tqdm(total=total, desc=title, file=sys.stderr, dynamic_ncols=True)
    return bar


def as_text(found: Audit, bound: int, examples: int) -> str:
    """The audit as a page of text, with at most ``examples`` findings of each name."""
    ours, theirs = found.training, found.benchmark
    parts = [
        f"Training set {ours['file']}: {ours['samples']:,} samples, {_images(ours)}",
        f"Benchmark {theirs['name']} ({theirs['world']} world): {theirs['questions']:,} questions, "
        f"{_images(theirs)}",
        "",
        _table(found),
    ]
    for name in ("byte-equal", "near", "same-reference"):
        images = [one for one in found.images if one.name == name]
        parts += _listed(name, [_image_line(one) for one in images], examples)
    for kind in ("equal-question", "common-wording"):
        questions = [one for one in found.questions if one.name == kind]
        parts += _listed(kind, [_question_line(one) for one in questions], examples)
    verdict = "within" if found.leaks <= bound else "more than"
    parts += [
        "",
        f"{found.leaks:,} {_plural(found.leaks, 'leak')}: {found.leaked_images:,} benchmark query "
        f"{_plural(found.leaked_images, 'image')} and {found.leaked_questions:,} "
        f"{_plural(found.leaked_questions, 'question')}; {verdict} the bound of {bound:,}.",
    ]
    return "\n".join(parts)


def _images(side: Any) -> str:
    return f"{side['images']['query']:,} query images, {side['images']['reference']:,} reference images."


def _table(found: Audit) -> str:
    from harness.text import columns

    rows = [("Training image", "Benchmark image", "Counts as", "Byte-equal", "Near")]
    for (ours, theirs), counts in found.pairs().items():
        near = f"{counts['near']:,}" if found.near > 0 else "-"
        kind = "leak" if theirs == "query" else "same reference"
        rows.append((ours, theirs, kind, f"{counts['byte-equal']:,}", near))
    return columns(rows, right_from=3)


def _listed(name: str, lines: Sequence[str], examples: int) -> list[str]:
    if not lines or not examples:
        return []
    more = f", the first {examples}" if len(lines) > examples else ""
    return ["", f"{name} ({len(lines):,}{more}):", *(f"  {line}" for line in lines[:examples])]


def _image_line(one: ImageFinding) -> str:
    told = f"{one.training_file} ({one.training_role}) is {one.benchmark_file} ({one.benchmark_role})"
    if one.how == "byte-equal":
        return told
    turned = "" if one.orientation == "upright" else f", {one.orientation}"
    return f"{told}{turned}; difference {one.difference:.1f}"


def _question_line(one: QuestionFinding) -> str:
    words = f"{' '.join(one.question.split())} [{' | '.join(one.options)}]"
    short = words if len(words) <= _WIDE else words[: _WIDE - 1] + "…"
    counts = (
        f"{len(one.benchmark):,} benchmark {_plural(len(one.benchmark), 'question')}, "
        f"{len(one.training):,} {_plural(len(one.training), 'sample')}"
    )
    named = f", such as {one.training[0]} for {one.benchmark[0]}" if one.leak else ""
    return f"{short} ({counts}{named})"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
