"""Which normal image is most like a query: features that stay on disk, and exact search in them.

The released code takes CLIP features of unit length and their inner product. A query's own image, and every
file of equal bytes, is no reference for it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.images import decode
from harness.prefetch import prefetch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainers.dataset.encoders import Encoder

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    encoder TEXT NOT NULL,               -- its fingerprint
    digest TEXT NOT NULL,                -- SHA-256 of the image file
    vector BLOB NOT NULL,                -- little-endian float32, of unit length
    PRIMARY KEY (encoder, digest)
) WITHOUT ROWID
"""
#: Components are rounded to multiples of this. Their products and sums are then exact in float64, in whatever
#: order a matrix product adds them up, so that a ranking depends on neither machine nor shape.
_GRAIN = 2.0**-20
_BLOCK = 1 << 22  #: similarities held at once
_FEW = 64  #: images for which no progress bar is worth its line, where nobody watches
_LOOKUP = 500  #: digests a query of the store; SQLite limits the number of parameters


@dataclass(frozen=True, slots=True)
class Features:
    """Images by content, and their features."""

    digests: tuple[str, ...]  #: SHA-256 of each image file
    vectors: NDArray[np.float32]  #: ``(N, D)``, rows of unit length

    def __post_init__(self) -> None:
        if len(self.digests) != len(self.vectors):
            raise ValueError(f"{len(self.digests)} digests for {len(self.vectors)} features")

    def __len__(self) -> int:
        return len(self.digests)


