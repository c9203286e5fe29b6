"""Building a training set: memory grows by little an image, and a rebuild does what changed and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.performance.dataset import PRODUCTS, measure

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NOTHING = {"files_hashed": 0, "images_decoded": 0, "masks_decoded": 0, "features_computed": 0}


def test_work_and_memory(tmp_path: Path) -> None:
    small, large = 400, 2400
    peaks = {}
    for count in (small, large):
        first, again, changed = measure(tmp_path / str(count), count)
        masks = sum((i // PRODUCTS) % 5 != 0 for i in range(count))
        assert first["images_decoded"] == first["features_computed"] == count
        assert first["files_hashed"] == count + masks
        assert first["masks_decoded"] == masks
        assert again.items() >= NOTHING.items()
        one = dict.fromkeys(("files_hashed", "images_decoded", "features_computed"), 1)
        assert changed.items() >= {**NOTHING, **one}.items()
        assert first["rows"] == again["rows"] == changed["rows"] > 2 * count
        peaks[count] = first["peak_mib"]
    # An image of 64 x 64 is 12 KiB, its three rows of text are 2.5 KiB: neither is held.
    assert (peaks[large] - peaks[small]) * 1024 / (large - small) < 12
