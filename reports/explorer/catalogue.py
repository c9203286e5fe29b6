"""All questions of a subject in one order, with what became of each in every entry."""

from __future__ import annotations

from functools import cached_property

from harness.records import Answer, Outcome
from harness.scoring import is_lettered
from reports.explorer.places import Place, place_of
from reports.subject import Subject

RIGHT, WRONG, SILENT, FAILED, NOT_ASKED = "rwuf "


class Catalogue:
    """All questions of a subject by image, with the answer of every entry.

    Args:
        subject: what the report is about.

    Attributes:
        images: keys, in the order in which they were first asked about.
        questions: one answer to each, which stands for the question; by image, then number.
        answers: for each entry, its answers in the order of ``questions``; None where it was not asked.
    """

    def __init__(self, subject: Subject) -> None:
        found: dict[str, dict[int, Answer]] = {}
        for entry in subject.entries:
            for answer in entry.answers:
                known = found.setdefault(answer.key, {})
                if answer.number not in known or (answer.options and not known[answer.number].options):
                    known[answer.number] = answer
        self.images = tuple(found)
        self.questions = tuple(by[number] for by in found.values() for number in sorted(by))
        tables = [{(a.key, a.number): a for a in entry.answers} for entry in subject.entries]
        self.answers = tuple(
            tuple(table.get((question.key, question.number)) for question in self.questions)
            for table in tables
        )

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Of each image."""
        return tuple(place_of(key) for key in self.images)

    @cached_property
    def states(self) -> tuple[str, ...]:
        """For each entry, :func:`state_of` its answers in a row."""
        return tuple("".join(map(state_of, given)) for given in self.answers)

    @cached_property
    def image_of(self) -> tuple[int, ...]:
        """Position in ``images`` of each question's image."""
        position = {key: i for i, key in enumerate(self.images)}
        return tuple(position[question.key] for question in self.questions)


def state_of(answer: Answer | None) -> str:
    """One character for what became of a question, as the scorers count it."""
    if answer is None:
        return NOT_ASKED
    if answer.outcome == Outcome.FAILED:
        return FAILED
    if not is_lettered(answer):
        return SILENT
    return RIGHT if answer.letter == answer.correct else WRONG
