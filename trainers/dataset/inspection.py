"""What only an image's bytes can tell, found once and kept: size, damage, and what its mask marks.

Findings have names, and a damaged file ends in one. The results lie in a cache by content digest, and a file
whose size and time of change are as before is not even read again, so that a rebuild after one changed image
opens that image alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

from harness.cache import cache_root
from harness.errors import BadInput
from harness.folders import sha256_of
from harness.prefetch import prefetch
from harness.raw import Finding, RawImage

#: Raised whenever the same bytes are inspected otherwise.
VERSION = 1
_LARGE = 0.6  #: share of an image that a mask rarely marks
_BATCH = 256  #: images between two commits: what a killed process may lose
_TRAITS = {
    "rotated": "it lies on its side and is turned upright, as its EXIF orientation says",
    "sixteen-bit": "it has 16 bits a channel, of which the upper 8 are used",
    "alpha": "its transparency is dropped",
    "palette": "its palette is resolved to colours",
    "colour-space": "it is neither grey nor RGB and is converted",
}


def cache_folder() -> Path:
    """Where the commands keep inspections and features."""
    return cache_root() / "dataset"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What inspection finds in an image file."""

    width: int = 0  #: upright, in pixels; 0 when it cannot be read
    height: int = 0
    traits: tuple[str, ...] = ()  #: see :func:`harness.images.traits`
    error: str = ""  #: why it cannot be read


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """What inspection finds in the merged masks of an image."""

    width: int = 0
    height: int = 0
    cells: tuple[int, ...] = ()  #: marked pixels in each cell of the 3x3 grid
    rotated: bool = False
    error: str = ""

    @property
    def marked(self) -> int:
        """Number of marked pixels."""
        return sum(self.cells)


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image with what is known about it."""

    raw: RawImage
    digest: str  #: SHA-256 of the image file, in hex
    facts: ImageFacts
    mask: MaskFacts | None
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether the image takes part."""
        return not any(finding.left_out for finding in self.findings)


def content_of(image: Inspected) -> tuple[str, Path]:
    """An image by its content: digest and file."""
    return image.digest, image.raw.path


Facts = TypeVar("Facts", ImageFacts, MaskFacts)


@dataclass(frozen=True, slots=True)
class Found(Generic[Facts]):
    """Facts, and whether the same bytes will always give them."""

    facts: Facts
    lasting: bool = True


class _Table(Generic[Facts]):
    """Facts by content digest, in the inspector's database."""

    def __init__(self, database: sqlite3.Connection, name: str, kind: type[Facts]) -> None:
        self.database = database
        self.name = f"{name}_{VERSION}"
        self.kind: Callable[..., Facts] = kind
        database.execute(f"CREATE TABLE IF NOT EXISTS {self.name} (digest TEXT PRIMARY KEY, facts TEXT)")

    def complete(
        self, jobs: Mapping[str, Path | tuple[Path, ...]], find: Callable[[Any], Found[Facts]], workers: int
    ) -> tuple[dict[str, Facts], int]:
        """The facts of every digest, and how many of them had to be found.

        What failed for want of memory, handles or permission may pass next time, and is not kept.
        """
        known: dict[str, Facts] = {}
        for digest in jobs:
            row = self.database.execute(
                f"SELECT facts FROM {self.name} WHERE digest = ?", (digest,)
            ).fetchone()
            if row is not None:
                fields = json.loads(row[0])
                known[digest] = self.kind(
                    **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
                )
        missing = [digest for digest in jobs if digest not in known]
        kept = []
        for digest, found in zip(missing, prefetch(find, map(jobs.get, missing), workers), strict=True):
            known[digest] = found.facts
            if found.lasting:
                kept.append((digest, json.dumps(asdict(found.facts))))
        _save(self.database, f"INSERT OR REPLACE INTO {self.name} VALUES (?, ?)", kept)
        return known, len(missing)


