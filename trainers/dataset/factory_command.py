"""``emit-bench data from-folder``: a product line as a benchmark, and as a training set."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainers.dataset.build_command import encoder_options

if TYPE_CHECKING:
    from trainers.dataset.encoders import Encoder
    from trainers.dataset.factory import Line, Questions
    from trainers.dataset.texts import Texts

_PATH = click.Path(path_type=Path)


@click.command("from-folder")
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="The benchmark's folder, new or empty.")
@click.option("--name", help="What the benchmark calls the product line; the folder's name unless given.")
@click.option("--texts", type=_PATH, help="Folder with domain_knowledge.json; DIR itself unless given.")
@click.option("--training", type=_PATH, help="Also write a training set, of other images, to this folder.")
@click.option(
    "--training-share", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5,
    show_default=True, help="Share of the images, or of the products, that is trained on.",
)  # fmt: skip
@click.option("--split", type=click.Choice(("image", "product")), default="image", show_default=True)
@click.option("--synonyms/--no-synonyms", default=True, help="Say places in other words too: Summit.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every choice.")
@encoder_options
def from_folder(
    folder: Path,
    out: Path,
    name: str | None,
    texts: Path | None,
    training: Path | None,
    training_share: float,
    split: str,
    encoder: str,
    device: str,
    workers: int,
    **rules: Any,
) -> None:
    """Make a benchmark of a folder in MVTec layout.

    DIR holds train/good, test/good, test/KIND and ground_truth/KIND in a folder a product, or directly.
    """
    from harness.errors import BadInput
    from plugins.layouts.mvtec import read_mvtec
    from trainers.dataset.build import Settings, build
    from trainers.dataset.encoders import open_encoder
    from trainers.dataset.factory import divide
    from trainers.dataset.inspection import Inspector, cache_folder

    out = out.resolve()
    called = _checked(folder, out, name, training)
    dataset = read_mvtec(folder)
    if not dataset.images:
        told = f" (first finding: {dataset.findings[0]})" if dataset.findings else ""
        raise BadInput(
            f"{folder}: no image in MVTec layout; it needs train/good, test/good and test/KIND{told}"
        )
    chosen, cache, known = open_encoder(encoder, device), cache_folder(), _texts(folder, texts)
    share = training_share if training is not None else 0.0
    with Inspector(cache / "inspections.sqlite", workers) as inspector:
        line = divide(dataset, inspector, training=share, split=split, seed=rules["seed"])
    if training is not None and line.training is not None:
        build([line.training], training, Settings(**rules), chosen, cache, texts=known, workers=workers)
    questions = _write(line, called, out, chosen, known, workers, rules)
    click.echo(_summary(line, questions, out, training))


def _checked(folder: Path, out: Path, name: str | None, training: Path | None) -> str:
    """The benchmark's name, once everything that was named has been looked at.

    Raises:
        BadInput: something cannot be read or written as it was named.
    """
    from harness.errors import BadInput
    from trainers.dataset.output import require_free

    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; name one with train/good and test folders")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out}: it is not empty; name a new folder")
    if folder.resolve() in (out, *out.parents):
        raise BadInput(f"--out {out}: it lies in the folder that is read; name one beside it")
    if training is not None:
        other = training.resolve()
        if other == out or out in other.parents or other in out.parents:
            raise BadInput(f"--training {training}: it must lie beside --out, not in it")
        require_free(training)
    called = folder.resolve().name if name is None else name
    if not called.isprintable() or called in ("", ".", "..") or set(called) & set("/\\"):
        raise BadInput(f"--name {called!r}: it must be one printable part of a path")
    return called


def _texts(folder: Path, texts: Path | None) -> Texts:
    from harness.mmad import KNOWLEDGE_FILE
    from trainers.dataset.texts import Texts, read_texts

    if texts is None and not (folder / KNOWLEDGE_FILE).is_file():
        return Texts({}, ())
    return read_texts(texts or folder)


def _write(
    line: Line, name: str, out: Path, encoder: Encoder, texts: Texts, workers: int, rules: dict[str, Any]
) -> Questions:
    """Write the benchmark under another name first, so that it appears whole."""
    import json
    from dataclasses import asdict

    from harness.jsonfiles import write_text
    from trainers.dataset.factory import write_benchmark
    from trainers.dataset.inspection import cache_folder
    from trainers.dataset.output import FINDINGS
    from trainers.dataset.retrieval import FeatureStore
    from trainers.dataset.tasks import Rules

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with FeatureStore(cache_folder() / "features.sqlite", encoder, workers) as store:
            questions = write_benchmark(line, name, partial, store, Rules(**rules), texts)
        found = sorted(line.findings, key=lambda finding: (finding.file, finding.name))
        lines = [json.dumps(asdict(finding), ensure_ascii=False) + "\n" for finding in found]
        write_text(partial / FINDINGS, "".join(lines))
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return questions


def _summary(line: Line, questions: Questions, out: Path, training: Path | None) -> str:
    from harness.text import columns, number_of
    from trainers.dataset.build_command import findings_summary
    from trainers.dataset.factory import RAW_TYPES
    from trainers.dataset.output import FINDINGS

    asked = Counter(entry["type"] for conversation in questions.values() for entry in conversation)
    defective = sum(image.raw.condition == "defective" for image in line.queries)
    references = sum(len(images) for images in line.references.values())
    rows = [(kind, f"{asked[kind]:,}") for kind in RAW_TYPES.values() if asked[kind]]
    spared = {
        "not asked for a kind, which has no name": defective - asked["Defect Classification"],
        "not asked for a place: no mask, or too many of the nine cells": defective
        - asked["Defect Localization"],
    }
    lines = [
        f"{number_of(asked.total(), 'question')} on {number_of(len(questions), 'image')} of "
        f"{number_of(len(line.references), 'product')}, {number_of(references, 'reference image')}",
        "",
        columns([("questions", ""), *rows], right_from=1),
        "",
        *(f"{what}: {count:,} of {defective:,} defective images" for what, count in spared.items() if count),
        *findings_summary(list(line.findings), out / FINDINGS),
        f"To run on it: emit-bench run --data {out} --models emit,internvl3-base",
        "With the shipped miniature models, to try it out: add --weights emit=packaged:emit "
        "--weights internvl3-base=packaged:internvl3-base",
    ]
    if training is not None:
        lines.append(f"To train for it: emit-bench train emit --data {training}/train.jsonl")
    return "\n".join(lines)
