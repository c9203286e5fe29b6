"""The training set: one multiple-choice question a line of JSON, with its images or a text in their stead.

=============== ==================================================================================
``id``          unique within the file
``dataset``     source data set, ``object`` the product
``task``        one of the seven subtask keys
``references``  paths of normal images, relative to the file's folder
``query``       path of the image that is asked about, or null for a text-only sample
``description`` what the query shows, in words; needed where ``query`` is null
``question``    its wording
``options``     letter -> text, in display order
``answer``      a key of ``options``
``knowledge``   texts on the product, in prompt order; optional
``rationale``   what a thought would say before it names the letter; optional
=============== ==================================================================================

Further keys are kept out of training: where a row came from belongs in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.folders import Folder, UnsafePath, sha256_of
from harness.jsonfiles import read_rows
from harness.subtasks import SUBTASK_KEYS

_TEXTS = ("id", "dataset", "object", "task", "question", "answer")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question to train on."""

    id: str
    dataset: str
    object: str
    task: str
    references: tuple[Path, ...]
    query: Path | None  #: None: ``description`` stands in for it
    description: str
    question: str
    options: Mapping[str, str]
    answer: str
    knowledge: tuple[str, ...]
    rationale: str

    @property
    def pair(self) -> tuple[Any, ...]:
        """What questions on one image pair share; equal keys can share a prompt's prefix."""
        return (self.dataset, self.object, self.references, self.query, self.description, self.knowledge)


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The samples of one file, in file order."""

    path: Path
    digest: str  #: SHA-256 of the file, in hex
    samples: tuple[Sample, ...]

    def pairs(self) -> list[tuple[Sample, ...]]:
        """The samples by image pair, in order of first appearance."""
        groups: dict[tuple[Any, ...], list[Sample]] = {}
        for sample in self.samples:
            groups.setdefault(sample.pair, []).append(sample)
        return [tuple(group) for group in groups.values()]


def read_training_set(path: Path) -> TrainingSet:
    """Read a training file.

    Raises:
        BadInput: it cannot be read or a line is unfit; the sentence names the line and the field.
    """
    try:
        found = path.stat()
    except OSError:
        return _read(path, None)  # which says what is wrong
    return _read(path, (found.st_mtime_ns, found.st_size, found.st_ino))


@lru_cache(maxsize=1)
def _read(path: Path, version: tuple[int, ...] | None) -> TrainingSet:
    """A file is read once as long as it stays as it is: an experiment plans every arm and seed from it."""
    samples = tuple(_samples(path))
    if not samples:
        raise BadInput(f"{path}: it holds no sample; build a training set first")
    return TrainingSet(path, sha256_of(path), samples)


def _samples(path: Path) -> Iterator[Sample]:
    folder = Folder(path.parent)
    seen: set[str] = set()
    for where, row in read_rows(path):
        sample = _sample(row, folder, where)
        if sample.id in seen:
            raise BadInput(f"{where}: id {sample.id!r} stands twice; ids must be unique")
        seen.add(sample.id)
        yield sample


def _sample(row: Mapping[str, Any], folder: Folder, where: str) -> Sample:
    for key in _TEXTS:
        if not (isinstance(row.get(key), str) and row[key]):
            raise BadInput(f"{where}: {key} is {row.get(key)!r}; it must be a text")
    if row["task"] not in SUBTASK_KEYS:
        raise BadInput(f"{where}: task is {row['task']!r}; it must be one of {', '.join(SUBTASK_KEYS)}")
    options = row.get("options")
    if (
        not isinstance(options, dict)
        or len(options) < 2
        or not all(isinstance(t, str) for t in options.values())
    ):
        raise BadInput(f"{where}: options must map two or more letters to texts")
    if row["answer"] not in options:
        raise BadInput(f"{where}: answer {row['answer']!r} is no key of options ({', '.join(options)})")
    query, description = row.get("query"), row.get("description") or ""
    if query is None and not description:
        raise BadInput(f"{where}: it has neither a query image nor a description in its stead")
    lists: dict[str, list[str]] = {}
    for key in ("references", "knowledge"):
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise BadInput(f"{where}: {key} must be a list of texts")
        lists[key] = value
    return Sample(
        id=row["id"],
        dataset=row["dataset"],
        object=row["object"],
        task=row["task"],
        references=tuple(_image(folder, name, where) for name in lists["references"]),
        query=None if query is None else _image(folder, query, where),
        description=description,
        question=row["question"],
        options=options,
        answer=row["answer"],
        knowledge=tuple(lists["knowledge"]),
        rationale=row.get("rationale") or "",
    )


def _image(folder: Folder, name: Any, where: str) -> Path:
    try:
        found = folder.file(name) if isinstance(name, str) else None
    except UnsafePath as error:
        raise BadInput(f"{where}: {name} {error}; name a file below the training file's folder") from error
    if found is None:
        raise BadInput(
            f"{where}: there is no image {name!r} beside the training file; restore it or drop the line"
        )
    return found
