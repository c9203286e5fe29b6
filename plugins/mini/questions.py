"""Multiple-choice questions with a truth that the renderer knows, in MMAD's seven subtasks and wording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.grid import PLACES, cell_counts, touched_cells
from plugins.mini.catalogue import FAMILIES
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.pieces import COLOURS, Design
from plugins.mini.render import Shot


def sentence(words: str) -> str:
    """Words as an option: ``wrong part`` becomes ``Wrong part.``."""
    return words[0].upper() + words[1:] + "."


CELLS = tuple(map(sentence, PLACES))
NUMBERS = ("Zero.", "One.", "Two.", "Three.", "Four.", "Five.", "Six.", "Seven.", "Eight.", "Nine.")
OUTLINES = tuple(dict.fromkeys(family.outline for family in FAMILIES.values()))
LETTERS = "ABCDE"


@dataclass(frozen=True, slots=True)
class Choice:
    """A question before its options are dealt: the truth, and everything that is false."""

    raw_type: str
    text: str
    truth: str
    wrong: tuple[str, ...]
    evidence: str  #: what one sees in the query image that decides it, in words

    def deal(self, rng: np.random.RandomState, options: int = 4) -> dict[str, Any]:
        """The question as an entry of ``conversation`` in ``mmad.json``, its options in random order."""
        order = rng.permutation(len(self.wrong))[: options - 1]
        texts = [self.truth, *(self.wrong[i] for i in order)]
        texts = [texts[i] for i in rng.permutation(len(texts))]
        letters = LETTERS[: len(texts)]
        return {
            "Question": self.text,
            "Answer": letters[texts.index(self.truth)],
            "Options": dict(zip(letters, texts, strict=True)),
            "type": self.raw_type,
            "annotation": True,
        }


def _others(values: Sequence[str], truth: str) -> tuple[str, ...]:
    return tuple(value for value in values if value != truth)


def anomaly_question(defect: Defect | None) -> Choice:
    """Is there any defect?"""
    truth, wrong = ("Yes.", "No.") if defect else ("No.", "Yes.")
    evidence = sentence(defect.name) if defect else "Normal."
    return Choice("Anomaly Detection", "Is there any defect in the object?", truth, (wrong,), evidence)


def defect_questions(shot: Shot) -> list[Choice]:
    """Kind, place, appearance and effect of the defect of a defective picture."""
    return [] if shot.defect is None else defect_choices(shot.defect, touched_cells(cell_counts(shot.mask)))


def defect_choices(defect: Defect, cells: Sequence[int]) -> list[Choice]:
    """The same from the truth itself: ``cells`` are those that the mask touches, the fullest first.

    No place is asked for when fewer than three cells are left as distractors.
    """
    kinds = list(DEFECTS.values())
    stem = "There is a defect in the object. "
    choices = [
        Choice(
            "Defect Classification",
            stem + "What is the type of the defect?",
            sentence(defect.name),
            _others([sentence(kind.name) for kind in kinds], sentence(defect.name)),
            "",
        ),
        Choice(
            "Defect Description",
            stem + "What is the appearance of the defect?",
            defect.appearance,
            _others([kind.appearance for kind in kinds], defect.appearance),
            sentence(defect.name),
        ),
        Choice(
            "Defect Analysis",
            stem + "What is the effect of the defect?",
            defect.effect,
            _others([kind.effect for kind in kinds], defect.effect),
            sentence(defect.name),
        ),
    ]
    free = [CELLS[cell] for cell in range(9) if cell not in cells]
    if cells and len(free) >= 3:
        place = CELLS[cells[0]]
        where = Choice(
            "Defect Localization",
            stem + "Where is the defect?",
            place,
            tuple(free),
            "",
        )
        choices.insert(1, where)
    return choices


def class_question(design: Design) -> Choice:
    """What kind of product is it?"""
    truth = sentence(design.family.noun)
    wrong = _others([sentence(noun) for noun in FAMILIES], truth)
    return Choice("Object Classification", "What kind of product is in the image?", truth, wrong, "")


def trim_part(design: Design) -> str:
    """The piece that has the look's trim colour."""
    colour = COLOURS[design.look.trim]
    return next(element.part for element in design.elements if element.material.colour == colour)


def object_questions(design: Design) -> list[Choice]:
    """Structure and details of a normal product."""
    family, look = design.family, design.look
    colours = [sentence(colour) for colour in COLOURS]
    count, trim = NUMBERS[look.count], trim_part(design)
    return [
        Choice(
            "Object Structure",
            f"How many pieces of the kind '{family.part}' does the product have?",
            count,
            _others(NUMBERS[1:9], count),
            "",
        ),
        Choice(
            "Object Structure",
            "What is the outline of the product?",
            family.outline,
            _others(OUTLINES, family.outline),
            "",
        ),
        Choice(
            "Object Details",
            "What colour is the body of the product?",
            sentence(look.body),
            _others(colours, sentence(look.body)),
            "",
        ),
        Choice(
            "Object Details",
            f"What colour does the piece '{trim}' of the product have?",
            sentence(look.trim),
            _others(colours, sentence(look.trim)),
            "",
        ),
    ]


def knowledge(design: Design, kinds: Sequence[Defect]) -> dict[str, str]:
    """What MMAD's knowledge file would say: condition -> text."""
    look = design.look
    normal = design.family.summary.format(
        body=look.body, trim=look.trim, count=NUMBERS[look.count].lower()[:-1]
    )
    texts = {"good": f" <Normal>\n Description: {normal}"}
    for kind in kinds:
        texts[kind.folder] = f" <{kind.name.capitalize()}>\n Description: {kind.appearance} {kind.effect}"
    return texts
