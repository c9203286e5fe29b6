"""Building a training set: raw datasets and texts in, rows with provenance and a manifest out.

The story in order: pools are sampled and inspected, each chosen image gets the normal image that is most like
it as reference, rules ask their questions, letters are dealt over all of them, and the rows are written.
Everything is a function of the files, the settings and the seed; what was found before is kept by content.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.census import Census
from harness.errors import BadInput
from harness.protocol import KNOWLEDGE_NAMES
from harness.raw import Finding, RawDataset
from trainers.dataset.encoders import Encoder
from trainers.dataset.entries import Entry, image_entries, text_entries
from trainers.dataset.inspection import Inspector
from trainers.dataset.output import FINDINGS, HELD_OUT, ROWS, Output
from trainers.dataset.pools import Pools, Product, Sampling
from trainers.dataset.retrieval import FeatureStore
from trainers.dataset.tasks import (
    Dealt,
    Draft,
    NotAsked,
    Rules,
    Vocabulary,
    ask,
    classify_object,
    deal,
)
from trainers.dataset.texts import Texts

#: Raised whenever the same input makes other rows.
VERSION = 1
_NO_TEXTS = Texts({}, ())


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training set is made by."""

    seed: int = 0
    preset: str = "paper"
    per_type: int = 100
    normals: int = 1000
    options: int = 4
    synonyms: bool = True
    held_out: float = 0.0
    split: str = "image"

    @property
    def sampling(self) -> Sampling:
        """The part that pools are drawn by."""
        release = self.preset == "release"
        return Sampling(self.seed, self.per_type, self.normals, self.held_out, self.split, release)

    @property
    def rules(self) -> Rules:
        """The part that questions are made by."""
        return Rules(self.seed, self.options, self.synonyms, self.preset == "release")


@dataclass
class Built:
    """What became of a build."""

    folder: Path
    census: Census
    findings: list[Finding] = field(default_factory=list)
    not_asked: Counter[str] = field(default_factory=Counter)  #: ``task: reason`` -> questions
    work: Counter[str] = field(default_factory=Counter)  #: exact counts of what was opened and computed
    rows: int = 0
    held_out: int = 0


def build(
    datasets: Sequence[RawDataset],
    out: Path,
    settings: Settings,
    encoder: Encoder,
    cache: Path,
    *,
    text_datasets: Sequence[RawDataset] = (),
    texts: Texts = _NO_TEXTS,
    banned: frozenset[str] = frozenset(),
    workers: int = 2,
    link: bool = False,
) -> Built:
    """Build a training set.

    Args:
        datasets: whose images are asked about.
        out: the folder to write.
        settings: seed, sizes, preset.
        encoder: ranks references.
        cache: folder of what inspections and encoders found before.
        text_datasets: whose normal images stand beside descriptions.
        texts: knowledge and descriptions.
        banned: digests of images that must not take part.
        workers: threads that read images.
        link: link images instead of copying them.

    Raises:
        BadInput: a dataset is one that MMAD tests, nothing is left to ask, or the folder cannot be written.
    """
    _refuse_tested(datasets)
    output = Output(out, link=link)
    built = Built(out, Census(), [f for d in (*datasets, *text_datasets) for f in d.findings])
    with (
        Inspector(cache / "inspections.sqlite", workers) as inspector,
        FeatureStore(cache / "features.sqlite", encoder, workers) as store,
    ):
        pools = Pools(inspector, settings.sampling, banned, built.findings)
        release = settings.preset == "release"
        entries = [
            entry
            for product in _watched(pools.products(datasets), datasets)
            for entry in image_entries(product, store, built.findings, drop_first=release)
        ]
        barred = _barred(entries, settings, banned)
        entries += text_entries(text_datasets, texts.descriptions, inspector, built.findings, barred)
        built.work.update(inspector.counters, features_computed=store.computed, features_read=store.read)
    if not entries:
        told = f" ({len(built.findings)} findings, the first: {built.findings[0]})" if built.findings else ""
        raise BadInput(f"no image is fit to ask about{told}; correct the folders")
    if all(entry.held_out for entry in entries):
        raise BadInput(f"--held-out {settings.held_out}: no image is left to train on; hold out less")
    images = (image for dataset in (*datasets, *text_datasets) for image in dataset.images)
    names = Vocabulary.of(images, (entry.defect for entry in entries))
    files = _write(output, entries, names, texts, settings, built)
    facts = _facts(datasets, text_datasets, encoder, texts, banned)
    output.finish(_manifest(settings, built, files, facts), (*files, FINDINGS))
    return built


def _refuse_tested(datasets: Sequence[RawDataset]) -> None:
    for dataset in datasets:
        if dataset.tested:
            raise BadInput(
                f"{dataset.root}: MMAD asks about {dataset.name}'s test images, so they are no training "
                "queries; pass it as --text-source"
            )


def _barred(entries: Sequence[Entry], settings: Settings, banned: frozenset[str]) -> dict[str, Finding]:
    """What texts may not show -> why: a benchmark's queries, and whatever is held out."""
    tested = Finding("benchmark-image", "", "the benchmark asks about the text's image; it is left out", True)
    apart = Finding("held-out", "", "the text's image or product is held out; the text is left out", True)
    held_out = [entry for entry in entries if entry.held_out]
    found = {entry.images[-1].digest: apart for entry in held_out}
    if settings.split == "product":
        found.update({f"{entry.dataset}/{entry.object}": apart for entry in held_out})
    return {**found, **dict.fromkeys(banned, tested)}