def _save(database: sqlite3.Connection, statement: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Write rows in one short transaction: another process may be waiting to write."""
    if rows:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(statement, rows)
        database.execute("COMMIT")


class Inspector:
    """Inspects images, with what it found kept in one SQLite file; several processes may share it.

    Use it as a context manager. ``counters`` has the exact work done: ``files_hashed``, ``images_decoded``,
    ``masks_decoded``.

    Args:
        store: the file; made when missing.
        workers: threads that read and decode.
    """

    def __init__(self, store: Path, workers: int = 2) -> None:
        self.store = store
        self.workers = workers
        self.counters: Counter[str] = Counter(files_hashed=0, images_decoded=0, masks_decoded=0)
        with self._named():
            store.parent.mkdir(parents=True, exist_ok=True)
            self.database = sqlite3.connect(store, timeout=60, isolation_level=None)
            self.database.execute("PRAGMA journal_mode=WAL")
            self.database.execute(
                "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, state TEXT, digest TEXT)"
            )
            self.images = _Table(self.database, "images", ImageFacts)
            self.masks = _Table(self.database, "masks", MaskFacts)

    def __enter__(self) -> Inspector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the database as one sentence."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            raise BadInput(
                f"{self.store}: inspections cannot be kept there ({error}); delete it if it is damaged, and "
                "see to space and permissions"
            ) from error

    def inspect(self, images: Iterable[RawImage]) -> Iterator[Inspected]:
        """Each image with its facts, in order and in bounded memory."""
        waiting = iter(images)
        while batch := list(islice(waiting, _BATCH)):
            with self._named():
                found = self._batch(batch)
            yield from found

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """SHA-256 of files; one that is as it was is not read again. A file that is gone has none: ``""``."""
        found: list[str] = []
        for start in range(0, len(paths), _BATCH):
            with self._named():
                found += self._digests(paths[start : start + _BATCH])
        return found

    def _digests(self, paths: Sequence[Path]) -> list[str]:
        wanted = {path: _state(path) for path in paths}
        found: dict[Path, str] = {path: "" for path in wanted}
        fresh = []
        for path, state in wanted.items():
            row = self.database.execute(
                "SELECT state, digest FROM files WHERE path = ?", (str(path.absolute()),)
            ).fetchone()
            if row is not None and row[0] == state:
                found[path] = row[1]
            elif state:
                fresh.append(path)
        kept = []
        for path, digest in zip(fresh, prefetch(_sha256, fresh, self.workers), strict=True):
            found[path] = digest
            if digest:
                kept.append((str(path.absolute()), wanted[path], digest))
        _save(self.database, "INSERT OR REPLACE INTO files VALUES (?, ?, ?)", kept)
        self.counters["files_hashed"] += len(fresh)
        return [found[path] for path in paths]

    def _batch(self, batch: Sequence[RawImage]) -> list[Inspected]:
        digests = self._digests([raw.path for raw in batch])
        masked = [path for raw in batch for path in raw.masks]
        of_masks = dict(zip(masked, self._digests(masked), strict=True))
        keys = [_mask_key([of_masks[path] for path in raw.masks]) for raw in batch]
        images, decoded = self.images.complete(
            {d: raw.path for d, raw in zip(digests, batch, strict=True) if d}, _image_facts, self.workers
        )
        masks, drawn = self.masks.complete(
            {key: raw.masks for key, raw in zip(keys, batch, strict=True) if key}, _mask_facts, self.workers
        )
        self.counters.update(images_decoded=decoded, masks_decoded=drawn)
        found = []
        for raw, digest, key in zip(batch, digests, keys, strict=True):
            facts = images.get(digest) or ImageFacts(error="the file cannot be read; restore it")
            mask = masks.get(key)
            if raw.masks and mask is None:
                mask = MaskFacts(error="the mask cannot be read; restore it")
            found.append(Inspected(raw, digest, facts, mask, tuple(_findings(raw, facts, mask))))
        return found


def _state(path: Path) -> str:
    """What changes when a file does; empty when there is none."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _mask_key(digests: Sequence[str]) -> str:
    """What the merged masks of an image are kept under; empty where one is not there, or there are none."""
    if not digests or not all(digests):
        return ""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _lasting(error: BadInput) -> bool:
    """Whether the same bytes will fail again: the system had no part in it."""
    cause = error.__cause__
    return not (isinstance(cause, OSError) and cause.errno is not None) and not isinstance(cause, MemoryError)


def _image_facts(path: Path) -> Found[ImageFacts]:
    from harness.images import decode, traits

    try:
        pixels = decode(path)
        return Found(ImageFacts(pixels.width, pixels.height, traits(path)))
    except BadInput as error:
        return Found(ImageFacts(error=str(error).removeprefix(f"{path}: ")), _lasting(error))


def _mask_facts(paths: Sequence[Path]) -> Found[MaskFacts]:
    import numpy as np

    from harness.grid import cell_counts
    from harness.images import decode_mask, traits

    try:
        merged = decode_mask(paths[0])
        rotated = "rotated" in traits(paths[0])
        for path in paths[1:]:
            other = decode_mask(path)
            rotated |= "rotated" in traits(path)
            if other.shape != merged.shape:
                return Found(MaskFacts(error="its masks differ in size; draw them on the image"))
            merged = np.asarray(merged | other)
    except BadInput as error:
        said = str(error)
        for path in paths:
            said = said.removeprefix(f"{path}: ")
        return Found(MaskFacts(error=f"the mask: {said}"), _lasting(error))
    height, width = merged.shape
    return Found(MaskFacts(width, height, cell_counts(merged), rotated))


def _findings(raw: RawImage, facts: ImageFacts, mask: MaskFacts | None) -> Iterator[Finding]:
    file = f"{raw.dataset}/{raw.name}"
    if facts.error:
        yield Finding("broken-image", file, facts.error, left_out=True)
        return
    for trait in facts.traits:
        yield Finding(trait, file, _TRAITS[trait], left_out=False)
    if mask is None:
        return
    found = _mask_finding(facts, mask)
    if found is not None:
        yield Finding(found[0], file, found[1], left_out=True)
    elif mask.marked > _LARGE * mask.width * mask.height:
        sentence = "the mask marks most of the image; is it inverted? white is the defect"
        yield Finding("mask-large", file, sentence, left_out=False)


def _mask_finding(facts: ImageFacts, mask: MaskFacts) -> tuple[str, str] | None:
    """Name and sentence of what makes a mask unfit for its image."""
    if mask.error:
        return "broken-mask", mask.error
    if "rotated" in facts.traits and not mask.rotated:
        return (
            "mask-rotated",
            "the image is turned by its EXIF orientation, its mask is not; save both upright",
        )
    if (mask.width, mask.height) != (facts.width, facts.height):
        return "mask-size", (
            f"the mask has {mask.width} x {mask.height} pixels and the image {facts.width} x {facts.height}; "
            "draw it on the image"
        )
    if mask.marked == 0:
        return "mask-empty", "the mask marks nothing; draw the defect, or move the image to the good ones"
    if mask.marked == mask.width * mask.height:
        return "mask-full", "the mask marks every pixel; draw the defect alone"
    return None
