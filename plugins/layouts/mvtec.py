"""The layout of MVTec AD, and of the many datasets that follow it.

``<object>/<train|validation|test>/<good or kind>/X.png`` with masks in ``<object>/ground_truth/<kind>/``,
as ``X_mask.png``, ``X.png``, or a folder ``X`` of masks to be merged (MVTec LOCO).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.raw import RawDataset, RawImage
from plugins.layouts.names import NORMAL, Names, read_names
from plugins.layouts.tree import Tree

SPLITS = ("train", "validation", "test")
MASKS = "ground_truth"


def read_mvtec(root: Path) -> RawDataset:
    """A folder in MVTec layout: a folder of products, or one product's own folder.

    Raises:
        BadInput: a folder cannot be listed, or ``names.json`` is unfit.
    """
    tree, names = Tree(root), read_names(root)
    images: list[RawImage] = []
    inside = tree.folders()
    alone = not set(inside).isdisjoint(SPLITS)
    if alone:
        images += _product(tree, names, "", tree.dataset)
    for folder in inside:
        if alone and folder in (*SPLITS, MASKS):
            continue
        if set(tree.inside(folder)).isdisjoint(SPLITS):
            tree.unexpected(folder, f"it holds none of {', '.join(SPLITS)}")
            continue
        images += _product(tree, names, f"{folder}/", folder)
    return RawDataset(tree.dataset, root, tuple(images), tuple(tree.findings))


def _product(tree: Tree, names: Names, prefix: str, product: str) -> Iterator[RawImage]:
    if names.code(product):
        sentence = f"{product!r} says no product; name it in names.json"
        tree.report("unknown-code", prefix or product, sentence, left_out=False)
    if prefix:
        for folder in tree.folders(prefix.rstrip("/")):
            if folder not in (*SPLITS, MASKS):
                tree.unexpected(f"{prefix}{folder}")
    masks = {kind: _Masks(tree, f"{prefix}{MASKS}/{kind}") for kind in tree.folders(f"{prefix}{MASKS}")}
    told: set[str] = set()
    for split in SPLITS:
        for kind in tree.folders(f"{prefix}{split}"):
            place = f"{prefix}{split}/{kind}"
            normal = kind.lower() in NORMAL
            if not normal and names.code(kind) and kind not in told:
                told.add(kind)
                sentence = f"{kind!r} says no kind of defect; name it in names.json"
                tree.report("unknown-code", place, sentence, left_out=False)
            for file in tree.images(place):
                yield _image(tree, names, product, split, kind, f"{place}/{file}", masks)
    for kind, unpaired in masks.items():
        unpaired.report_unpaired(normal=kind.lower() in NORMAL)


def _image(
    tree: Tree, names: Names, product: str, split: str, kind: str, name: str, masks: Mapping[str, _Masks]
) -> RawImage:
    normal = kind.lower() in NORMAL
    found = masks[kind].take(Path(name).stem) if not normal and kind in masks else ()
    if not normal and not found:
        sentence = "there is no mask of it, so nothing is asked about the defect's place"
        tree.report("mask-missing", name, sentence, left_out=False)
    return RawImage(
        dataset=tree.dataset,
        object=product,
        noun=names.noun(product),
        name=name,
        path=tree.root / name,
        condition="normal" if normal else "defective",
        split=split,
        defect="" if normal else kind,
        kind="" if normal else names.kind(kind),
        masks=found,
    )


class _Masks:
    """The masks of one kind of defect, by the stem of their image."""

    def __init__(self, tree: Tree, place: str) -> None:
        self.tree = tree
        self.place = place
        self.by_stem: dict[str, list[str]] = {}
        for folder in tree.inside(place):
            files = tree.images(f"{place}/{folder}")
            self.by_stem[folder] = [f"{place}/{folder}/{file}" for file in files]
        for file in tree.flat(place):
            stem = Path(file).stem.removesuffix("_mask")
            if stem in self.by_stem:
                sentence = "there is another mask of the same image; they are merged"
                tree.report("several-masks", f"{place}/{file}", sentence, left_out=False)
            self.by_stem.setdefault(stem, []).append(f"{place}/{file}")
        self.taken: set[str] = set()

    def take(self, stem: str) -> tuple[Path, ...]:
        """The masks of an image; an image called like a mask (``X_mask``) is asked for by its whole stem."""
        key = stem if stem in self.by_stem else stem.removesuffix("_mask")
        self.taken.add(key)
        return tuple(self.tree.root / name for name in self.by_stem.get(key, ()))

    def report_unpaired(self, *, normal: bool) -> None:
        """Masks whose image is missing, and masks of images that are called normal."""
        for stem in sorted(set(self.by_stem) - self.taken):
            for name in self.by_stem[stem]:
                if normal:
                    sentence = "a normal image needs no mask; it is not read"
                    self.tree.report("mask-of-normal", name, sentence, left_out=False)
                    continue
                sentence = "there is no image that this mask is of; restore it or remove the mask"
                self.tree.report("image-missing", name, sentence, left_out=True)
