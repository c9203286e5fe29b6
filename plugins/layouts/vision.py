"""VISION: ``<class>/train`` and ``<class>/val``, of which EMIT uses the pictures and the class alone."""

from __future__ import annotations

from pathlib import Path

from harness.raw import RawDataset, RawImage
from plugins.layouts.names import read_names
from plugins.layouts.tree import Tree

SPLITS = ("train", "val")


def read_vision(root: Path) -> RawDataset:
    """A folder in VISION's layout; whether a picture shows a defect is not read from it.

    Raises:
        BadInput: a folder cannot be listed, or ``names.json`` is unfit.
    """
    tree, names = Tree(root), read_names(root)
    images = []
    for product in tree.folders():
        inside = tree.folders(product)
        splits = [split for split in inside if split in SPLITS]
        if not splits:
            tree.unexpected(product, f"it holds neither {' nor '.join(SPLITS)}")
            continue
        for folder in set(inside) - set(splits):
            tree.unexpected(f"{product}/{folder}")
        images += [
            RawImage(
                dataset=tree.dataset,
                object=product,
                noun=names.noun(product),
                name=f"{product}/{split}/{file}",
                path=root / product / split / file,
                condition="unknown",
                split=split,
            )
            for split in splits
            for file in tree.images(f"{product}/{split}")
        ]
    return RawDataset(tree.dataset, root, tuple(images), tuple(tree.findings))
