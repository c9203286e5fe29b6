"""Real-IAD: ``<object>/OK/<id>/*.jpg`` and ``<object>/NG/<code>/<id>/X.jpg`` beside the mask ``X.png``.

A part is photographed from several sides. A side that has no mask does not show the defect, so it is neither
normal nor defective and takes no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.raw import RawDataset, RawImage
from plugins.layouts.names import Names, read_names
from plugins.layouts.tree import Tree

#: What the dataset's codes of defects mean.
CODES = {
    "AK": "pit", "BX": "deformation", "CH": "abrasion", "HS": "scratch",
    "PS": "damage", "QS": "missing parts", "YW": "foreign objects", "ZW": "contamination",
}  # fmt: skip
_PHOTO = frozenset({".jpg", ".jpeg"})
_MASK = ".png"


def read_real_iad(root: Path) -> RawDataset:
    """A folder in Real-IAD's layout.

    Raises:
        BadInput: a folder cannot be listed, or ``names.json`` is unfit.
    """
    tree, names = Tree(root), read_names(root, CODES)
    images: list[RawImage] = []
    for product in tree.folders():
        sides = tree.folders(product)
        if not {"OK", "NG"} & set(sides):
            tree.unexpected(product, "it holds neither OK nor NG")
            continue
        for side in sides:
            if side not in ("OK", "NG"):
                tree.unexpected(f"{product}/{side}")
        for part in tree.folders(f"{product}/OK"):
            place = f"{product}/OK/{part}"
            images += (_image(tree, names, f"{place}/{file}") for file in tree.images(place))
        for code in tree.folders(f"{product}/NG"):
            if code not in names.kinds:
                sentence = f"the code {code!r} is not known; name it in names.json"
                tree.report("unknown-code", f"{product}/NG/{code}", sentence, left_out=False)
            for part in tree.folders(f"{product}/NG/{code}"):
                images += _defective(tree, names, f"{product}/NG/{code}/{part}", code)
    return RawDataset(tree.dataset, root, tuple(images), tuple(tree.findings))


def _defective(tree: Tree, names: Names, place: str, code: str) -> Iterator[RawImage]:
    files = tree.images(place)
    masks = {Path(file).stem: file for file in files if Path(file).suffix.lower() == _MASK}
    photos = [file for file in files if Path(file).suffix.lower() in _PHOTO]
    for file in photos:
        mask = masks.pop(Path(file).stem, None)
        if mask is None:
            sentence = "no mask lies beside it, so its defect is not seen from this side"
            tree.report("mask-missing", f"{place}/{file}", sentence, left_out=True)
            continue
        yield _image(tree, names, f"{place}/{file}", code, (tree.root / place / mask,))
    for file in masks.values():
        sentence = "no photograph lies beside this mask; restore it or remove the mask"
        tree.report("image-missing", f"{place}/{file}", sentence, left_out=True)
    for file in files:
        if Path(file).suffix.lower() not in (*_PHOTO, _MASK):
            sentence = "photographs are JPEG and masks PNG here; it is not read"
            tree.report("unexpected-format", f"{place}/{file}", sentence, left_out=True)


def _image(tree: Tree, names: Names, name: str, code: str = "", masks: tuple[Path, ...] = ()) -> RawImage:
    product = name.split("/", 1)[0]
    return RawImage(
        dataset=tree.dataset,
        object=product,
        noun=names.noun(product),
        name=name,
        path=tree.root / name,
        condition="defective" if code else "normal",
        split="NG" if code else "OK",
        defect=code,
        kind=names.kind(code) if code in names.kinds else "",
        masks=masks,
        part=name.rsplit("/", 1)[0],
    )
