"""``emit-bench data build``: from raw datasets to a training set."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from harness.plugins import Registry
    from trainers.dataset.build import Built

_PATH = click.Path(path_type=Path)
_SHOWN = 5  #: findings of one name that are printed; the file has all


def encoder_options(command: Any) -> Any:
    """The options of everything that looks for references."""
    for option in (
        click.option("--device", default="auto", show_default=True, help="Of the encoder."),
        click.option(
            "--workers", type=click.IntRange(0, 64), default=2, show_default=True, help="Image threads."
        ),
        click.option(
            "--encoder",
            default="clip",
            show_default=True,
            help="Finds the reference most like a query: clip, efficientnet-lite0 or mini, or KIND=FOLDER.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help="The training set's folder.")
@click.option(
    "--text-source",
    "text_sources",
    multiple=True,
    metavar="SOURCE",
    help="A dataset whose normal images stand beside the descriptions of --texts.",
)
@click.option("--texts", type=_PATH, help="Knowledge and descriptions, as `data describe` leaves them.")
@click.option("--preset", type=click.Choice(("paper", "release")), default="paper", show_default=True)
@click.option(
    "--per-type", type=click.IntRange(1), default=100, show_default=True, help="Images of each kind, at most."
)
@click.option(
    "--normals",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Normal images a product among which references are sought, at most.",
)
@click.option("--synonyms/--no-synonyms", default=True, help="Say places in other words too: Summit.")
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Share kept apart, in heldout.jsonl.",
)
@click.option(
    "--split",
    type=click.Choice(("image", "product")),
    default="image",
    show_default=True,
    help="What is held out.",
)
@click.option(
    "--benchmark-data",
    type=_PATH,
    envvar="EMIT_BENCH_DATA",
    help="A benchmark whose query images must not be in it.",
)
@click.option(
    "--link", is_flag=True, help="Link images instead of copying them; see the pages for the price."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of every choice.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("emit", "swift")),
    default="emit",
    show_default=True,
    help="swift: rows for ms-swift as well.",
)
@encoder_options
@click.pass_obj
def build(
    registry: Registry,
    /,
    sources: tuple[str, ...],
    out: Path,
    text_sources: tuple[str, ...],
    texts: Path | None,
    benchmark_data: Path | None,
    link: bool,
    form: str,
    encoder: str,
    device: str,
    workers: int,
    **settings: Any,
) -> None:
    """Build a training set from raw datasets.

    SOURCE is LAYOUT=DIR, a folder called like a known dataset (MPDD), or one that holds such folders.
    """
    from trainers.dataset.build import Settings
    from trainers.dataset.build import build as run
    from trainers.dataset.encoders import open_encoder
    from trainers.dataset.inspection import cache_folder
    from trainers.dataset.sources import parse_sources, read_sources
    from trainers.dataset.swift import write_swift
    from trainers.dataset.texts import Texts, read_texts

    layouts, cache = registry.layouts, cache_folder()
    datasets = read_sources(parse_sources(sources, layouts), layouts)
    text_datasets = read_sources(parse_sources(text_sources, layouts), layouts)
    built = run(
        datasets,
        out,
        Settings(**settings),
        open_encoder(encoder, device),
        cache,
        text_datasets=text_datasets,
        texts=read_texts(texts) if texts is not None else Texts({}, ()),
        link=link,
        banned=queries_of(benchmark_data, cache, workers) if benchmark_data is not None else frozenset(),
        workers=workers,
    )
    files = [out / "train.jsonl"]
    if form == "swift":
        files += write_swift(out)
    click.echo(_summary(built, files))


def queries_of(root: Path, cache: Path, workers: int) -> frozenset[str]:
    """Digests of the images that a benchmark asks about.

    Raises:
        BadInput: it cannot be read, or one of its images cannot.
    """
    from harness.errors import BadInput
    from harness.mmad import read_mmad
    from trainers.dataset.inspection import Inspector

    paths = [item.image for item in read_mmad(root).items]
    with Inspector(cache / "inspections.sqlite", workers) as inspector:
        digests = dict(zip(inspector.digests(paths), paths, strict=True))
    if "" in digests:
        raise BadInput(f"{digests['']}: the benchmark's image cannot be read; restore it")
    return frozenset(digests)


def _summary(built: Built, files: list[Path]) -> str:
    from harness.text import columns, number_of

    counts = built.census.as_json()
    held_out = f"; {number_of(built.held_out, 'question')} held out" if built.held_out else ""
    lines = [
        f"{number_of(counts['questions'], 'question')} on {number_of(counts['samples'], 'sample')} of "
        f"{number_of(counts['classes'], 'product')}{held_out}",
        "",
    ]
    for title, part in (("samples", "by_component"), ("questions", "by_task")):
        rows = [(name.replace("_", " "), f"{count:,}") for name, count in counts[part].items()]
        lines += [columns([(title, ""), *rows], right_from=1), ""]
    lines += [f"not asked, {reason}: {count:,}" for reason, count in sorted(built.not_asked.items())]
    lines += findings_summary(built.findings, built.folder / "findings.jsonl")
    work = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(built.work.items()))
    click.echo(f"emit-bench: {work}", err=True)
    return "\n".join([*lines, *(str(path) for path in files), str(built.folder / "manifest.json")])


def findings_summary(findings: list[Any], path: Path) -> list[str]:
    """Lines that tell what is wrong with files: by name, the first few of each."""
    lines: list[str] = []
    for name, count in sorted(Counter(finding.name for finding in findings).items()):
        some = sorted((f for f in findings if f.name == name), key=lambda finding: finding.file)
        verb = "left out" if some[0].left_out else "noted"
        lines.append(f"{name}: {count:,} {verb}")
        lines += [f"  {finding.file}: {finding.sentence}" for finding in some[:_SHOWN]]
        if count > _SHOWN:
            lines.append(f"  and {count - _SHOWN:,} more in {path}")
    return [*lines, ""] if lines else lines
