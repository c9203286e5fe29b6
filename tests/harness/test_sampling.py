from __future__ import annotations

from collections import Counter

import pytest

from harness.mmad import read_mmad
from harness.records import Item
from harness.sampling import sample_items
from tests.builders import write_mmad


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> tuple[Item, ...]:
    return read_mmad(write_mmad(tmp_path_factory.mktemp("mmad") / "x", per_product=20)).items


def cells(items: tuple[Item, ...]) -> Counter[tuple[str, str, str]]:
    return Counter((item.dataset, item.object, q.subtask) for item in items for q in item.questions)


@pytest.mark.parametrize("limit", [4, 30, 54, 100, 270, 539])
def test_whole_images_up_to_the_limit_in_file_order(items: tuple[Item, ...], limit: int) -> None:
    chosen = sample_items(items, limit, seed=0)
    asked = sum(len(item.questions) for item in chosen)
    assert limit - 5 < asked <= limit
    order = [items.index(item) for item in chosen]
    assert order == sorted(set(order))


def test_no_limit_is_everything(items: tuple[Item, ...]) -> None:
    assert sample_items(items, None, 0) == items == sample_items(items, 10_000, 3)


def test_one_image_at_least(items: tuple[Item, ...]) -> None:
    assert len(sample_items(items, 1, 0)) == 1


def test_cells_get_their_share(items: tuple[Item, ...]) -> None:
    whole, part = cells(items), cells(sample_items(items, 270, 0))
    assert max(abs(part[cell] - 0.5 * whole[cell]) for cell in whole) <= 1.5


def test_the_seed_decides_and_the_order_of_the_rest_does_not_matter(items: tuple[Item, ...]) -> None:
    first = sample_items(items, 100, 0)
    assert first == sample_items(items, 100, 0)
    assert first != sample_items(items, 100, 1)
