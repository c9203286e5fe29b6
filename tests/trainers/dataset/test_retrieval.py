"""Exact search, and features that survive a killed process."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.errors import BadInput
from trainers.dataset import retrieval
from trainers.dataset.encoders import Encoder, Parts
from trainers.dataset.retrieval import Features, FeatureStore, nearest


def features(digests: str, rows: list[list[float]] | np.ndarray) -> Features:
    """One letter a digest; rows are brought to unit length."""
    vectors = np.asarray(rows, np.float32)
    return Features(tuple(digests), vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_the_most_similar_comes_first_and_the_query_never() -> None:
    pool = features("abcd", [[1, 0], [1, 0.1], [0, 1], [1, 1]])
    assert nearest(pool, pool, 2) == ((1, 3), (0, 3), (3, 1), (1, 0))


def test_twins_of_the_query_are_no_reference() -> None:
    pool = features("aabca", [[1, 0], [1, 0], [1, 0.5], [0, 1], [1, 0]])
    assert nearest(features("a", [[1, 0]]), pool, 5) == ((2, 3),)
    assert nearest(features("x", [[1, 0]]), pool, 5) == ((0, 1, 4, 2, 3),)  # twins of each other stay
    assert nearest(features("a", [[1, 0]]), features("aa", [[1, 0], [1, 0]]), 1) == ((),)


def test_of_equals_the_smaller_digest_comes_first() -> None:
    pool = features("dbca", [[1, 0], [1, 0], [1, 0], [1, 1e-7]])
    assert nearest(features("x", [[1, 0]]), pool, 3) == ((3, 1, 2),)


def test_the_quirk_drops_the_first_hit_of_every_query() -> None:
    pool = features("abc", [[1, 0], [1, 0.2], [0, 1]])
    assert nearest(pool, pool, 1, drop_first=True) == ((1,), (0,), (1,))
    other = features("x", [[1, 0.01]])
    assert nearest(other, pool, 1, drop_first=True) == ((1,),)  # the truly nearest, a, is lost
    assert nearest(other, pool, 1) == ((0,),)
    assert nearest(other, pool, 9, drop_first=True) == ((1, 2),)


def test_nothing_is_found_in_nothing() -> None:
    some, none = features("a", [[1, 0]]), Features((), np.empty((0, 0), np.float32))
    assert nearest(some, none, 3) == ((),)
    assert nearest(none, some, 3) == ()
    assert nearest(some, some, 0) == ((),)
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        nearest(some, features("b", [[1, 0, 0]]), 1)
    with pytest.raises(ValueError, match="2 digests for 1 features"):
        Features(("a", "b"), np.ones((1, 2), np.float32))


def brute_force(queries: Features, pool: Features, k: int, drop_first: bool) -> tuple[tuple[int, ...], ...]:
    """The definition, pair by pair, in whole numbers."""
    found = []
    for digest, query in zip(queries.digests, queries.vectors, strict=True):
        ranked = []
        for i, vector in enumerate(pool.vectors):
            if pool.digests[i] == digest and not drop_first:
                continue
            pairs = zip(query.tolist(), vector.tolist(), strict=True)
            exact = sum(round(a * 2**20) * round(b * 2**20) for a, b in pairs)
            ranked.append((-round(exact / 2**20), pool.digests[i], i))
        chosen = [i for *_, i in sorted(ranked)]
        found.append(tuple(chosen[1 : k + 1] if drop_first else chosen[:k]))
    return tuple(found)


DIGESTS = st.text("abcdef", min_size=1, max_size=14)
#: Few values, so that ties are frequent.
VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, 0.3])


@st.composite
def galleries(draw: st.DrawFn) -> Features:
    digests = draw(DIGESTS)
    rows = draw(
        st.lists(
            st.lists(VALUES, min_size=3, max_size=3).filter(any),
            min_size=len(digests),
            max_size=len(digests),
        )
    )
    return features(digests, rows)


@settings(deadline=None)
@given(galleries(), galleries(), st.integers(1, 16), st.booleans())
def test_search_is_brute_force(queries: Features, pool: Features, k: int, drop_first: bool) -> None:
    assert nearest(queries, pool, k, drop_first=drop_first) == brute_force(queries, pool, k, drop_first)


@settings(deadline=None)
@given(galleries(), galleries(), st.randoms(use_true_random=False))
def test_order_of_queries_and_pool_does_not_matter(queries: Features, pool: Features, random: object) -> None:
    def shuffled(given: Features) -> Features:
        order = list(range(len(given)))
        random.shuffle(order)  # type: ignore[attr-defined]
        return Features(tuple(given.digests[i] for i in order), given.vectors[order])

    def told(queries: Features, pool: Features) -> set[tuple[object, ...]]:
        found = nearest(queries, pool, 2)
        return {
            (digest, vector.tobytes(), tuple((pool.digests[i], pool.vectors[i].tobytes()) for i in hits))
            for digest, vector, hits in zip(queries.digests, queries.vectors, found, strict=True)
        }

    # Two files of one digest have one feature in the field; here too, so that their order shows nothing.
    first = {digest: i for i, digest in reversed(list(enumerate(pool.digests)))}
    pool = Features(pool.digests, pool.vectors[[first[digest] for digest in pool.digests]])
    assert told(queries, pool) == told(shuffled(queries), shuffled(pool))


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    names = [f"{n:03}" for n in range(90)]
    vectors = rng.normal(size=(90, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    every = Features(tuple(names), vectors)
    whole = nearest(every, every, 5)
    monkeypatch.setattr(retrieval, "_BLOCK", 200)  # two queries at once
    assert nearest(every, every, 5) == whole
    alone = [nearest(Features((names[i],), vectors[i : i + 1]), every, 5)[0] for i in range(90)]
    assert tuple(alone) == whole


def colour_encoder(weights: str = "mean") -> Encoder:
    """A small encoder on the real path: the mean colour, and one."""

    def prepare(image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 4)), np.float32).transpose(2, 0, 1) / 255

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels.mean((2, 3)), torch.ones(len(pixels), 1)], 1)

    return Encoder("colour", weights, lambda: Parts(prepare, forward, torch.device("cpu")))


def write_images(folder: Path, count: int) -> list[tuple[str, Path]]:
    """So many different pictures: (digest, path)."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.new("RGB", (8, 6), (number * 5 % 256, number * 11 % 256, 40)).save(path)
        found.append((hashlib.sha256(path.read_bytes()).hexdigest(), path))
    return found


