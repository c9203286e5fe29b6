"""Texts about products, as a describer leaves them and the builder reads them.

A *texts folder* holds ``domain_knowledge.json`` in MMAD's format (dataset -> object -> condition -> text,
``good`` being the normal condition) and ``descriptions.jsonl``, one object text a line::

    {"dataset": …, "object": …, "image": path relative to the dataset's root, "digest": sha256 of the image,
     "defect": folder of the kind or null, "words": the kind in words, "cell": 0-8 or null, "number": …,
     "text": …}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.jsonfiles import read_json, read_rows, write_json, write_text

KNOWLEDGE = "domain_knowledge.json"
DESCRIPTIONS = "descriptions.jsonl"
GOOD = "good"  #: the knowledge file's key of the normal condition

Knowledge = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class Description:
    """A text that stands in for a query image."""

    dataset: str
    object: str
    image: str  #: the normal image beside it, relative to the dataset's root
    digest: str  #: SHA-256 of that image's bytes
    defect: str | None  #: None: the text describes a normal product
    words: str  #: the kind of defect in words; empty for a normal product
    cell: int | None  #: of the 3x3 grid, row by row from 0
    number: int  #: which of several texts on the same image, defect and cell
    text: str


@dataclass(frozen=True, slots=True)
class Texts:
    """The content of a texts folder."""

    knowledge: Mapping[str, Mapping[str, Mapping[str, str]]]
    descriptions: tuple[Description, ...]


def read_knowledge(path: Path) -> Knowledge:
    """A knowledge file.

    Raises:
        BadInput: it cannot be read or has another shape.
    """
    table, _ = read_json(path)
    fine = isinstance(table, dict) and all(
        isinstance(objects, dict)
        and all(
            isinstance(texts, dict) and all(isinstance(text, str) for text in texts.values())
            for texts in objects.values()
        )
        for objects in table.values()
    )
    if not fine:
        raise BadInput(f"{path}: it must map dataset, object and condition to texts; correct the file")
    return dict(table)


def read_texts(folder: Path) -> Texts:
    """A texts folder; either file may be absent.

    Raises:
        BadInput: neither file is there, or one is unfit; the sentence names the line.
    """
    files = (folder / KNOWLEDGE, folder / DESCRIPTIONS)
    if not any(file.is_file() for file in files):
        raise BadInput(
            f"{folder}: it holds neither {KNOWLEDGE} nor {DESCRIPTIONS}; make them with `emit-bench data "
            "describe`"
        )
    knowledge = read_knowledge(files[0]) if files[0].is_file() else {}
    return Texts(knowledge, tuple(_descriptions(files[1])) if files[1].is_file() else ())


def _descriptions(path: Path) -> Iterator[Description]:
    seen: set[tuple[Any, ...]] = set()
    for where, row in read_rows(path):
        one = _description(row, where)
        key = (one.dataset, one.image, one.defect, one.cell, one.number)
        if key in seen:
            raise BadInput(f"{where}: there is another text of this image, defect, cell and number; drop one")
        seen.add(key)
        yield one


def write_texts(folder: Path, knowledge: Knowledge, descriptions: Iterable[Description]) -> None:
    """Write a texts folder; each file appears whole."""
    if knowledge:
        write_json(folder / KNOWLEDGE, knowledge)
    rows = [json.dumps(asdict(one), ensure_ascii=False) for one in descriptions]
    write_text(folder / DESCRIPTIONS, "".join(row + "\n" for row in rows))


_TYPES: dict[str, tuple[type, ...]] = {
    "dataset": (str,), "object": (str,), "image": (str,), "digest": (str,), "defect": (str, type(None)),
    "words": (str,), "cell": (int, type(None)), "number": (int,), "text": (str,),
}  # fmt: skip


def _description(row: Mapping[str, Any], where: str) -> Description:
    for key, types in _TYPES.items():
        if not isinstance(row.get(key, ...), types):
            raise BadInput(f"{where}: {key} is {row.get(key)!r}, which it cannot be; correct the line")
    if row["cell"] is not None and not 0 <= row["cell"] < 9:
        raise BadInput(f"{where}: cell is {row['cell']}; cells go from 0 to 8")
    if row["defect"] == GOOD:
        raise BadInput(f"{where}: defect is {GOOD!r}; write null for a text on a normal product")
    if not row["text"].strip():
        raise BadInput(f"{where}: text is empty; write it or drop the line")
    return Description(**{key: row[key] for key in _TYPES})
