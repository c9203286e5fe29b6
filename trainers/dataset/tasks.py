"""The four tasks by rule: questions whose truth follows from folders and masks (paper, "Task Construction").

A :class:`Draft` is a question before its letters are dealt. Letters are dealt over all questions of a task at
once and by truth, so that neither a letter nor its going together with a truth tells anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.grid import PLACES, touched_cells
from harness.raw import RawImage
from harness.subtasks import (
    ANOMALY_DISCRIMINATION,
    DEFECT_CLASSIFICATION,
    DEFECT_LOCALIZATION,
    OBJECT_CLASSIFICATION,
)
from trainers.dataset.choice import pick, rank, shuffled
from trainers.dataset.inspection import Inspected
from trainers.dataset.names import COMMON_KINDS, COMMON_NOUNS, any_names, distractors, option

TASKS = (ANOMALY_DISCRIMINATION, DEFECT_CLASSIFICATION, DEFECT_LOCALIZATION, OBJECT_CLASSIFICATION)
LETTERS = "ABCD"
QUESTIONS = {
    ANOMALY_DISCRIMINATION: "Is there any defect in the object?",
    DEFECT_CLASSIFICATION: "There is a defect in the object. What is the type of the defect?",
    DEFECT_LOCALIZATION: "There is a defect in the object. Where is the defect?",
    OBJECT_CLASSIFICATION: "What kind of product is in the image?",
}
#: Other words for each cell of the grid (released code).
SYNONYMS = (
    ("top left", "left top", "upper left", "left upper"),
    ("top", "top center", "summit"),
    ("top right", "right top", "upper right", "right upper"),
    ("left", "leftward", "left-hand"),
    ("center", "middle"),
    ("right", "rightward", "right-hand"),
    ("bottom left", "left bottom", "lower left", "left lower"),
    ("bottom", "bottom center", "below"),
    ("bottom right", "right bottom", "lower right", "right lower"),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """How questions are made."""

    seed: int = 0
    options: int = 4  #: of every question but Anomaly Discrimination
    synonyms: bool = True  #: whether places are said in other words too
    release: bool = False  #: the released code's faults: distractors alike to the truth, or twice


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that distractors are drawn from."""

    kinds: frozenset[str]
    nouns: frozenset[str]

    @classmethod
    def of(cls, images: Iterable[RawImage], kinds: Iterable[str] = ()) -> Vocabulary:
        """The names of images, and further kinds of defect; what has no name gives none."""
        seen = list(images)
        all_kinds = {image.kind for image in seen}.union(kinds)
        return cls(frozenset(all_kinds - {""}), frozenset({image.noun for image in seen} - {""}))


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about: an image, or a text in its stead."""

    id: str  #: unique; names the questions and their choices
    noun: str  #: the product in words; empty when it has no name
    defective: bool
    kind: str = ""  #: of the defect, in words; empty when it has no name
    cells: tuple[int, ...] = ()  #: that the defect touches, the fullest first; empty when not known

    @classmethod
    def of(cls, image: Inspected) -> Subject:
        """An image as a subject, under its dataset's name and its own."""
        raw, mask = image.raw, image.mask
        cells = touched_cells(mask.cells) if mask is not None else ()
        return cls(f"{raw.dataset}/{raw.name}", raw.noun, raw.condition == "defective", raw.kind, cells)


@dataclass(frozen=True, slots=True)
class Draft:
    """A question, its truth, and false options in the order they will stand in."""

    id: str
    task: str
    truth: str
    wrong: tuple[str, ...]
    evidence: str = ""  #: what one sees that decides it; empty when the truth says it

    @property
    def question(self) -> str:
        """Its wording."""
        return QUESTIONS[self.task]

    @property
    def rationale(self) -> str:
        """What a thought would say before it names the letter."""
        return " ".join(["I see:", *([self.evidence] if self.evidence else []), self.truth])


@dataclass(frozen=True, slots=True)
class Dealt:
    """A question with its letters."""

    draft: Draft
    options: dict[str, str]
    answer: str


@dataclass(frozen=True, slots=True)
class NotAsked:
    """A question that could not be asked, and why."""

    id: str
    task: str
    reason: str  #: ``no-name``, ``no-mask``, ``too-many-cells``, ``no-distractor``


