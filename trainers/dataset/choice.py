"""Seeded choice that does not move: what is chosen hangs on names, not on how much was drawn before.

Every candidate has a rank of its own, a hash of the seed and of names. The lowest ranks are chosen, and
sorting by rank shuffles. So one image more changes what is chosen from its own pool by one at most, and from
no other. (Letters are dealt over all questions, and do move; a name that is new to a training set may become
a distractor anywhere.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def rank(seed: int, *names: Hashable) -> int:
    """A pseudo-random number of 64 bits that belongs to these names under this seed.

    >>> rank(0, "pool", "a.png") == rank(0, "pool", "a.png") != rank(1, "pool", "a.png")
    True
    """
    text = "\0".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def shuffled(
    things: Iterable[Thing], seed: int, *names: Hashable, key: Callable[[Thing], Hashable] = str
) -> list[Thing]:
    """Things in the order of their ranks; equal ones (by ``key``) keep their order."""
    return sorted(things, key=lambda thing: rank(seed, *names, key(thing)))


def share_of(share: float, count: int, seed: int, *names: Hashable) -> int:
    """How many of ``count`` a share is, rounded up or down by chance so that small pools add up to it."""
    return int(share * count + rank(seed, "share", *names) / 2**64)


def pick(things: Sequence[Thing], seed: int, *names: Hashable) -> Thing:
    """The thing of the lowest rank."""
    return shuffled(things, seed, *names)[0]
