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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.errors import BadInput
from harness.records import Answer, is_normal
from harness.subtasks import ANOMALY_DISCRIMINATION, SUBTASK_KEYS

Rule = Literal["official", "strict", "pooled"]
RULES: tuple[Rule, ...] = get_args(Rule)
AVERAGE = "average"
NORMAL_ACCURACY = "normal_accuracy"
ANOMALY_ACCURACY = "anomaly_accuracy"
#: What a row holds, in order; percentages, or None where there is no question.
COLUMNS = (*SUBTASK_KEYS, AVERAGE, NORMAL_ACCURACY, ANOMALY_ACCURACY)
_LETTERS = frozenset("ABCDE")

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


@dataclass(slots=True)
class Tally:
    """Counts of one cell."""

    asked: int = 0
    answered: int = 0
    correct: float = 0

    def percent(self, rule: Rule) -> float | None:
        """Accuracy in percent; None when nothing was asked."""
        if not self.asked:
            return None
        of = self.answered if rule == "official" else self.asked
        return 100 * self.correct / of if of else 0.0


def score(answers: Iterable[Answer], rule: Rule = "official") -> Scores:
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
    if rule not in RULES:
        raise BadInput(f"there is no scoring rule {rule!r}; use one of {', '.join(RULES)}")
    return _score(answers, rule, _given)


def by_chance(answers: Iterable[Answer], rule: Rule = "official") -> Scores:
    """What guessing scores on the questions of one model's answers, in expectation.

    Every option of a question is as likely as the others; what was answered does not matter. The model
    ``random-choice`` draws such guesses, and scatters around this.

    >>> def question(n):
    ...     options = dict.fromkeys("ABCDE"[:n], "")
    ...     return Answer("m", "D/o/bad/1.png", 0, "defect_analysis", "", "", options, "A", None, None)
    >>> by_chance([question(2), question(4)]).rows["D"]["defect_analysis"]
    37.5
    """
    return _score(answers, rule, _expected)


def _given(answer: Answer) -> tuple[bool, float]:
    """Whether a question counts as answered, and how right it is."""
    lettered = answer.letter in _LETTERS and answer.correct in _LETTERS
    return lettered, float(lettered and answer.letter == answer.correct)


def _expected(answer: Answer) -> tuple[bool, float]:
    return True, 1 / max(len(answer.options), 1)


def _score(answers: Iterable[Answer], rule: Rule, right: Callable[[Answer], tuple[bool, float]]) -> Scores:
    cells: dict[str, dict[str, Tally]] = {}
    models, unanswered, asked = set(), 0, 0
    for answer in answers:
        models.add(answer.model)
        asked += 1
        unanswered += answer.letter not in _LETTERS
        _count(cells.setdefault(answer.dataset, {}), answer, *right(answer))
    if len(models) > 1:
        raise BadInput(
            f"answers of several models are mixed ({', '.join(sorted(models))}); score each by itself"
        )
    rows = {dataset: _row(tallies, rule) for dataset, tallies in cells.items()}
    if rule == "pooled":
        rows[AVERAGE] = _row(_pool(cells.values()), rule)
    else:
        rows[AVERAGE] = {column: mean(row[column] for row in rows.values()) for column in COLUMNS}
    return Scores(rule, asked, unanswered, rows)


def mean(values: Iterable[float | None]) -> float | None:
    """The plain mean of those that are present; None when none is."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _count(tallies: dict[str, Tally], answer: Answer, answered: bool, correct: float) -> None:
    cells = [answer.subtask]
    if answer.subtask == ANOMALY_DISCRIMINATION:
        cells.append(NORMAL_ACCURACY if is_normal(answer.key) else ANOMALY_ACCURACY)
    for cell in cells:
        tally = tallies.setdefault(cell, Tally())
        tally.asked += 1
        tally.answered += answered
        tally.correct += correct


def _pool(cells: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    pooled: dict[str, Tally] = {}
    for tallies in cells:
        for name, tally in tallies.items():
            total = pooled.setdefault(name, Tally())
            total.asked += tally.asked
            total.answered += tally.answered
            total.correct += tally.correct
    return pooled


def _row(tallies: Mapping[str, Tally], rule: Rule) -> Row:
    none = Tally()
    row: Row = {name: tallies.get(name, none).percent(rule) for name in (*SUBTASK_KEYS, *COLUMNS[-2:])}
    if rule != "pooled":
        row[ANOMALY_DISCRIMINATION] = mean((row[NORMAL_ACCURACY], row[ANOMALY_ACCURACY]))
    row[AVERAGE] = mean(row[key] for key in SUBTASK_KEYS)
    return {column: row[column] for column in COLUMNS}