def ask(subject: Subject, vocabulary: Vocabulary, rules: Rules) -> Iterator[Draft | NotAsked]:
    """The questions on one subject: is it defective? If so, of what kind and where; if not, what is it?"""
    yes, no = "Yes.", "No."
    name = f"{subject.id}/{ANOMALY_DISCRIMINATION}"
    if not subject.defective:
        yield Draft(name, ANOMALY_DISCRIMINATION, no, (yes,), "Normal.")
        yield classify_object(subject, vocabulary, rules)
        return
    evidence = option(subject.kind) if subject.kind else "Something is wrong."
    yield Draft(name, ANOMALY_DISCRIMINATION, yes, (no,), evidence)
    yield _classify_defect(subject, vocabulary, rules)
    yield _localize(subject, rules)


def classify_object(subject: Subject, vocabulary: Vocabulary, rules: Rules) -> Draft | NotAsked:
    """What kind of product is it?"""
    name = f"{subject.id}/{OBJECT_CLASSIFICATION}"
    if not subject.noun:
        return NotAsked(name, OBJECT_CLASSIFICATION, "no-name")
    return _named(name, OBJECT_CLASSIFICATION, subject.noun, vocabulary.nouns, COMMON_NOUNS, rules)


def _classify_defect(subject: Subject, vocabulary: Vocabulary, rules: Rules) -> Draft | NotAsked:
    name = f"{subject.id}/{DEFECT_CLASSIFICATION}"
    if not subject.kind:
        return NotAsked(name, DEFECT_CLASSIFICATION, "no-name")
    return _named(name, DEFECT_CLASSIFICATION, subject.kind, vocabulary.kinds, COMMON_KINDS, rules)


def _named(
    name: str, task: str, truth: str, names: Iterable[str], spare: Sequence[str], rules: Rules
) -> Draft | NotAsked:
    count = rules.options - 1
    if rules.release:
        wrong: Sequence[str] = any_names(truth, names, count, rules.seed, name)
    else:
        wrong = distractors(truth, names, spare, count, rules.seed, name)
    if not wrong:
        return NotAsked(name, task, "no-distractor")
    return Draft(name, task, option(truth), tuple(map(option, wrong)))


def _localize(subject: Subject, rules: Rules) -> Draft | NotAsked:
    name = f"{subject.id}/{DEFECT_LOCALIZATION}"
    if not subject.cells:
        return NotAsked(name, DEFECT_LOCALIZATION, "no-mask")
    free = [cell for cell in range(9) if cell not in subject.cells]
    count = rules.options - 1
    if not free or (len(free) < count and not rules.release):
        return NotAsked(name, DEFECT_LOCALIZATION, "too-many-cells")
    wrong = shuffled(free, rules.seed, "cells", name)[:count]
    while len(wrong) < count:  # the released code draws with replacement
        wrong.append(free[rank(rules.seed, "again", name, len(wrong)) % len(free)])
    said = [_place(cell, rules, name, turn) for turn, cell in enumerate((subject.cells[0], *wrong))]
    return Draft(name, DEFECT_LOCALIZATION, said[0], tuple(said[1:]))


def _place(cell: int, rules: Rules, *names: str | int) -> str:
    words = pick(SYNONYMS[cell], rules.seed, "synonym", cell, *names) if rules.synonyms else PLACES[cell]
    return option(words)


def deal(drafts: Iterable[Draft], rules: Rules) -> Iterator[Dealt]:
    """Give every question its letters; the order of questions is kept.

    Of each task and number of options the letters are used equally often (by one, more or less), and so they
    are within each truth. The released code draws each letter for itself.
    """
    ordered = list(drafts)
    decks: dict[tuple[str, int], list[Draft]] = defaultdict(list)
    for draft in ordered:
        decks[draft.task, len(draft.wrong)].append(draft)
    place: dict[str, int] = {}
    for (_, wrong), deck in decks.items():
        turns = sorted(deck, key=lambda draft: (draft.truth, rank(rules.seed, "deal", draft.id)))
        for turn, draft in enumerate(turns):
            dealt = rank(rules.seed, "letter", draft.id) if rules.release else turn
            place[draft.id] = dealt % (wrong + 1)
    for draft in ordered:
        texts = list(draft.wrong)
        texts.insert(place[draft.id], draft.truth)
        letters = LETTERS[: len(texts)]
        yield Dealt(draft, dict(zip(letters, texts, strict=True)), letters[place[draft.id]])
