"""Samples: what is asked about, with the images to show, before any question is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.raw import Finding, RawDataset, RawImage
from trainers.dataset.inspection import Inspected, Inspector, content_of
from trainers.dataset.output import Shown
from trainers.dataset.pools import Chosen, Product
from trainers.dataset.retrieval import FeatureStore
from trainers.dataset.tasks import Subject
from trainers.dataset.texts import Description


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample: what is asked about, with the images to show."""

    subject: Subject
    dataset: str
    object: str
    condition: str
    defect: str  #: in words
    images: tuple[Shown, ...]  #: references, then the query if there is one
    has_query: bool
    description: str
    held_out: bool
    source: Mapping[str, Any]


def image_entries(
    product: Product, store: FeatureStore, findings: list[Finding], *, drop_first: bool = False
) -> Iterator[Entry]:
    """The samples of one product's images, each with the normal image that is most like it.

    Args:
        product: what takes part.
        store: gives features.
        findings: images that have no reference are added to it.
        drop_first: leave out the best reference, as the released code does.
    """
    paired = [one for one in product.chosen if one.image.raw.condition != "unknown"]
    references = _references(paired, product, store, drop_first)
    for one in product.chosen:
        raw, known = one.image.raw, one.image.raw.condition != "unknown"
        found = references.get(one.image.digest, ())
        if known and not found:
            sentence = "there is no other normal image of this product to be its reference"
            findings.append(Finding("no-reference", f"{raw.dataset}/{raw.name}", sentence, True))
            continue
        subject = Subject.of(one.image)
        yield Entry(
            subject,
            raw.dataset,
            raw.object,
            raw.condition,
            raw.kind,
            (*found, Shown(raw.name, raw.path, one.image.digest)),
            True,
            "",
            one.held_out,
            {
                "file": raw.name,
                "sha256": one.image.digest,
                "split": raw.split,
                "masks": [_inside(path, raw) for path in raw.masks],
                "cells": list(subject.cells),
            },
        )


def _inside(path: Path, raw: RawImage) -> str:
    """A mask's path relative to its dataset's root, which is the image's path without its name."""
    root = raw.path.parents[raw.name.count("/")]
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _references(
    chosen: Sequence[Chosen], product: Product, store: FeatureStore, drop_first: bool
) -> dict[str, tuple[Shown, ...]]:
    """Digest of a chosen image -> its reference."""
    if not chosen or not product.normals:
        return {}
    queries = [one.image for one in chosen]
    found = store.nearest(
        map(content_of, queries), map(content_of, product.normals), 1, drop_first=drop_first
    )
    shown = [Shown(image.raw.name, image.raw.path, image.digest) for image in product.normals]
    return {query.digest: tuple(shown[i] for i in hits) for query, hits in zip(queries, found, strict=True)}


def text_entries(
    datasets: Sequence[RawDataset],
    descriptions: Sequence[Description],
    inspector: Inspector,
    findings: list[Finding],
    barred: Mapping[str, Finding],
) -> Iterator[Entry]:
    """The samples in which a description stands in for the query image; a stale one becomes a finding.

    Args:
        datasets: whose normal images stand beside the descriptions.
        descriptions: the texts.
        inspector: opens the images.
        findings: what is wrong is added to it.
        barred: digests, and products as ``dataset/object``, that may not be shown -> why.
    """
    raws = {(d.name, image.name): image for d in datasets for image in d.images}
    wanted = {key: raws[key] for one in descriptions if (key := (one.dataset, one.image)) in raws}
    inspected = {(image.raw.dataset, image.raw.name): image for image in inspector.inspect(wanted.values())}
    findings += [finding for image in inspected.values() for finding in image.findings]
    for one in descriptions:
        image = inspected.get((one.dataset, one.image))
        file = f"{one.dataset}/{one.image}"
        if image is None or image.digest != one.digest or not image.usable:
            sentence = "a text was written to another image than is there; describe it again"
            findings.append(Finding("stale-text", file, sentence, left_out=True))
            continue
        why = barred.get(image.digest) or barred.get(f"{one.dataset}/{one.object}")
        if why is not None:
            findings.append(replace(why, file=file))
            continue
        yield _described(one, image)


def _described(one: Description, image: Inspected) -> Entry:
    cells = () if one.cell is None else (one.cell,)
    kind = one.defect or "good"
    name = f"text/{one.dataset}/{one.image}/{kind}/{'' if one.cell is None else one.cell}/{one.number}"
    return Entry(
        Subject(name, image.raw.noun, one.defect is not None, one.words, cells),
        one.dataset,
        one.object,
        "normal" if one.defect is None else "defective",
        one.words,
        (Shown(one.image, image.raw.path, image.digest),),
        False,
        one.text,
        False,
        {"file": one.image, "sha256": one.digest, "defect": one.defect, "cells": list(cells)},
    )
