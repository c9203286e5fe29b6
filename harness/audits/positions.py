"""``--audit positions``: does a model choose an option for its place, or for what it says?

Every question is asked again with its options turned: the letters stay, the texts move, and the right letter
moves with its text. A question with n options is asked in all n arrangements, up to :data:`MOST` beside its
own. Over all of them each text stands at each letter once, so a model that reads says every letter equally
often, whatever it knows; what it says more often than that it prefers for the letter's sake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.audits.spec import Audit, Evidence, Finding, Variant, with_items
from harness.errors import BadInput
from harness.records import Answer, Question

if TYPE_CHECKING:
    from harness.audits.figures import Figure
    from harness.run_info import RunInfo

#: Arrangements beyond a question's own.
MOST = 4
Arranged = Sequence[Answer]  #: one question's answers: as it stands, turned by one, by two, …


def turned(question: Question, by: int) -> Question:
    """The question with every option's text moved up by some places.

    >>> asked = Question(0, "?", {"A": "red", "B": "green", "C": "blue"}, "A", "", "")
    >>> turned(asked, 1).options, turned(asked, 1).answer
    ({'A': 'green', 'B': 'blue', 'C': 'red'}, 'C')
    """
    letters, texts = tuple(question.options), tuple(question.options.values())
    by %= len(letters)
    options = dict(zip(letters, (*texts[by:], *texts[:by]), strict=True))
    return replace(question, options=options, answer=letters[letters.index(question.answer) - by])


def _variants(base: RunInfo) -> list[Variant]:
    most = max((len(question.options) for item in base.items for question in item.questions), default=0)
    if most < 2:
        raise BadInput("--audit positions: no question has two options to turn; leave it out")
    return [_variant(base, by) for by in range(1, min(most - 1, MOST) + 1)]


def _variant(base: RunInfo, by: int) -> Variant:
    """Only questions that have more options than that: others would come round to an arrangement before."""
    items = []
    for item in base.items:
        asked = tuple(turned(one, by) for one in item.questions if len(one.options) > by)
        if asked:
            items.append(replace(item, questions=asked))
    name = _name(by)
    return Variant(name, f"options turned by {by}", with_items(base, items, "positions", name))


def _name(by: int) -> str:
    return f"turned-{by}"


def _judge(evidence: Evidence) -> Finding:
    arranged = _arranged(evidence)
    if not arranged:
        title = evidence.title
        return Finding([{"Model": title}], f"{title} gave no question a letter in all arrangements.", 0, {})
    from harness.audits.figures import share

    keys = [answers[0].key for answers in arranged]
    same = share([len({_text(one) for one in answers}) == 1 for answers in arranged], keys)
    by_chance = 100 * sum(len(a[0].options) ** (1 - len(a)) for a in arranged) / len(arranged)
    preference, shares = _preferences(arranged, keys)
    accuracies = _accuracies(evidence)
    low, high = min(accuracies), max(accuracies)
    row = {
        "Model": evidence.title,
        **{letter: f"{figure.value:+.2f}" for letter, figure in preference.items()},
        "Same text": same.value,
        "95 % interval": same.interval,
        "By chance": by_chance,
        "Lowest": low,
        "Highest": high,
    }
    figures = {
        "preference": {letter: figure.as_json() for letter, figure in preference.items()},
        "share": shares,
        "consistency": same.as_json(),
        "consistency_by_chance": by_chance,
        "accuracy": accuracies,
        "questions": len(evidence.base),
        "questions_with_all_letters": len(arranged),
    }
    sentence = _sentence(evidence.title, preference, shares, same, high - low)
    return Finding([row], sentence, len(arranged), figures)


def _sentence(
    title: str, preference: Mapping[str, Figure], shares: Mapping[str, float], same: Figure, spread: float
) -> str:
    letter = max(preference, key=lambda name: abs(preference[name].value))
    found = preference[letter]
    even = shares[letter] - found.value
    if found.low <= 0 <= found.high:
        liking = f"{title} prefers no letter beyond noise"
    else:
        liking = (
            f"{title} says {letter} in {shares[letter]:.1f} % of its answers where {even:.1f} % would be "
            f"even ({found.value:+.1f} points, 95 % interval {found.signed})"
        )
    return (
        f"{liking}; it chooses the same text in {same.value:.1f} % of the questions however their options "
        f"stand, and its average moves by {spread:.1f} points."
    )


def _arranged(evidence: Evidence) -> list[Arranged]:
    """Questions that have a letter in every arrangement in which they were asked."""
    found = defaultdict(list)
    for answers in (evidence.base, *(evidence.variants[name] for name in _in_order(evidence))):
        for answer in answers:
            found[answer.key, answer.number].append(answer)
    return [
        answers
        for answers in found.values()
        if len(answers) == min(len(answers[0].options), MOST + 1)
        and all(answer.letter in answer.options for answer in answers)
    ]


def _in_order(evidence: Evidence) -> list[str]:
    return [name for by in range(1, MOST + 1) if (name := _name(by)) in evidence.variants]


def _text(answer: Answer) -> str:
    return answer.options[answer.letter or ""]


def _preferences(
    arranged: Sequence[Arranged], keys: Sequence[str]
) -> tuple[dict[str, Figure], dict[str, float]]:
    """Letter -> share among the answers to questions that offer it, less the even share; and the share."""
    import numpy as np

    from harness.audits.figures import ratios

    letters = sorted({letter for answers in arranged for letter in answers[0].options})
    said = np.zeros((len(arranged), len(letters)))
    even = np.zeros_like(said)
    for row, answers in enumerate(arranged):
        for column, letter in enumerate(letters):
            said[row, column] = sum(answer.letter == letter for answer in answers) / len(answers)
            even[row, column] = (letter in answers[0].options) / len(answers[0].options)
    offered = (even > 0).astype(float)
    # Bonferroni: that of the letter which stands out most is right in 95 of 100 models, too.
    figures, _ = ratios(said - even, offered, keys, confidence=1 - 0.05 / len(letters))
    shares = 100 * said.sum(0) / offered.sum(0)
    return dict(zip(letters, figures, strict=True)), dict(zip(letters, map(float, shares), strict=True))


def _accuracies(evidence: Evidence) -> list[float]:
    """The average by arrangement, of all questions: those that have come round count as they stood then."""
    from harness.scoring import AVERAGE, score

    tables = [
        {(answer.key, answer.number): answer for answer in answers}
        for answers in (evidence.base, *(evidence.variants[name] for name in _in_order(evidence)))
    ]
    found = []
    for by in range(len(tables)):
        answers = [tables[by % max(len(one.options), 1)].get(key, one) for key, one in tables[0].items()]
        found.append(score(answers).rows[AVERAGE][AVERAGE] or 0.0)
    return found


POSITIONS = Audit(
    "positions",
    "Options turned",
    "Every question with its options in other places: is a letter preferred for its own sake?",
    _variants,
    _judge,
)