def nearest(
    queries: Features, pool: Features, k: int, *, drop_first: bool = False
) -> tuple[tuple[int, ...], ...]:
    """The ``k`` images of ``pool`` with the largest cosine similarity to each query.

    Similarities are compared to about 1e-6; of equals, the smaller digest comes first, then the earlier
    place in the pool. The result depends on nothing else: neither on the other queries nor on the order of
    the pool.

    Args:
        queries: what references are sought for.
        pool: what may be a reference.
        k: at most so many a query.
        drop_first: rank the whole pool and leave out each query's first hit, whatever it is, as the released
            code does. It removes the query itself where the pool holds it, and the best reference elsewhere.

    Returns:
        For each query, indices into ``pool``, the most similar first: fewer than ``k`` where the pool holds
        fewer other images.

    Raises:
        ValueError: the features are of different encoders: their dimensions differ.
    """
    import numpy as np

    if k < 1 or not len(pool) or not len(queries):
        return tuple(() for _ in range(len(queries)))
    if queries.vectors.shape[1] != pool.vectors.shape[1]:
        raise ValueError(f"features of {queries.vectors.shape[1]} and {pool.vectors.shape[1]} dimensions")
    order = sorted(range(len(pool)), key=lambda i: (pool.digests[i], i))
    places: dict[str, list[int]] = {}
    for place, index in enumerate(order):
        places.setdefault(pool.digests[index], []).append(place)
    columns = _grained(pool.vectors[order]).T
    kept = min(k + 1 if drop_first else k, len(pool))
    found: list[tuple[int, ...]] = []
    step = max(1, _BLOCK // len(pool))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        # One integer a pair: similarity, then the place in the pool. No two are equal.
        ranks = np.rint(_grained(queries.vectors[block]) @ columns * _GRAIN).astype(np.int64)
        ranks = ranks * len(pool) - np.arange(len(pool))
        never = -(1 << 62)
        if not drop_first:
            for row, digest in enumerate(queries.digests[block]):
                ranks[row, places.get(digest, [])] = never
        best = np.argpartition(-ranks, kept - 1, axis=1)[:, :kept] if kept < len(pool) else None
        for row in range(len(ranks)):
            chosen = best[row] if best is not None else np.arange(len(pool))
            chosen = chosen[np.argsort(-ranks[row, chosen])]
            real = [order[i] for i in chosen if ranks[row, i] != never]
            found.append(tuple(real[1:] if drop_first else real))
    return tuple(found)


def _grained(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Components as whole numbers of :data:`_GRAIN`, held in float64."""
    import numpy as np

    whole: NDArray[np.float64] = np.rint(vectors.astype(np.float64) / _GRAIN)
    return whole


class FeatureStore:
    """Features on disk, under the encoder's fingerprint and the image's digest.

    Use it as a context manager. Every batch is on disk before the next one is encoded, so that a killed
    process loses at most one.

    Args:
        path: an SQLite file, created if absent; several encoders may share it.
        encoder: computes what is missing.
        workers: threads that decode images.
    """

    def __init__(self, path: Path, encoder: Encoder, workers: int = 2) -> None:
        self.path = path
        self.encoder = encoder
        self.workers = workers
        self.computed = 0  #: features encoded so far
        self.read = 0  #: features found on disk so far
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise BadInput(
                    f"{path}: its format is version {version}, this program reads {SCHEMA_VERSION}; "
                    "move it away"
                )
            self._db.execute(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def nearest(
        self,
        queries: Iterable[tuple[str, Path]],
        pool: Iterable[tuple[str, Path]],
        k: int,
        *,
        drop_first: bool = False,
    ) -> tuple[tuple[int, ...], ...]:
        """:func:`nearest` over the features of (SHA-256, file) pairs; what is missing is computed at once."""
        wanted = list(queries)
        found = self.features([*wanted, *pool])
        cut = len(wanted)
        first = Features(found.digests[:cut], found.vectors[:cut])
        return nearest(first, Features(found.digests[cut:], found.vectors[cut:]), k, drop_first=drop_first)

    def features(self, images: Iterable[tuple[str, Path]]) -> Features:
        """The features of images, in order; those that are not on disk are computed.

        Args:
            images: (SHA-256 of the file, its path); a digest that occurs twice is encoded once.

        Raises:
            BadInput: an image cannot be decoded, or the store cannot be used.
        """
        import numpy as np

        wanted = list(images)
        paths = dict(wanted)
        known = self._stored(list(paths))
        self.read += len(known)
        known |= self._compute([(digest, path) for digest, path in paths.items() if digest not in known])
        digests = tuple(digest for digest, _ in wanted)
        if not digests:
            return Features((), np.empty((0, 0), np.float32))
        sizes = {len(vector) for vector in known.values()}
        if len(sizes) > 1:
            raise BadInput(f"{self.path}: it holds damaged features; delete it")
        return Features(digests, np.stack([known[digest] for digest in digests]))

    def _stored(self, digests: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        import numpy as np

        found: dict[str, NDArray[np.float32]] = {}
        with self._named():
            for start in range(0, len(digests), _LOOKUP):
                some = digests[start : start + _LOOKUP]
                rows = self._db.execute(
                    "SELECT digest, vector FROM features WHERE encoder = ? AND digest IN "
                    f"({', '.join('?' * len(some))})",
                    (self.encoder.fingerprint, *some),
                )
                for digest, blob in rows:
                    if len(blob) % 4:
                        raise BadInput(f"{self.path}: it holds damaged features; delete it")
                    found[digest] = np.frombuffer(blob, "<f4")
        return found

    def _compute(self, missing: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        from tqdm import tqdm

        from trainers.dataset.encoders import BATCH

        prepared = prefetch(lambda one: self.encoder.prepare(decode(one[1])), missing, self.workers)
        silent = not missing or (len(missing) < _FEW and not sys.stderr.isatty())
        with contextlib.closing(prepared), tqdm(
            total=len(missing), desc=f"features ({self.encoder.name})", unit="img", file=sys.stderr,
            disable=silent, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for start in range(0, len(missing), BATCH):
                digests = [digest for digest, _ in missing[start : start + BATCH]]
                vectors = self.encoder.encode_prepared(list(islice(prepared, BATCH)))
                pairs = list(zip(digests, vectors, strict=True))
                self._save(pairs)
                self.computed += len(pairs)
                bar.update(len(pairs))
                yield from pairs

    def _save(self, pairs: Sequence[tuple[str, NDArray[np.float32]]]) -> None:
        rows = [
            (self.encoder.fingerprint, digest, vector.astype("<f4").tobytes()) for digest, vector in pairs
        ]
        with self._named():
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", rows)
            self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of the database as one sentence."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise BadInput(
                f"{self.path}: the features cannot be kept there ({error}); delete it if it is damaged, and "
                "see to space and permissions"
            ) from error
