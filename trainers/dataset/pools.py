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
from trainers.dataset.choice import rank, share_of, shuffled
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
        self._owners: dict[str, tuple[str, str, str]] = {}  # digest -> product, pool, file of the first
        self._contradicted: set[str] = set()  # digests of images that have two labels

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
        if sampling.split != "product" or not sampling.held_out:
            return set()
        order = shuffled(keys, sampling.seed, "held-out products")
        return set(order[: max(1, round(sampling.held_out * len(keys)))])

    def _product(self, key: tuple[str, str], images: Sequence[RawImage], aside: bool) -> Product:
        pools: dict[str, list[RawImage]] = defaultdict(list)
        for image in images:
            pools[image.defect or image.condition].append(image)
        drawn = [one for pool, members in sorted(pools.items()) for one in self._drawn(key, pool, members)]
        sound = (image for image in drawn if image.digest not in self._contradicted)
        usable = sorted(sound, key=lambda image: image.raw.name)
        chosen = self._chosen(usable, aside)
        held = {unit_of(one.image) for one in chosen if one.held_out}
        normals = [image for image in usable if image.raw.condition == "normal"]
        kept = tuple(image for image in normals if aside or unit_of(image) not in held)
        return Product(*key, images[0].noun, tuple(chosen), kept)

    def _drawn(self, key: tuple[str, str], pool: str, members: Sequence[RawImage]) -> list[Inspected]:
        """The images of one pool that take part; one that does not gives way to the next."""
        wanted = self.sampling.per_type
        if members[0].condition == "normal":
            wanted = max(wanted, self.sampling.normals)
        order = iter(shuffled(members, self.sampling.seed, *key, pool, key=lambda image: image.name))
        kept: list[Inspected] = []
        while len(kept) < wanted and (some := list(islice(order, wanted - len(kept)))):
            for image in map(self._relabelled, self.inspector.inspect(some)):
                self.findings += image.findings
                if image.usable and self._admitted(image, "/".join(key), pool):
                    kept.append(image)
        return kept

    def _admitted(self, image: Inspected, product: str, pool: str) -> bool:
        """Whether the image's bytes are its own: no benchmark's, no other image's."""
        file = f"{image.raw.dataset}/{image.raw.name}"
        if image.digest in self.banned:
            sentence = "the benchmark asks about this very image; it is not trained on"
            self.findings.append(Finding("benchmark-image", file, sentence, left_out=True))
            return False
        owner = self._owners.setdefault(image.digest, (product, pool, file))
        if owner[2] == file:
            return True
        if owner[0] == product and owner[1] != pool:
            sentence = "the same bytes lie in another folder too, so one of the two labels is wrong"
            for name in (file,) if image.digest in self._contradicted else (owner[2], file):
                self.findings.append(Finding("contradiction", name, sentence, left_out=True))
            self._contradicted.add(image.digest)
            return False
        self.findings.append(Finding("twin", file, f"its bytes are those of {owner[2]}", left_out=True))
        return False

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
            names = (raw.dataset, raw.object, pool)
            asked = sorted(members, key=lambda i: rank(sampling.seed, *names, i.raw.name))[
                : sampling.per_type
            ]
            share = sampling.held_out if sampling.split == "image" else 0.0
            held = set_aside(asked, share, sampling.seed, *names)
            found += [Chosen(image, aside or image.raw.name in held) for image in asked]
        return sorted(found, key=lambda one: one.image.raw.name)


def unit_of(image: Inspected) -> str:
    """What is never divided: the images of one specimen, else files of the same bytes."""
    return image.raw.part or image.digest


def set_aside(images: Sequence[Inspected], share: float, seed: int, *names: str) -> set[str]:
    """Names of the images that a share sets aside, whole units by their ranks."""
    units: dict[str, list[Inspected]] = defaultdict(list)
    for image in images:
        units[unit_of(image)].append(image)
    count = share_of(share, len(images), seed, *names)
    aside: set[str] = set()
    for unit in shuffled(units, seed, "aside"):
        if len(aside) >= count:
            break
        aside |= {image.raw.name for image in units[unit]}
    return aside


def without_twins(images: Sequence[Inspected]) -> tuple[list[Inspected], list[Finding]]:
    """Images without those whose bytes were there before; both sides of a contradiction go."""
    labels: dict[str, set[str]] = defaultdict(set)
    for image in images:
        labels[image.digest].add(f"{image.raw.object}/{image.raw.defect or image.raw.condition}")
    kept: dict[str, Inspected] = {}
    findings = []
    for image in images:
        file = f"{image.raw.dataset}/{image.raw.name}"
        if len(labels[image.digest]) > 1:
            sentence = "the same bytes lie in another folder too, so one of the two labels is wrong"
            findings.append(Finding("contradiction", file, sentence, left_out=True))
        elif image.digest in kept:
            sentence = f"its bytes are those of {image.raw.dataset}/{kept[image.digest].raw.name}"
            findings.append(Finding("twin", file, sentence, left_out=True))
        else:
            kept[image.digest] = image
    return list(kept.values()), findings
