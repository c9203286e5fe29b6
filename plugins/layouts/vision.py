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
    tree, names = Tree(root, root.resolve().name), read_names(root)
    images = []
    for product in tree.folders():
        splits = [split for split in tree.folders(product) if split in SPLITS]
        if not splits:
            sentence = f"it holds neither {' nor '.join(SPLITS)}; it is not read"
            tree.report("unexpected-folder", product, sentence, left_out=True)
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
