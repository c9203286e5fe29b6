"""A seeded, stratified sample of a benchmark that keeps every image's questions together."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from harness.records import Item

Cell = tuple[str, str, str]  #: dataset, object, subtask
Cells = tuple[Cell, ...]  #: of one item: one a question


def sample_items(items: Sequence[Item], limit: int | None, seed: int) -> tuple[Item, ...]:
    """Items with at most ``limit`` questions in all (but one item at least), in the benchmark's order.

    Each cell of dataset x object x subtask should get its share of the questions. Items are drawn one by one:
    the object that lags furthest behind its share gives an item with those questions that its cells lack
    most; the seed decides which of the items that ask alike.

    Args:
        items: all items.
        limit: number of questions, or None for all.
        seed: of the order in which items that ask alike are drawn.
    """
    total = sum(len(item.questions) for item in items)
    if limit is None or limit >= total:
        return tuple(items)
    shares = Counter(cell for item in items for cell in _cells(item))
    lack = {cell: limit * n / total for cell, n in shares.items()}
    room = max(limit, min(len(item.questions) for item in items))
    waiting: dict[tuple[str, str], dict[Cells, list[Item]]] = defaultdict(lambda: defaultdict(list))
    for item in random.Random(seed).sample(items, len(items)):
        waiting[item.dataset, item.object][_cells(item)].append(item)
    behind = dict.fromkeys(waiting, 0.0)
    for cell, share in lack.items():
        behind[cell[:2]] += share
    chosen: set[str] = set()
    while waiting:
        place = max(waiting, key=lambda name: behind[name])
        fitting = [cells for cells in waiting[place] if len(cells) <= room]
        if not fitting:
            del waiting[place]
            continue
        cells = max(fitting, key=lambda cells: _need(cells, lack))
        alike = waiting[place][cells]
        chosen.add(alike.pop().key)
        if not alike:
            del waiting[place][cells]
        room -= len(cells)
        behind[place] -= len(cells)
        for cell in cells:
            lack[cell] -= 1
    return tuple(item for item in items if item.key in chosen)


def _cells(item: Item) -> Cells:
    return tuple(sorted((item.dataset, item.object, question.subtask) for question in item.questions))


def _need(cells: Cells, lack: dict[Cell, float]) -> float:
    """How much the cells gain on average from such an item: a full question where one is lacking."""
    return sum(min(lack[cell], 1.0) for cell in cells) / len(cells)
