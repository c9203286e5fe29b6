"""Which images of a dataset take part: a seeded sample of each pool, inspected, without twins.

A pool is what a product shows in one way: a kind of defect, or its normal condition. Images that are damaged
give way to the next ones of their pool, and each ends in a finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from harness.raw import Finding, RawDataset, RawImage
from trainers.dataset.choice import rank, shuffled
from trainers.dataset.inspection import Inspected, Inspector

SPLITS = ("image", "product")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many images take part, and what becomes of them."""

    seed: int = 0
    per_type: int = 100  #: images a pool, at most (released code)
    normals: int = 1000  #: normal images a product among which references are sought, at most
    held_out: float = 0.0  #: share that goes to the held-out file
    split: str = "image"  #: what is held out: images of every product, or whole products
    release: bool = False  #: an image whose mask is empty counts as normal


@dataclass(frozen=True, slots=True)
class Chosen:
    """An image that is asked about."""

    image: Inspected
    held_out: bool


@dataclass(frozen=True, slots=True)
class Product:
    """What takes part of one product."""

    dataset: str
    object: str
    noun: str
    chosen: tuple[Chosen, ...]  #: in the order of their names
    normals: tuple[Inspected, ...]  #: what references are sought among; none is held out


class Pools:
    """Draws from datasets, product by product.

    Args:
        inspector: opens the images.
        sampling: how many.
        banned: digests of images that must not take part: a benchmark's queries.
        findings: what is wrong with images is added to it.
    """

    def __init__(
        self, inspector: Inspector, sampling: Sampling, banned: frozenset[str], findings: list[Finding]
    ) -> None:
        self.inspector = inspector
        self.sampling = sampling
        self.banned = banned
        self.findings = findings
        self._taken: dict[str, str] = {}  # digest -> the image that has it

    def products(self, datasets: Sequence[RawDataset]) -> Iterator[Product]:
        """The products of all datasets, in order."""
        by_product: dict[tuple[str, str], list[RawImage]] = defaultdict(list)
        for dataset in datasets:
            for image in dataset.images:
                by_product[image.dataset, image.object].append(image)
        aside = self._products_aside(list(by_product))
        for key, images in by_product.items():
            yield self._product(key, images, key in aside)

    def _products_aside(self, keys: list[tuple[str, str]]) -> set[tuple[str, str]]:
        sampling = self.sampling
        if sampling.split != "product":
            return set()
        order = shuffled(keys, sampling.seed, "held-out products")
        return set(order[: round(sampling.held_out * len(keys))])

    def _product(self, key: tuple[str, str], images: Sequence[RawImage], aside: bool) -> Product:
        pools: dict[str, list[RawImage]] = defaultdict(list)
        for image in images:
            pools[image.defect or image.condition].append(image)
        seen, usable = self._inspected(key, pools)
        usable, doubled = without_twins(usable, self._taken)
        self.findings += [*(finding for image in seen for finding in image.findings), *doubled]
        banned = [one for one in usable if one.digest in self.banned]
        sentence = "the benchmark asks about this very image; it is not trained on"
        self.findings += [
            Finding("benchmark-image", f"{o.raw.dataset}/{o.raw.name}", sentence, True) for o in banned
        ]
        usable = [one for one in usable if one.digest not in self.banned]
        chosen = self._chosen(usable, aside)
        held = {one.image.digest for one in chosen if one.held_out}
        kept = tuple(i for i in usable if i.raw.condition == "normal" and (aside or i.digest not in held))
        return Product(*key, images[0].noun, tuple(chosen), kept)

    def _inspected(
        self, key: tuple[str, str], pools: dict[str, list[RawImage]]
    ) -> tuple[list[Inspected], list[Inspected]]:
        """All images that were opened, and those of them that take part, in the order of their names."""
        seen: list[Inspected] = []
        usable: list[Inspected] = []
        for pool, members in sorted(pools.items()):
            normal = members[0].condition == "normal"
            wanted = max(self.sampling.normals, self.sampling.per_type) if normal else self.sampling.per_type
            order = iter(shuffled(members, self.sampling.seed, *key, pool, key=lambda image: image.name))
            while wanted > 0 and (some := list(islice(order, wanted))):
                opened = [self._relabelled(image) for image in self.inspector.inspect(some)]
                fine = [image for image in opened if image.usable]
                seen += opened
                usable += fine
                wanted -= len(fine)
        return seen, sorted(usable, key=lambda image: image.raw.name)

    def _relabelled(self, image: Inspected) -> Inspected:
        """The released code takes an image whose mask marks nothing for a normal one."""
        if not (self.sampling.release and any(f.name == "mask-empty" for f in image.findings)):
            return image
        told = tuple(
            replace(f, sentence="the mask marks nothing; it counts as normal", left_out=False)
            if f.name == "mask-empty"
            else f
            for f in image.findings
        )
        raw = replace(image.raw, condition="normal", defect="", kind="", masks=())
        return replace(image, raw=raw, mask=None, findings=told)

    def _chosen(self, usable: Sequence[Inspected], aside: bool) -> list[Chosen]:
        sampling = self.sampling
        pools: dict[str, list[Inspected]] = defaultdict(list)
        for image in usable:
            pools[image.raw.defect or image.raw.condition].append(image)
        found = []
        for pool, members in sorted(pools.items()):
            raw = members[0].raw
            order = sorted(
                members, key=lambda i: rank(sampling.seed, raw.dataset, raw.object, pool, i.raw.name)
            )
            asked = order[: sampling.per_type]
            # By content, so that an image has its side whatever it is called.
            sides = sorted(asked, key=lambda image: rank(sampling.seed, "held out", image.digest))
            count = round(sampling.held_out * len(asked)) if sampling.split == "image" else 0
            held = {image.digest for image in sides[:count]}
            found += [Chosen(image, aside or image.digest in held) for image in asked]
        return sorted(found, key=lambda one: one.image.raw.name)


def without_twins(
    images: Sequence[Inspected], taken: dict[str, str]
) -> tuple[list[Inspected], list[Finding]]:
    """Images without those whose bytes were there before; both sides of a contradiction go.

    ``taken`` remembers, across products, which digest is whose.
    """
    conditions: dict[str, set[str]] = defaultdict(set)
    for image in images:
        conditions[image.digest].add(image.raw.defect or image.raw.condition)
    kept, findings = [], []
    for image in images:
        file = f"{image.raw.dataset}/{image.raw.name}"
        if len(conditions[image.digest]) > 1:
            sentence = "the same bytes lie in another folder too, so one of the two labels is wrong"
            findings.append(Finding("contradiction", file, sentence, left_out=True))
        elif image.digest in taken:
            sentence = f"its bytes are those of {taken[image.digest]}"
            findings.append(Finding("twin", file, sentence, left_out=True))
        else:
            taken[image.digest] = file
            kept.append(image)
    return kept, findings
