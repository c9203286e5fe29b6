"""A seeded, stratified sample of a benchmark that keeps every image's questions together."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from harness.records import Item

Cell = tuple[str, str, str]  #: dataset, object, subtask


def sample_items(items: Sequence[Item], limit: int | None, seed: int) -> tuple[Item, ...]:
    """Items with at most ``limit`` questions in all (but one item at least), in the benchmark's order.

    Each cell of dataset x object x subtask should get its share of the questions. Items are drawn one by one:
    the object that lags furthest behind its share gives the item whose questions its cells lack most; ties
    are broken by the seed.

    Args:
        items: all items.
        limit: number of questions, or None for all.
        seed: of the shuffle that breaks ties.
    """
    total = sum(len(item.questions) for item in items)
    if limit is None or limit >= total:
        return tuple(items)
    lack = {cell: limit * n / total for cell, n in Counter(c for item in items for c in _cells(item)).items()}
    waiting: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in random.Random(seed).sample(items, len(items)):
        waiting[item.dataset, item.object].append(item)
    behind = {
        place: sum(lack[cell] for cell in {cell for item in here for cell in _cells(item)})
        for place, here in waiting.items()
    }
    chosen: list[Item] = []
    room = max(limit, min(len(item.questions) for item in items))
    while waiting:
        place = max(waiting, key=lambda name: behind[name])
        fitting = [item for item in waiting[place] if len(item.questions) <= room]
        if not fitting:
            del waiting[place]
            continue
        best = max(fitting, key=lambda item: _need(item, lack))
        chosen.append(best)
        waiting[place].remove(best)
        room -= len(best.questions)
        behind[place] -= len(best.questions)
        for cell in _cells(best):
            lack[cell] -= 1
    keys = {item.key for item in chosen}
    return tuple(item for item in items if item.key in keys)


def _cells(item: Item) -> list[Cell]:
    return [(item.dataset, item.object, question.subtask) for question in item.questions]


def _need(item: Item, lack: dict[Cell, float]) -> float:
    """How much a cell gains on average from this item: full questions where much is lacking."""
    return sum(min(lack[cell], 1.0) for cell in _cells(item)) / len(item.questions)
