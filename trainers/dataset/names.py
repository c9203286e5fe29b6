"""Names as answer options, and which of them may not stand side by side.

A distractor must be false. ``Scratches.`` beside ``Scratch.`` is not, nor is ``Parts mismatch.`` where the
truth is ``Bend and parts mismatch.``, nor ``Pit.`` beside ``Hole.``: names are compared by what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from trainers.dataset.choice import shuffled

#: Words of one meaning, as far as a photograph can tell.
_SYNONYMS = (
    ("hole", "pit", "puncture", "perforation", "pore", "porosity", "blowhole", "pinhole", "cavity"),
    ("dent", "deformation", "deformed", "bend", "bent", "squeeze", "warp", "fold", "bump", "bulge"),
    ("stain", "contamination", "contaminant", "dirt", "spot", "smudge", "color", "colour", "discoloration",
     "discolouration", "oil", "glue", "liquid", "paint"),
    ("scratch", "abrasion", "scrape", "rub", "scuff", "rough", "fray", "thread"),
    ("crack", "fracture", "fissure", "split", "tear", "torn", "rip", "cut"),
    ("chip", "nick"),
    ("body", "object", "particle", "matter", "debris"),
    ("missing", "absent", "lost", "lack", "without"),
    ("wrong", "mismatch", "misplaced", "swap", "flip", "incorrect"),
    ("tilt", "skew", "misaligned", "misalignment", "crooked", "rotated", "shift"),
    ("rust", "corrosion", "corroded", "oxidation"),
    ("wrinkle", "crease"),
    ("burn", "burnt", "scorch"),
    ("part", "component", "piece"),
    ("print", "imprint", "text", "logo"),
    ("board", "pcb"),
    ("damage", "break", "broken", "breakage", "destroyed"),
)  # fmt: skip
#: Words so wide that they are true of every one of these: whatever is cracked is damaged.
_WIDE = {"damage": frozenset({"hole", "dent", "scratch", "crack", "chip", "wrinkle", "burn", "damage"})}
#: Words that tell degree, place, material or nothing, not kind.
_IDLE = frozenset({
    "a", "an", "and", "big", "defect", "defective", "faulty", "glass", "inner", "large", "little", "major",
    "mark", "metal", "minor", "of", "on", "or", "outer", "plastic", "poke", "severe", "slight", "small",
    "surface", "teeth", "the", "total", "uneven", "with", "wooden",
})  # fmt: skip

#: Drawn on when a folder's own names are too few: a factory's folder has one product and two kinds of defect.
COMMON_KINDS = (
    "scratch", "crack", "hole", "stain", "dent", "missing part", "foreign body", "rust", "tilted label",
    "peeled coating", "burn mark", "blister", "wrinkle",
)  # fmt: skip
COMMON_NOUNS = (
    "bottle", "cable", "capsule", "carpet", "circuit board", "candle", "hazelnut", "leather", "metal nut",
    "screw", "toothbrush", "transistor", "zipper", "carton", "drink can", "bracket",
)  # fmt: skip


def option(words: str) -> str:
    """Words as an answer option.

    >>> option("bent lead")
    'Bent lead.'
    """
    return words[:1].upper() + words[1:] + "."


@lru_cache(maxsize=4096)
def meaning(words: str) -> frozenset[str]:
    """What the words say, without number, degree, material and order.

    >>> meaning("Scratches") == meaning("scratched"), sorted(meaning("bend and parts mismatch"))
    (True, ['dent', 'part', 'wrong'])
    """
    found = {_stem(word) for word in words.lower().split() if word not in _IDLE}
    return frozenset(_MEANING.get(stem, stem) for stem in found or {words.lower()})


def _stem(word: str) -> str:
    """A word without the endings of number, tense and quality: ``chipped``, ``chipping``, ``chips``."""
    for ending in ("ing", "ed", "es", "s", "y", "e"):
        short = word.removesuffix(ending)
        if short != word and len(short) > 2 and not word.endswith("ss"):
            word = short
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


_MEANING = {_stem(word): group[0] for group in _SYNONYMS for word in group}


def alike(one: str, other: str) -> bool:
    """Whether two names can be true of the same picture: one says all that the other does, or is very wide.

    >>> alike("pit", "holes"), alike("missing part", "wrong part"), alike("bottle", "food bottle")
    (True, False, True)
    >>> alike("damage", "scratch"), alike("missing cable", "missing part")
    (True, True)
    """
    first, second = meaning(one), meaning(other)
    if first <= second or second <= first or "missing" in first & second:
        return True
    return any(
        covered & mine and wide in theirs
        for wide, covered in _WIDE.items()
        for mine, theirs in ((first, second), (second, first))
    )


def distractors(
    truth: str, names: Iterable[str], spare: Iterable[str], count: int, seed: int, where: str
) -> list[str]:
    """False names beside a true one, none alike to it or to each other.

    Args:
        truth: the true name, in words.
        names: those of the datasets at hand.
        spare: common ones, drawn on when the others are too few.
        count: how many to find; fewer are returned when there are no more.
        seed: of the choice.
        where: what the choice is for.
    """
    chosen: list[str] = []
    for pool in (sorted(set(names)), spare):
        for name in shuffled(pool, seed, "distractor", where):
            if len(chosen) == count:
                return chosen
            if not any(alike(name, other) for other in (truth, *chosen)):
                chosen.append(name)
    return chosen


def any_names(truth: str, names: Iterable[str], count: int, seed: int, where: str) -> Sequence[str]:
    """Names other than the true one, as the released code draws them: synonyms may be among them."""
    return shuffled(sorted(set(names) - {truth}), seed, "distractor", where)[:count]
