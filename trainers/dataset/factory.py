"""Anybody's product line as a benchmark in MMAD's format, and as a training set beside it.

Good and defective photographs with masks become queries and references: normal images of the ``train`` split
are references and never asked about, as in MMAD; everything else is asked the four tasks by rule.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.jsonfiles import write_json
from harness.mmad import KNOWLEDGE_FILE, QUESTIONS_FILE
from harness.raw import Finding, RawDataset, RawImage
from harness.records import is_normal
from harness.subtasks import (
    ANOMALY_DISCRIMINATION,
    DEFECT_CLASSIFICATION,
    DEFECT_LOCALIZATION,
    OBJECT_CLASSIFICATION,
)
from trainers.dataset.choice import shuffled
from trainers.dataset.inspection import Inspected, Inspector, content_of
from trainers.dataset.output import bring
from trainers.dataset.pools import set_aside, without_twins
from trainers.dataset.retrieval import FeatureStore
from trainers.dataset.tasks import Draft, NotAsked, Rules, Subject, Vocabulary, ask, deal
from trainers.dataset.texts import Texts

TEMPLATES = 5  #: references listed a query
#: The subtasks as ``mmad.json`` calls them.
RAW_TYPES = {
    ANOMALY_DISCRIMINATION: "Anomaly Detection",
    DEFECT_CLASSIFICATION: "Defect Classification",
    DEFECT_LOCALIZATION: "Defect Localization",
    OBJECT_CLASSIFICATION: "Object Classification",
}
Questions = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Line:
    """A product line, divided."""

    queries: tuple[Inspected, ...]  #: what the benchmark asks about
    references: Mapping[str, tuple[Inspected, ...]]  #: object -> its normal images to compare with
    training: RawDataset | None  #: what a training set can be built from
    findings: tuple[Finding, ...]


def divide(
    dataset: RawDataset, inspector: Inspector, *, training: float = 0.0, split: str = "image", seed: int = 0
) -> Line:
    """Inspect a product line and divide it into benchmark and training set.

    Args:
        dataset: the folder, read.
        inspector: opens the images.
        training: share of the queries that goes to the training set.
        split: ``image`` divides every kind of every product, ``product`` keeps products whole.
        seed: of the division, which goes by content.

    Raises:
        BadInput: no product is left for one of the two, or a product has no reference.
    """
    inspected = list(inspector.inspect(dataset.images))
    usable, twins = without_twins([image for image in inspected if image.usable])
    findings = [*dataset.findings, *(f for image in inspected for f in image.findings), *twins]
    references = _references(usable, seed)
    shown = {image.raw.name for images in references.values() for image in images}
    queries = [image for image in usable if image.raw.name not in shown]
    learnt = _learnt(queries, training, split, seed)
    asked = tuple(image for image in queries if image.raw.name not in learnt)
    shown_to = {image.raw.object for image in asked}
    for image in asked:
        if not references[image.raw.object]:
            raise BadInput(
                f"{dataset.root}: product {image.raw.object} has no normal image to compare with; put some "
                "into train/good"
            )
    if not asked:
        told = f" (first finding: {findings[0]})" if findings else ""
        if learnt and split == "product":
            told = "; one product cannot be divided, so use --split image"
        raise BadInput(
            f"{dataset.root}: no image is left to ask about; put photographs into test/good and test/KIND"
            + told
        )
    part = None
    if training:
        products = {image.raw.object for image in usable if image.raw.name in learnt}
        images = tuple(
            image.raw
            for image in usable
            if image.raw.name in learnt or (image.raw.name in shown and image.raw.object in products)
        )
        if not learnt:
            raise BadInput(f"{dataset.root}: no image is left to train on; add photographs, or ask for more")
        part = replace(dataset, images=images, findings=())
    kept = {name: images for name, images in references.items() if name in shown_to}
    return Line(asked, kept, part, tuple(findings))


def _references(usable: Sequence[Inspected], seed: int) -> dict[str, tuple[Inspected, ...]]:
    """Normal images of the train split; where there is none, half of the normal ones."""
    normals: dict[str, list[Inspected]] = {image.raw.object: [] for image in usable}
    for image in usable:
        if image.raw.condition == "normal":
            normals[image.raw.object].append(image)
    found = {}
    for name, images in normals.items():
        train = [image for image in images if image.raw.split == "train"]
        half = shuffled(images, seed, "reference", key=lambda image: image.digest)[: (len(images) + 1) // 2]
        found[name] = tuple(sorted(train or half, key=lambda image: image.raw.name))
    return found


def _learnt(queries: Sequence[Inspected], share: float, split: str, seed: int) -> set[str]:
    """Names of the queries that go to the training set."""
    groups: dict[str, list[Inspected]] = defaultdict(list)
    for image in queries:
        groups[image.raw.object if split == "product" else f"{image.raw.object}/{image.raw.defect}"].append(
            image
        )
    if split == "product":
        order = shuffled(groups, seed, "learnt")
        products = order[: max(1, round(share * len(order)))] if share else []
        return {image.raw.name for name in products for image in groups[name]}
    return {name for group, images in groups.items() for name in set_aside(images, share, seed, group)}


def write_benchmark(
    line: Line, dataset: str, out: Path, store: FeatureStore, rules: Rules, texts: Texts
) -> Questions:
    """Write a benchmark in MMAD's format into an empty folder; returns the questions by image key.

    Args:
        line: the product line.
        dataset: what the benchmark calls it: the first part of every key.
        out: the folder.
        store: gives the features that references are ranked by.
        rules: how questions are made.
        texts: knowledge on the products; may be empty.
    """
    _check_names(line, dataset)
    similar = _similar(line, store)
    questions = _questions(line, rules)
    table: dict[str, Any] = {}
    for image in line.queries:
        raw, conversation = image.raw, questions.get(image.raw.name, [])
        key = _key(dataset, raw)
        bring(raw.path, out / key, image.digest)
        pool = line.references[raw.object]
        ranked = [pool[i].raw for i in similar[raw.name]]
        drawn = shuffled((one.raw for one in pool), rules.seed, "template", key, key=lambda one: one.name)
        table[key] = {
            "image_path": key.split("/", 2)[2],
            "mask_path": _mask(dataset, raw, out),
            "similar_templates": [_key(dataset, one) for one in ranked[:TEMPLATES]],
            "random_templates": [_key(dataset, one) for one in drawn[:TEMPLATES]],
            "conversation": conversation,
        }
    for images in line.references.values():
        for image in images:
            bring(image.raw.path, out / _key(dataset, image.raw), image.digest)
    known = _knowledge(line, dataset, texts)
    if known:
        write_json(out / KNOWLEDGE_FILE, {dataset: known})
    write_json(out / QUESTIONS_FILE, table)
    return {key: entry["conversation"] for key, entry in table.items()}


def _knowledge(line: Line, dataset: str, texts: Texts) -> dict[str, dict[str, str]]:
    """Product -> what is known about it.

    Raises:
        BadInput: there are texts, and none is of a product of the line.
    """
    own = line.queries[0].raw.dataset
    told = texts.knowledge.get(dataset, texts.knowledge.get(own, {}))
    known = {name: dict(told[name]) for name in line.references if told.get(name)}
    if texts.knowledge and not known:
        raise BadInput(
            f"the knowledge file tells of {', '.join(texts.knowledge)} and of no product of {own}; its keys "
            f"must be {own} and below it {', '.join(line.references)}"
        )
    return known


def _check_names(line: Line, dataset: str) -> None:
    """Refuse, before anything is written, what MMAD's format cannot tell apart."""
    owners: dict[str, RawImage] = {}
    for image in (*line.queries, *(one for pool in line.references.values() for one in pool)):
        key = _key(dataset, image.raw)
        if key in owners:
            raise BadInput(f"{image.raw.path} and {owners[key].path} become one name; rename one of them")
        owners[key] = image.raw