def test_features_are_computed_once(tmp_path: Path) -> None:
    images = write_images(tmp_path, 20)
    path = tmp_path / "cache" / "features.sqlite"
    with FeatureStore(path, colour_encoder()) as store:
        first = store.features(images[:12])
        assert (store.computed, store.read) == (12, 0)
        again = store.features([*images[11::-1], images[0]])  # another order, one twice
        assert (store.computed, store.read) == (12, 12)
    assert again.digests == (*first.digests[::-1], first.digests[0])
    np.testing.assert_array_equal(again.vectors[:12], first.vectors[::-1])
    with FeatureStore(path, colour_encoder()) as store:
        every = store.features(iter(images))
        assert (store.computed, store.read) == (8, 12)
    np.testing.assert_array_equal(every.vectors[:12], first.vectors)
    with FeatureStore(path, colour_encoder("other weights")) as store:
        store.features(images)
        assert (store.computed, store.read) == (20, 0)
        assert store.features([]).vectors.shape == (0, 0)


def test_threads_change_nothing(tmp_path: Path) -> None:
    images = write_images(tmp_path, 20)
    found = []
    for workers in (0, 3):
        with FeatureStore(tmp_path / f"{workers}.sqlite", colour_encoder(), workers) as store:
            found.append(store.features(images).vectors)
    np.testing.assert_array_equal(*found)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.trainers.dataset.test_retrieval import colour_encoder, write_images
from trainers.dataset.retrieval import FeatureStore

encoder, batches = colour_encoder(), []
encode = encoder.encode_prepared
def fatal(inputs):
    batches.append(len(inputs))
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(inputs)
encoder.encode_prepared = fatal
with FeatureStore(Path(sys.argv[1]) / "features.sqlite", encoder) as store:
    store.features(write_images(Path(sys.argv[1]), 60))
"""


def test_a_killed_process_loses_no_finished_batch(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    with FeatureStore(tmp_path / "features.sqlite", colour_encoder()) as store:
        store.features(write_images(tmp_path, 60))
        assert (store.read, store.computed) == (32, 28)


def test_unfit_images_and_stores_are_named(tmp_path: Path) -> None:
    images = write_images(tmp_path, 2)
    (tmp_path / "broken.png").write_bytes(b"no image")
    path = tmp_path / "features.sqlite"
    with (
        FeatureStore(path, colour_encoder()) as store,
        pytest.raises(BadInput, match=r"broken\.png: the image cannot be read"),
    ):
        store.features([*images, ("0" * 64, tmp_path / "broken.png")])
    with sqlite3.connect(path) as db:
        row = (colour_encoder().fingerprint, images[0][0], b"123")
        db.execute("INSERT OR REPLACE INTO features VALUES (?, ?, ?)", row)
    with FeatureStore(path, colour_encoder()) as store, pytest.raises(BadInput, match="damaged"):
        store.features(images)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(BadInput, match="its format is version 9"):
        FeatureStore(path, colour_encoder())
    path.write_bytes(b"no database" * 100)
    with pytest.raises(BadInput, match="cannot be kept there"):
        FeatureStore(path, colour_encoder())


def test_a_bar_is_shown_for_many_images_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_images(tmp_path, 70)
    with FeatureStore(tmp_path / "features.sqlite", colour_encoder()) as store:
        store.features(images[:5])
        assert capsys.readouterr() == ("", "")
        store.features(images)
    out, err = capsys.readouterr()
    assert out == "" and "features (colour)" in err and "65/65" in err
