"""The mini training set: EMIT's four tasks on products of the training families, and texts about the rest.

Every family of the training world in several looks; pictures of these are queries. Of the benchmark's own
products only normal reference pictures are shown, with a text in the query's stead: as in the paper, no
picture that the benchmark asks about is ever trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.subtasks import RAW_TYPES
from plugins.mini import benchmark
from plugins.mini.benchmark import Product, nearest, stream, thumbnail, visible_shot
from plugins.mini.catalogue import FAMILIES, TRAINING
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.questions import (
    CELLS,
    Choice,
    anomaly_question,
    class_question,
    defect_choices,
    defect_questions,
    knowledge,
    sentence,
)
from plugins.mini.render import shoot

SEED = 23
SIZE = 224  #: pixels a side, as in the benchmark
LOOKS = 8  #: products a family
REFERENCES, NORMAL, DEFECTIVE = 2, 4, 8  #: pictures a product
KINDS = 5  #: defect kinds a product
TEXT_REFERENCES = 5  #: reference pictures a benchmark product that texts are written to
TEXT_DEFECTS = 2  #: defective texts a reference picture, beside the normal one
ROWS = "train.jsonl"
#: Tasks that EMIT trains; the benchmark's other three are not asked here.
TASKS = frozenset(
    {"Anomaly Detection", "Defect Classification", "Defect Localization", "Object Classification"}
)


def training_products(seed: int = SEED, looks: int = LOOKS) -> Iterator[tuple[str, Product]]:
    """(folder, product) of every training family in several looks, each with its kinds of defect."""
    for noun in TRAINING:
        family = FAMILIES[noun]
        for number in range(looks):
            folder = f"{family.dataset}/{noun.replace(' ', '_')}_{number}"
            rng = stream(seed, folder)
            design = family.design(family.random_look(rng))
            fitting = [kind for kind in DEFECTS.values() if kind.fits(design)]
            chosen = [fitting[i] for i in rng.permutation(len(fitting))[:KINDS]]
            yield folder, Product(design, tuple(sorted(chosen, key=lambda kind: kind.name)))


def files(seed: int = SEED, looks: int = LOOKS) -> Iterator[tuple[str, bytes]]:
    """Every file of the training set: (path relative to its root, bytes); the rows come last."""
    rows: list[dict[str, Any]] = []
    for folder, product in training_products(seed, looks):
        yield from _queries(folder, product, seed, rows)
    for product in benchmark.products():
        yield from _texts(product, seed, rows)
    yield ROWS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write_training_set(folder: Path, seed: int = SEED, looks: int = LOOKS) -> Path:
    """Write the training set into a folder; returns the path of its rows."""
    for name, data in files(seed, looks):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / ROWS


def _queries(
    folder: str, product: Product, seed: int, rows: list[dict[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    references, paths = [], []
    for number in range(REFERENCES):
        path = f"{folder}/reference/{number:03d}.jpg"
        pixels = shoot(product.design, stream(seed, path), SIZE).pixels
        references.append(thumbnail(pixels))
        paths.append(path)
        yield path, _jpeg(pixels)
    shots: list[tuple[str, Defect | None]] = [(f"good_{n:03d}", None) for n in range(NORMAL)]
    for number in range(DEFECTIVE):
        kind = product.kinds[number % len(product.kinds)]
        shots.append((f"{kind.folder}_{number // len(product.kinds):03d}", kind))
    for stem, defect in shots:
        path = f"{folder}/query/{stem}.jpg"
        rng = stream(seed, path)
        shot = visible_shot(product.design, rng, SIZE, defect)
        yield path, _jpeg(shot.pixels)
        choices = [anomaly_question(defect), *defect_questions(shot)]
        if defect is None:
            choices.append(class_question(product.design))
        chosen = paths[nearest(thumbnail(shot.pixels), references)[0]]
        rows += _rows(product, choices, rng, f"{folder}/{stem}", reference=chosen, query=path)


def _texts(product: Product, seed: int, rows: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    for number in range(TEXT_REFERENCES):
        source = f"{product.folder}/train/good/{number:03d}.png"
        path = f"text/{product.folder}/{number:03d}.jpg"
        yield path, _jpeg(shoot(product.design, stream(benchmark.SEED, source), SIZE).pixels)
        rng = stream(seed, path)
        for turn in range(1 + TEXT_DEFECTS):
            kinds = product.kinds
            defect = None if turn == 0 else kinds[int(rng.random_sample() * len(kinds))]
            cell = int(rng.random_sample() * 9)
            choices = [anomaly_question(defect)]
            choices += [] if defect is None else defect_choices(defect, [cell])
            lines = [f"product: {sentence(product.design.family.noun)}"]
            lines += ["defect: Normal."] if defect is None else [
                f"defect: {sentence(defect.name)}",
                f"place: {CELLS[cell]}",
            ]  # fmt: skip
            name = f"text/{product.folder}/{number}/{turn}"
            rows += _rows(product, choices, rng, name, reference=path, description="\n".join(lines))


def _rows(
    product: Product,
    choices: list[Choice],
    rng: np.random.RandomState,
    name: str,
    *,
    reference: str,
    query: str | None = None,
    description: str = "",
) -> Iterator[dict[str, Any]]:
    dataset, thing = product.folder.split("/")
    for choice in choices:
        if choice.raw_type not in TASKS:
            continue
        dealt = choice.deal(rng)
        evidence = f"{choice.evidence} " if choice.evidence else ""
        yield {
            "id": f"{name}/{RAW_TYPES[choice.raw_type]}",
            "dataset": dataset,
            "object": thing,
            "task": RAW_TYPES[choice.raw_type],
            "references": [reference],
            "query": query,
            "description": description,
            "question": choice.text,
            "options": dealt["Options"],
            "answer": dealt["Answer"],
            "knowledge": list(knowledge(product.design, product.kinds).values()),
            "rationale": f"I see: {evidence}{choice.truth}",
        }


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
