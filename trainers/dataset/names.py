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
    ("hole", "pit", "puncture", "perforation", "pore", "porosity", "blowhole", "cavity"),
    ("dent", "deformation", "deformed", "bend", "bent", "squeeze", "squeezed", "warp",
     "warped", "fold", "folded"),
    ("stain", "contamination", "contaminated", "dirt", "dirty", "spot", "smudge", "color", "colour",
     "discoloration", "discolouration", "oil", "glue", "liquid"),
    ("scratch", "abrasion", "scrape", "rub", "scuff", "rough", "fray", "frayed"),
    ("crack", "fracture", "break", "broken", "breakage", "fissure", "split", "tear", "torn", "rip", "cut"),
    ("chip", "damage", "damaged", "nick", "chipped"),
    ("body", "object", "particle", "matter", "material"),
    ("missing", "absent", "lost", "lack"),
    ("wrong", "mismatch", "mismatched", "misplaced", "swap", "swapped", "flip", "flipped", "incorrect"),
    ("tilted", "skewed", "misaligned", "misalignment", "crooked", "rotated", "shifted"),
    ("rust", "corrosion", "oxidation", "rusty"),
    ("part", "component", "piece"),
    ("print", "imprint", "text", "logo"),
    ("board", "pcb"),
)  # fmt: skip
_MEANING = {word: group[0] for group in _SYNONYMS for word in group}
#: Words that tell degree, place or nothing, not kind.
_IDLE = frozenset({
    "a", "an", "and", "big", "defect", "defective", "faulty", "inner", "large", "little", "major", "minor",
    "of", "on", "or", "outer", "poke", "severe", "slight", "small", "surface", "the", "total", "with",
})  # fmt: skip

#: Drawn on when a folder's own names are too few: a factory's folder has one product and two kinds of defect.
COMMON_KINDS = (
    "scratch", "crack", "hole", "stain", "dent", "missing part", "foreign body", "rust", "tilted label",
    "uneven paint", "burn mark", "blister", "wrinkle",
)  # fmt: skip
COMMON_NOUNS = (
    "bottle", "cable", "capsule", "carpet", "circuit board", "candle", "hazelnut", "leather", "metal nut",
    "screw", "toothbrush", "transistor", "zipper", "wooden board", "drink can", "bracket",
)  # fmt: skip


def option(words: str) -> str:
    """Words as an answer option.

    >>> option("bent lead")
    'Bent lead.'
    """
    return words[:1].upper() + words[1:] + "."


@lru_cache(maxsize=4096)
def meaning(words: str) -> frozenset[str]:
    """What the words say, without number, degree and order.

    >>> meaning("Scratches") == meaning("scratch"), sorted(meaning("bend and parts mismatch"))
    (True, ['dent', 'part', 'wrong'])
    """
    found = {_stem(word) for word in words.lower().split() if word not in _IDLE}
    return frozenset(found or {words.lower()})


def _stem(word: str) -> str:
    forms = [word]
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith(("ches", "shes", "sses", "xes")):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        forms.append(word[:-1])
    known = next((_MEANING[form] for form in forms if form in _MEANING), None)
    return known or forms[-1]


def alike(one: str, other: str) -> bool:
    """Whether two names can be true of the same picture: the one says all that the other does.

    >>> alike("pit", "holes"), alike("missing part", "wrong part"), alike("bottle", "food bottle")
    (True, False, True)
    """
    first, second = meaning(one), meaning(other)
    return first <= second or second <= first


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