def _similar(line: Line, store: FeatureStore) -> dict[str, tuple[int, ...]]:
    """Name of a query -> its references, the most similar first, by place in the product's list."""
    found: dict[str, tuple[int, ...]] = {}
    for name, pool in line.references.items():
        queries = [image for image in line.queries if image.raw.object == name]
        ranked = store.nearest(map(content_of, queries), map(content_of, pool), TEMPLATES)
        found.update(zip((image.raw.name for image in queries), ranked, strict=True))
    return found


def _questions(line: Line, rules: Rules) -> Questions:
    """Name of a query -> its conversation."""
    shown = (image for pool in line.references.values() for image in pool)
    names = Vocabulary.of(image.raw for image in (*line.queries, *shown))
    drafts: list[Draft] = []
    owners: list[str] = []
    for image in line.queries:
        for asked in ask(Subject.of(image), names, rules):
            if not isinstance(asked, NotAsked):
                drafts.append(asked)
                owners.append(image.raw.name)
    found: Questions = defaultdict(list)
    for name, dealt in zip(owners, deal(drafts, rules), strict=True):
        found[name].append(
            {
                "Question": dealt.draft.question,
                "Answer": dealt.answer,
                "Options": dealt.options,
                "type": RAW_TYPES[dealt.draft.task],
                "annotation": True,
            }
        )
    return found


def _key(dataset: str, raw: RawImage) -> str:
    """An image's path in the benchmark, which says ``good`` exactly where the image is normal.

    Raises:
        BadInput: the folder of a defective image says so too.
    """
    kind = "good" if raw.condition == "normal" else raw.defect
    file = raw.name.rsplit("/", 1)[1]
    key = f"{dataset}/{raw.object}/{raw.split}/{kind}/{file}"
    if is_normal(key) != (raw.condition == "normal"):
        part = next(part for part in (dataset, raw.object, kind, file) if is_normal(part))
        raise BadInput(
            f"{raw.path}: {part!r} holds the word good, by which MMAD tells normal images; rename it, or "
            "pass --name where it is the folder's"
        )
    return key


def _mask(dataset: str, raw: RawImage, out: Path) -> str:
    """Bring the masks into the benchmark; returns what ``mask_path`` says: a file, or a folder of several."""
    if not raw.masks:
        return ""
    stem = raw.name.rsplit("/", 1)[1].rsplit(".", 1)[0]
    place = f"ground_truth/{raw.defect}/{stem}"
    if len(raw.masks) == 1:
        name = f"{place}_mask{raw.masks[0].suffix}"
        shutil.copyfile(raw.masks[0], _made(out / dataset / raw.object / name))
        return name
    for path in raw.masks:
        shutil.copyfile(path, _made(out / dataset / raw.object / place / path.name))
    return place


def _made(path: Path) -> Path:
    """A path whose folder exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
