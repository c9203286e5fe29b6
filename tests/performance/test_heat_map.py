"""The heat map computes window positions only: faster than all pairs, with memory of the features' size.

32x32 patches of width 1024, four layers, window 6: InternVL3's tower as the released code compares it. The
all-pairs baseline is what that code does: every query patch is multiplied with every reference patch,
element by element, in chunks. All pairs as one matrix product a layer are far better than that; the ratio to
them is measured too, and only has to be no loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from emit_model import heat_map

GRID, DEPTH, LAYERS, WINDOW = 32, 1024, 4, 6
#: References a chunk of the baseline: small enough for a cache, which is the faster choice here.
CHUNK = 16

Layers = tuple[list[Tensor], list[Tensor]]


def layers(views: int) -> Layers:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    query = [torch.randn(1, GRID, GRID, DEPTH, generator=generator) for _ in range(LAYERS)]
    # References resemble their query, as real ones do.
    noise = [torch.randn(1, views, GRID, GRID, DEPTH, generator=generator) for _ in range(LAYERS)]
    return query, [q[:, None] + n for q, n in zip(query, noise, strict=True)]


def near() -> Tensor:
    """``(patches, patches)``: which reference patches lie in a query patch's window."""
    places = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID))
    return ((places[:, None] - places[None]).abs() <= WINDOW).all(-1)


def all_pairs(pair: Layers, similarity: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The heat map from all-pairs similarities ``(patches, views * patches)``, masked to the window."""
    heats = []
    for q, r in zip(*pair, strict=True):
        views = r.shape[1]
        unit_q, unit_r = (functional.normalize(x.reshape(-1, DEPTH), dim=-1) for x in (q, r))
        masked = similarity(unit_q, unit_r).masked_fill(~near().repeat(1, views), -torch.inf)
        heats.append(1 - masked.amax(1))
    return torch.stack(heats).mean(0).reshape(1, 1, GRID, GRID)


def elementwise(query: Tensor, reference: Tensor) -> Tensor:
    return torch.cat([(query[:, None] * chunk[None]).sum(-1) for chunk in reference.split(CHUNK)], dim=1)


def matrix_product(query: Tensor, reference: Tensor) -> Tensor:
    return query @ reference.T


def seconds(run: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times)


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 4])
def test_at_least_20_times_faster_than_the_released_way(views: int) -> None:
    query, reference = layers(views)
    pair = (query, reference)
    ours = heat_map(*pair, window=WINDOW)
    torch.testing.assert_close(ours, all_pairs(pair, matrix_product), atol=1e-5, rtol=0)

    # One layer of the baseline takes seconds; all four take four times as long.
    one = ([query[0]], [reference[0]])
    times = []
    for _ in range(3 if views == 1 else 1):
        start = time.perf_counter()
        slow_heat = all_pairs(one, elementwise)
        times.append(LAYERS * (time.perf_counter() - start))
    torch.testing.assert_close(heat_map(*one, window=WINDOW), slow_heat, atol=1e-5, rtol=0)
    slow = median(times)
    product = seconds(lambda: all_pairs(pair, matrix_product), 5)
    fast = seconds(lambda: heat_map(*pair, window=WINDOW), 5)
    print(
        f"\n{views} view(s): {1000 * fast:.0f} ms; all pairs take {slow / fast:.0f} times as long element by "
        f"element, {product / fast:.1f} times as a matrix product"
    )
    assert slow / fast >= 20
    assert product / fast >= 1


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations create, while they live; on CPUs torch does not."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given | self._seen:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        import weakref

        size, key = storage.nbytes(), storage._cdata
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self.live -= size
            self._seen.discard(key)

        weakref.finalize(storage, gone)


def peak_bytes(run: Callable[[], Any]) -> int:
    with LiveBytes() as counter:
        run()
    return counter.peak


@pytest.mark.parametrize("views", [1, 4])
def test_peak_memory_is_of_the_size_of_one_layers_features(views: int) -> None:
    pair = layers(views)
    one_layer = 4 * DEPTH * GRID * GRID * (1 + views)
    window = 4 * GRID * GRID * views * (2 * WINDOW + 1) ** 2
    matrix = 4 * GRID**4 * views
    heat_map(*pair, window=WINDOW)
    peak = peak_bytes(lambda: heat_map(*pair, window=WINDOW))
    print(
        f"\n{views} view(s): peak {peak / 2**20:.1f} MiB; features of a layer {one_layer / 2**20:.0f}, "
        f"window positions {window / 2**20:.1f}, all pairs {matrix / 2**20:.0f}"
    )
    assert peak <= 2 * one_layer + window
    wide = peak_bytes(lambda: all_pairs(pair, matrix_product))
    assert wide >= 2 * one_layer + matrix // 2  # the counter does see an all-pairs matrix
