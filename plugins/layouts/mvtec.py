"""The layout of MVTec AD, and of the many datasets that follow it.

``<object>/<train|validation|test>/<good or kind>/X.png`` with masks in ``<object>/ground_truth/<kind>/``,
as ``X_mask.png``, ``X.png``, or a folder ``X`` of masks to be merged (MVTec LOCO).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.raw import RawDataset, RawImage
from plugins.layouts.names import NORMAL, Names, read_names
from plugins.layouts.tree import Tree

SPLITS = ("train", "validation", "test")
MASKS = "ground_truth"


def read_mvtec(root: Path, *, tested: bool = False) -> RawDataset:
    """A folder in MVTec layout: a folder of products, or one product's own folder.

    Args:
        root: of the dataset; its name becomes the dataset's.
        tested: whether MMAD asks about its test images.

    Raises:
        BadInput: a folder cannot be listed, or ``names.json`` is unfit.
    """
    name = root.resolve().name
    tree, names = Tree(root, name), read_names(root)
    images: list[RawImage] = []
    inside = tree.folders()
    if not set(inside).isdisjoint(SPLITS):
        images += _product(tree, names, "", name)
        inside = tuple(folder for folder in inside if folder not in (*SPLITS, MASKS))
    for folder in inside:
        found = list(_product(tree, names, f"{folder}/", folder))
        if not found and set(tree.folders(folder)).isdisjoint(SPLITS):
            sentence = f"it holds none of {', '.join(SPLITS)}; it is not read"
            tree.report("unexpected-folder", folder, sentence, left_out=True)
        images += found
    return RawDataset(name, root, tuple(images), tuple(tree.findings), tested)


def _product(tree: Tree, names: Names, prefix: str, product: str) -> Iterator[RawImage]:
    masks = {kind: _Masks(tree, f"{prefix}{MASKS}/{kind}") for kind in tree.folders(f"{prefix}{MASKS}")}
    for split in SPLITS:
        for kind in tree.folders(f"{prefix}{split}"):
            place = f"{prefix}{split}/{kind}"
            normal = kind.lower() in NORMAL
            for file in tree.images(place):
                name = f"{place}/{file}"
                found: tuple[Path, ...] = ()
                if not normal:
                    found = masks[kind].take(Path(file).stem) if kind in masks else ()
                    if not found:
                        sentence = "there is no mask of it, so nothing is asked about the defect's place"
                        tree.report("mask-missing", name, sentence, left_out=False)
                yield RawImage(
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
    for unpaired in masks.values():
        unpaired.report_unpaired()


class _Masks:
    """The masks of one kind of defect, by the stem of their image."""

    def __init__(self, tree: Tree, place: str) -> None:
        self.tree = tree
        self.place = place
        self.by_stem: dict[str, list[str]] = {}
        folders = [f for f in tree.folders(place) if f.isprintable()]
        for folder in folders:
            files = tree.images(f"{place}/{folder}")
            self.by_stem[folder] = [f"{place}/{folder}/{file}" for file in files]
        for file in _flat(tree, place, folders):
            self.by_stem.setdefault(Path(file).stem.removesuffix("_mask"), []).append(f"{place}/{file}")
        self.taken: set[str] = set()

    def take(self, stem: str) -> tuple[Path, ...]:
        """The masks of an image; an image called like a mask (``X_mask``) is asked for by its whole stem."""
        key = stem if stem in self.by_stem else stem.removesuffix("_mask")
        self.taken.add(key)
        return tuple(self.tree.root / name for name in self.by_stem.get(key, ()))

    def report_unpaired(self) -> None:
        """Masks whose image is missing."""
        for stem in sorted(set(self.by_stem) - self.taken):
            for name in self.by_stem[stem]:
                sentence = "there is no image that this mask is of; restore it or remove the mask"
                self.tree.report("image-missing", name, sentence, left_out=True)


def _flat(tree: Tree, place: str, folders: list[str]) -> tuple[str, ...]:
    """The images directly in a folder whose sub-folders are expected."""
    before = len(tree.findings)
    files = tree.images(place)
    expected = {f"{tree.dataset}/{place}/{folder}" for folder in folders}
    tree.findings[before:] = [f for f in tree.findings[before:] if f.file not in expected]
    return files