def _watched(products: Iterable[Product], datasets: Sequence[RawDataset]) -> Iterable[Product]:
    """The products with a progress bar, where somebody watches."""
    from tqdm import tqdm

    total = len({(image.dataset, image.object) for dataset in datasets for image in dataset.images})
    silent = not sys.stderr.isatty()
    watched: Iterable[Product] = tqdm(products, "products", total, file=sys.stderr, unit="", disable=silent)
    return watched


def _write(
    output: Output,
    entries: Sequence[Entry],
    names: Vocabulary,
    texts: Texts,
    settings: Settings,
    built: Built,
) -> dict[str, Any]:
    """Ask, deal, and write the rows; returns what the manifest says of the files."""
    rules = settings.rules
    owners: list[Entry] = []
    drafts: list[Draft] = []
    for entry in entries:
        for asked in _asked(entry, names, rules):
            if isinstance(asked, NotAsked):
                built.not_asked[f"{asked.task}: {asked.reason}"] += 1
            else:
                owners.append(entry)
                drafts.append(asked)
    # Each file is balanced by itself, wherever the line between them falls.
    sides = {
        held_out: deal([d for d, o in zip(drafts, owners, strict=True) if o.held_out == held_out], rules)
        for held_out in (False, True)
    }
    with output.lines(ROWS) as train, output.lines(HELD_OUT) as held_out:
        for entry in owners:
            row = _row(entry, next(sides[entry.held_out]), texts, settings, output)
            (held_out if entry.held_out else train).write(row)
            if not entry.held_out:
                built.census.add(row)
    built.rows, built.held_out = train.count, held_out.count
    with output.lines(FINDINGS) as findings:
        for finding in sorted(built.findings, key=lambda one: (one.file, one.name)):
            findings.write(asdict(finding))
    files = {ROWS: train.as_json()}
    return {**files, HELD_OUT: held_out.as_json()} if settings.held_out else files


def _asked(entry: Entry, names: Vocabulary, rules: Rules) -> Iterable[Draft | NotAsked]:
    """Where nobody says whether an image is normal (VISION), only the product is asked for."""
    if entry.condition == "unknown":
        return [classify_object(entry.subject, names, rules)]
    return ask(entry.subject, names, rules)


def _row(entry: Entry, dealt: Dealt, texts: Texts, settings: Settings, output: Output) -> dict[str, Any]:
    """One line of the training file; :mod:`trainers.samples` says what the keys mean."""
    draft = dealt.draft
    shown = [output.image(entry.dataset, image) for image in entry.images]
    query = shown.pop() if entry.has_query else None
    return {
        "id": draft.id,
        "dataset": entry.dataset,
        "object": entry.object,
        "task": draft.task,
        "references": shown,
        "query": query,
        "description": entry.description,
        "question": draft.question,
        "options": dealt.options,
        "answer": dealt.answer,
        "knowledge": list(knowledge_of(texts, entry.dataset, entry.object).values()),
        "rationale": draft.rationale,
        "condition": entry.condition,
        "defect": entry.defect,
        "source": {**entry.source, "rule": f"{settings.preset}-{VERSION}", "seed": settings.seed},
    }


def knowledge_of(texts: Texts, dataset: str, name: str) -> Mapping[str, str]:
    """What is known about a product: condition -> text, in prompt order."""
    named = dataset if dataset in texts.knowledge else KNOWLEDGE_NAMES.get(dataset, dataset)
    return texts.knowledge.get(named, {}).get(name, {})


def _facts(
    datasets: Sequence[RawDataset],
    text_datasets: Sequence[RawDataset],
    encoder: Encoder,
    texts: Texts,
    banned: frozenset[str],
) -> dict[str, Any]:
    """What the training set was made from, for its manifest."""
    roles = [("images", dataset) for dataset in datasets] + [("texts", dataset) for dataset in text_datasets]
    return {
        "sources": [{"dataset": d.name, "role": role, "images": len(d.images)} for role, d in roles],
        "encoder": {"name": encoder.name.partition("=")[0], "fingerprint": encoder.fingerprint},
        "texts": {
            "products": sum(len(objects) for objects in texts.knowledge.values()),
            "descriptions": len(texts.descriptions),
            "sha256": _sha256([texts.knowledge, [asdict(one) for one in texts.descriptions]]),
        },
        "benchmark_images": {"count": len(banned), "sha256": _sha256(sorted(banned))},
    }


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _manifest(
    settings: Settings, built: Built, files: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    left_out = Counter(finding.name for finding in built.findings if finding.left_out)
    noted = Counter(finding.name for finding in built.findings if not finding.left_out)
    return {
        "made_by": f"emit-bench {version('emit-bench')}",
        "version": VERSION,
        "settings": asdict(settings),
        **facts,
        "files": files,
        "counts": built.census.as_json(),
        "not_asked": dict(sorted(built.not_asked.items())),
        "findings": {"left_out": dict(sorted(left_out.items())), "noted": dict(sorted(noted.items()))},
    }
