"""The mini training world: other products than the benchmark's, in the raw layouts of the paper's datasets.

What the dataset builder finds in the field, it finds here:

- MPDD: ``<object>/train/good``, ``<object>/test/<good|defect>`` and ``<object>/ground_truth/<defect>``;
- Real-IAD: ``<object>/OK/<id>/*.jpg`` and ``<object>/NG/<code>/<id>/X.jpg`` beside the mask ``X.png``;
- VISION: ``<class>/train`` and ``<class>/val``, pictures only;
- the benchmark's own products as normal pictures, ``<object>/train/good``, with a knowledge file: texts stand
  in for their defects, as in the paper. None of these pictures is the benchmark's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadInput
from harness.jsonfiles import read_json
from harness.raw import RawSources, TextKind, TextRequest
from plugins.mini import benchmark
from plugins.mini.benchmark import PLAIN, Product, Strengths, stream, strength_of, visible_shot
from plugins.mini.catalogue import FAMILIES
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.questions import knowledge, sentence

#: Raised whenever a picture or a folder changes, so that an old cache is not read.
VERSION = "2"
SEED = 23
HARD_SEED = 29  #: of the world whose defects are as hard to see as those of the hard benchmark
SIZE = 224  #: pixels a side, as in the benchmark
LOOKS = 9  #: products a family
NORMAL, DEFECTIVE = 5, 8  #: pictures a product
KINDS = 5  #: kinds of defect a product
TEXT_PICTURES = 5  #: normal pictures of each of the benchmark's products
#: Families of each source.
SOURCES: dict[str, tuple[str, ...]] = {
    "MPDD": ("bracket", "bearing", "pulley", "plate", "tile", "jar", "tube"),
    "Real-IAD": ("button card", "fuse block", "candle box", "relay board", "capacitor board"),
    "VISION": ("switch board", "tin"),
}
LAYOUTS = {"MPDD": "mpdd", "Real-IAD": "real-iad", "VISION": "vision"}
#: Real-IAD's codes of the kinds that its products show.
CODES: dict[str, str] = {
    "AK": "hole", "BX": "dent", "HS": "scratch", "PS": "chip", "QS": "missing part",
    "YW": "foreign body", "ZW": "stain",
}  # fmt: skip
KNOWLEDGE = "domain_knowledge.json"
MARK = "world.json"  #: tells the describer which seed drew a world
File = tuple[str, bytes]  #: path relative to the world's root, content


@dataclass(frozen=True, slots=True)
class World:
    """A training world by its seed and size, and how well its defects show."""

    seed: int = SEED
    looks: int = LOOKS
    strengths: Strengths = PLAIN

    def product(self, source: str, folder: str) -> Product:
        """The product of a folder: its look and its kinds of defect are drawn from seed and name."""
        noun, _, number = folder.rpartition("_")
        family = FAMILIES.get(noun.replace("_", " "))
        if family is None or family.noun not in SOURCES.get(source, ()) or not number.isdecimal():
            raise BadInput(f"{source}/{folder}: there is no such product in the mini training world")
        rng = stream(self.seed, f"{source}/{folder}")
        design = family.design(family.random_look(rng))
        kinds = [kind for kind in DEFECTS.values() if kind.fits(design)]
        if source == "Real-IAD":
            kinds = [kind for kind in kinds if kind.name in CODES.values()]
        chosen = [kinds[i] for i in rng.permutation(len(kinds))[:KINDS]]
        return Product(design, tuple(sorted(chosen, key=lambda kind: kind.name)))

    def folders(self, source: str) -> list[str]:
        """The products of a source."""
        return [f"{noun.replace(' ', '_')}_{look}" for noun in SOURCES[source] for look in range(self.looks)]

    def files(self) -> Iterator[File]:
        """Every file."""
        writers = {"MPDD": self._mpdd, "Real-IAD": self._real_iad, "VISION": self._vision}
        for source, write in writers.items():
            for folder in self.folders(source):
                yield from write(self.product(source, folder), f"{source}/{folder}")
        codes = json.dumps({"kinds": CODES}, indent=1) + "\n"
        yield "Real-IAD/names.json", codes.encode()
        yield from self._texts()
        yield MARK, (json.dumps({"seed": self.seed, "looks": self.looks}) + "\n").encode()

    def _mpdd(self, product: Product, folder: str) -> Iterator[File]:
        for number in range(NORMAL):
            place = "train/good" if number < NORMAL - 2 else "test/good"
            yield self._photo(product, f"{folder}/{place}/{number:03d}.jpg")
        for number, kind in _turns(product):
            path = f"{kind.folder}/{number:03d}"
            yield from self._defective(
                product, kind, f"{folder}/test/{path}.jpg", f"{folder}/ground_truth/{path}_mask.png"
            )

    def _real_iad(self, product: Product, folder: str) -> Iterator[File]:
        codes = {name: code for code, name in CODES.items()}
        for number in range(NORMAL):
            yield self._photo(product, f"{folder}/OK/S{number // 2:04d}/view_{number % 2}.jpg")
        for number, kind in _turns(product):
            path = f"{folder}/NG/{codes[kind.name]}/S{number:04d}/view_0"
            yield from self._defective(product, kind, f"{path}.jpg", f"{path}.png")

    def _vision(self, product: Product, folder: str) -> Iterator[File]:
        for number in range(NORMAL):
            yield self._photo(product, f"{folder}/{'val' if number == 0 else 'train'}/{number:05d}.jpg")

    def _texts(self) -> Iterator[File]:
        texts: dict[str, dict[str, dict[str, str]]] = {}
        for product in benchmark.products():
            dataset, name = product.folder.split("/")
            texts.setdefault(dataset, {})[name] = knowledge(product.design, product.kinds)
            for number in range(TEXT_PICTURES):
                yield self._photo(product, f"{product.folder}/train/good/{number:03d}.jpg")
        yield KNOWLEDGE, (json.dumps(texts, indent=1) + "\n").encode()

    def _photo(self, product: Product, path: str) -> File:
        return path, _jpeg(visible_shot(product.design, stream(self.seed, path), SIZE, None).pixels)

    def _defective(self, product: Product, kind: Defect, path: str, mask: str) -> Iterator[File]:
        strength = strength_of(self.seed, path, self.strengths)
        shot = visible_shot(product.design, stream(self.seed, path), SIZE, kind, strength)
        yield path, _jpeg(shot.pixels)
        yield mask, _png(shot.mask)


def _turns(product: Product) -> Iterator[tuple[int, Defect]]:
    """(number within its kind, kind) of every defective picture; kinds take turns."""
    for number in range(DEFECTIVE):
        yield number // len(product.kinds), product.kinds[number % len(product.kinds)]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _png(mask: NDArray[np.bool_]) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def write_training_world(
    folder: Path, seed: int = SEED, looks: int = LOOKS, strengths: Strengths = PLAIN
) -> int:
    """Write the training world into a folder; returns the number of files."""
    count = 0
    for name, data in World(seed, looks, strengths).files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        count += 1
    return count


def raw_sources(root: Path, name: str = "mini") -> RawSources:
    """What a written world's training set is built from; ``name`` is that of the world."""
    texts = dict.fromkeys(product.folder.split("/")[0] for product in benchmark.products())
    return RawSources(
        name=f"{name}-{VERSION}",
        sources=tuple((LAYOUTS[source], root / source) for source in SOURCES),
        text_sources=tuple(("mvtec", root / dataset) for dataset in texts),
        knowledge=root / KNOWLEDGE,
        describer="mini",
        encoder="mini",
        # The mini model reads the nine plain words for places and no others.
        settings={"synonyms": "false", "normal_texts": "1", "defect_texts": "1", "images": "3"},
    )


def describe(request: TextRequest) -> str:
    """The text on a product of the mini training world: what its renderer knows.

    Raises:
        BadInput: the pictures lie in no mini training world.
    """
    noun = sentence(request.noun)
    if request.kind is TextKind.NORMAL_TEXT:
        return f"product: {noun}\ndefect: Normal."
    if request.kind is TextKind.DEFECT_TEXT:
        return f"product: {noun}\ndefect: {sentence(request.words)}\nplace: {sentence(request.place)}"
    product = _world_of(request.images[0]).product(request.dataset, request.object)
    texts = knowledge(product.design, product.kinds)
    if request.kind is TextKind.NORMAL_KNOWLEDGE:
        return _body(texts["good"])
    return _body(texts[DEFECTS[request.words].folder])


def _body(text: str) -> str:
    """A knowledge text without its title."""
    return text.partition("Description: ")[2]


def _world_of(path: Path) -> World:
    for folder in path.absolute().parents:
        if (folder / MARK).is_file():
            content: Any = read_json(folder / MARK)[0]
            return World(content["seed"], content["looks"])
    raise BadInput(f"{path}: the mini describer knows the mini training world only; pass --endpoint")
