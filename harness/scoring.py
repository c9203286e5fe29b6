"""Three ways to turn answers into a table row, and the one rule of averaging.

``official``
    What MMAD's and EMIT's scorers mean to compute. Per dataset and subtask: accuracy over the questions that
    were answered with a letter from A to E. Anomaly Discrimination is the mean of the accuracies on normal
    and on anomalous images. A dataset's average is the mean of its subtasks, the last row the mean over
    datasets. An entry without a letter is left out of the denominators, exactly once. (The published scripts
    remove such entries from the list they walk over and so lose the entry after each as well.)
``strict``
    The same, but an entry without a letter counts as wrong.
``pooled``
    Correct answers over all questions, per subtask and over all datasets together; the average is the mean of
    the subtasks. An entry without a letter counts as wrong.

Subtasks without any question are absent (None) and not averaged; a subtask that has questions but no answer
counts 0, as in the published scorers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.averaging import (
    ANOMALY_ACCURACY,
    AVERAGE,
    COLUMNS,
    COUNTED,
    NORMAL_ACCURACY,
    RULES,
    Rule,
    averaged,
)
from harness.columns import values_of
from harness.errors import BadInput
from harness.records import Answer, dataset_of, is_normal
from harness.subtasks import ANOMALY_DISCRIMINATION

__all__ = [
    "ANOMALY_ACCURACY",
    "AVERAGE",
    "COLUMNS",
    "NORMAL_ACCURACY",
    "RULES",
    "Row",
    "Rule",
    "Scores",
    "by_chance",
    "check_rule",
    "columns_of",
    "is_lettered",
    "score",
]
_LETTERS = frozenset("ABCDE")
_PLACES = {name: place for place, name in enumerate(COUNTED)}

#: Column -> percent, or None where there is no question.
Row = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's table under one rule."""

    rule: Rule
    n_questions: int
    n_unanswered: int  #: entries without a letter: unparsed or failed
    rows: Mapping[str, Row]  #: dataset -> column -> percent, and the row ``average``

    def as_json(self) -> dict[str, Any]:
        """The object that ``emit-bench score --format json`` prints."""
        return {
            "rule": self.rule,
            "n_questions": self.n_questions,
            "n_unanswered": self.n_unanswered,
            "rows": {name: dict(row) for name, row in self.rows.items()},
        }


def score(answers: Sequence[Answer], rule: Rule = "official") -> Scores:
    """Score one model's answers.

    Args:
        answers: one per question, of one model.
        rule: ``official``, ``strict`` or ``pooled`` (see the module's text).

    Raises:
        BadInput: the rule is unknown, or the answers are of several models.

    >>> def answer(letter, key="D/o/good/1.png", subtask="anomaly_discrimination"):
    ...     return Answer("m", key, 0, subtask, "Anomaly Detection", "?", {}, "A", letter, None)
    >>> scores = score([answer("A"), answer("B"), answer("B", key="D/o/bad/1.png")])
    >>> scores.rows["D"]["anomaly_discrimination"], scores.rows["D"]["normal_accuracy"]
    (25.0, 50.0)
    """
    check_rule(rule)
    return _score(
        answers, rule, zip(values_of(answers, "letter"), values_of(answers, "correct"), strict=True), _given
    )


def check_rule(rule: str) -> None:
    """Refuse a rule that there is not, with :class:`BadInput`."""
    if rule not in RULES:
        raise BadInput(f"there is no scoring rule {rule!r}; use one of {', '.join(RULES)}")


def by_chance(answers: Sequence[Answer], rule: Rule = "official") -> Scores:
    """What guessing scores on the questions of one model's answers, in expectation.

    Every option of a question is as likely as the others; what was answered does not matter. The model
    ``random-choice`` draws such guesses, and scatters around this.

    >>> def question(n):
    ...     options = dict.fromkeys("ABCDE"[:n], "")
    ...     return Answer("m", "D/o/bad/1.png", 0, "defect_analysis", "", "", options, "A", None, None)
    >>> by_chance([question(2), question(4)]).rows["D"]["defect_analysis"]
    37.5
    """
    counts = ((len(options),) for options in values_of(answers, "options"))
    return _score(answers, rule, counts, lambda options: (True, 1 / max(options, 1)))


def is_lettered(answer: Answer) -> bool:
    """Whether a question counts as answered: with a letter from A to E, and one to compare it with."""
    return _lettered(answer.letter, answer.correct)


def columns_of(answer: Answer) -> tuple[str, ...]:
    """The columns of :data:`~harness.averaging.COUNTED` that a question counts in."""
    return _columns(answer.subtask, is_normal(answer.key))


def _lettered(letter: str | None, correct: str) -> bool:
    return letter in _LETTERS and correct in _LETTERS


def _columns(subtask: str, normal: bool) -> tuple[str, ...]:
    if subtask != ANOMALY_DISCRIMINATION:
        return (subtask,)
    return subtask, NORMAL_ACCURACY if normal else ANOMALY_ACCURACY


def _given(letter: str | None, correct: str) -> tuple[bool, float]:
    """Whether a question counts as answered, and how right it is."""
    lettered = _lettered(letter, correct)
    return lettered, float(lettered and letter == correct)


class _Images(dict[str, tuple[str, bool]]):
    """Image's key -> its dataset and whether it is normal, found once for its several questions."""

    def __missing__(self, key: str) -> tuple[str, bool]:
        found = self[key] = (dataset_of(key), is_normal(key))
        return found


def _score(
    answers: Sequence[Answer],
    rule: Rule,
    said: Iterable[tuple[Any, ...]],
    right: Callable[..., tuple[bool, float]],
) -> Scores:
    """Many answers and few kinds of them: answers are counted by kind, and each kind is judged once.

    Args:
        answers: of one model.
        rule: of the average.
        said: the values by which each is judged.
        right: those values -> whether the question counts as answered, and how right it is.
    """
    import numpy as np

    models = set(values_of(answers, "model"))
    if len(models) > 1:
        raise BadInput(
            f"answers of several models are mixed ({', '.join(sorted(models))}); score each by itself"
        )
    images = map(_Images().__getitem__, values_of(answers, "key"))
    alike = Counter(zip(images, values_of(answers, "subtask"), said, strict=True))
    tallies: dict[str, list[list[float]]] = {}  # dataset -> asked, answered, correct by column
    for ((dataset, normal), subtask, values), count in alike.items():
        found = tallies.setdefault(dataset, [[0.0] * len(COUNTED) for _ in range(3)])
        answered, correct = right(*values)
        for column in _columns(subtask, normal):
            place = _PLACES[column]
            found[0][place] += count
            found[1][place] += count * answered
            found[2][place] += count * correct
    counts = np.array(list(tallies.values()), float).reshape(-1, 3, len(COUNTED))
    percent = averaged(counts[:, 0], counts[:, 1], counts[:, 2], rule)
    names = (*tallies, AVERAGE)
    return Scores(
        rule=rule,
        n_questions=len(answers),
        n_unanswered=sum(letter not in _LETTERS for letter in values_of(answers, "letter")),
        rows={name: _row(row) for name, row in zip(names, percent, strict=True)},
    )


def _row(values: Iterable[float]) -> Row:
    return {
        column: None if value != value else float(value)
        for column, value in zip(COLUMNS, values, strict=True)
    }
