"""Raw industrial datasets as a layout reader yields them, and what can be wrong with their files.

A *layout* says where a dataset keeps images, masks, products and kinds of defect. Every reader yields the
same records, so what is built from them does not know which dataset it sees. Readers list folders and open
nothing: what only an image's bytes can tell is found when the image is inspected.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Condition = Literal["normal", "defective", "unknown"]


@dataclass(frozen=True, slots=True)
class RawImage:
    """One image of a raw dataset."""

    dataset: str
    object: str  #: its folder, as the dataset spells it
    noun: str  #: what the product is called in words: ``metal plate``; empty where nobody says
    name: str  #: path relative to the dataset's root, with forward slashes
    path: Path
    condition: Condition  #: ``unknown`` where the layout does not say (VISION)
    split: str  #: as the dataset spells it: ``train``, ``test``, ``validation``
    defect: str = ""  #: folder or code of the kind of defect, as the dataset spells it
    kind: str = ""  #: the same in words: ``bent lead``; empty where the name says nothing (``bad``)
    masks: tuple[Path, ...] = ()  #: several are merged by maximum (MVTec LOCO)
    part: str = ""  #: names the specimen where several images show one (Real-IAD); these are never divided


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a file, or worth knowing about it."""

    name: str  #: the problem's name, such as ``mask-missing``
    file: str  #: dataset and path relative to its root: ``MPDD/tubes/test/good/000.png``
    sentence: str  #: what is wrong and what to do
    left_out: bool  #: whether the image takes no part because of it

    def __str__(self) -> str:
        return f"{self.file}: {self.sentence} [{self.name}]"


@dataclass(frozen=True, slots=True)
class RawDataset:
    """All that a reader found below one root: images in a fixed order, and findings."""

    name: str
    root: Path
    images: tuple[RawImage, ...]
    findings: tuple[Finding, ...]
    tested: bool = False  #: whether MMAD asks about its test images; the layout or the folder's name tells


class TextKind(enum.StrEnum):
    """The four texts that a describer writes (paper, figures 5 and 6)."""

    DEFECT_KNOWLEDGE = "defect-knowledge"  #: how a kind of defect looks on a product; any image of it
    NORMAL_KNOWLEDGE = "normal-knowledge"  #: how a product looks in normal condition
    DEFECT_TEXT = "defect-text"  #: a product with a defect at a place, to stand in for a query image
    NORMAL_TEXT = "normal-text"  #: a normal product, to stand in for a query image


@dataclass(frozen=True, slots=True)
class TextRequest:
    """One text to write.

    ``images`` are, for defect knowledge, a normal reference and the defective image; otherwise one normal
    image.
    """

    kind: TextKind
    dataset: str
    object: str  #: folder of the product
    noun: str  #: the product in words
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()  #: of the defective image
    defect: str = ""  #: folder of the kind of defect, a key of the knowledge file
    words: str = ""  #: the kind of defect in words
    place: str = ""  #: where the defect is, in words: ``top left``
    context: tuple[str, ...] = ()  #: texts on the product's defects, for normal knowledge and defect texts
    number: int = 0  #: which of several texts on the same image


@dataclass(frozen=True, slots=True)
class RawSources:
    """What a training set is built from; a benchmark plugin that brings one gives this to the builder."""

    name: str  #: names the result in the cache; it must change when what lies in the folders does
    sources: tuple[tuple[str, Path], ...]  #: (layout, root) of datasets whose images are asked about
    text_sources: tuple[tuple[str, Path], ...] = ()  #: of those whose normal images get a text as query
    knowledge: Path | None = None  #: a ``domain_knowledge.json`` of the text sources
    describer: str | None = None  #: an offline describer's name; None leaves texts out
    encoder: str = "clip"
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
