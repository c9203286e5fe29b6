"""Models that answered the same questions, as sums over clusters: what every statistic starts from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from harness.averaging import AVERAGE, COUNTED, Array, Rule, averaged
from harness.errors import BadInput
from harness.records import Answer, is_normal
from harness.scoring import check_rule, columns_of, is_lettered
from harness.statistics import joined

Cluster = Literal["image", "object"]
CLUSTERS: tuple[Cluster, ...] = get_args(Cluster)
QuestionId: TypeAlias = tuple[str, int]  #: key of the image, number of the question
_PLACES = {name: place for place, name in enumerate(COUNTED)}
_WIDTH = len(COUNTED)


class Panel:
    """Counts of several models over the same questions.

    Whatever order the answers come in, the panel is the same: its questions are sorted.

    Args:
        answers: model -> its answers.
        rule: of averaging (:mod:`harness.scoring`).
        cluster: what is resampled as a whole: ``image``, or ``object`` for all images of a product.

    Raises:
        BadInput: the models' questions differ, a question is answered twice, or there is none.

    Attributes:
        rule: as given.
        cluster: as given.
        models: their names, M of them.
        questions: image and number of each of Q questions.
        right: ``(M, Q)`` whether the answer is right; one without a letter is not.
        datasets: names, D of them.
        dataset: ``(C,)`` of each cluster.
        strata: ``(C,)`` the group that each cluster is drawn within: dataset and condition of the image where
            the rule averages over these, the dataset where products are drawn, one group for ``pooled``;
            those of a single cluster are joined to others.
        asked: ``(C, 9)`` questions in the order of :data:`~harness.averaging.COUNTED`.
        answered: ``(M, C, 9)`` of these, with a letter.
        correct: ``(M, C, 9)`` of these, right.
    """

    def __init__(
        self, answers: Mapping[str, Sequence[Answer]], rule: Rule = "official", cluster: Cluster = "image"
    ) -> None:
        check_rule(rule)
        if cluster not in CLUSTERS:
            raise BadInput(f"there is no cluster {cluster!r}; use one of {', '.join(CLUSTERS)}")
        self.rule = rule
        self.cluster = cluster
        self.models = tuple(answers)
        tables = {model: _by_question(model, given) for model, given in answers.items()}
        first = tables[self.models[0]] if tables else {}
        if not first:
            raise BadInput("there are no answers to compute statistics of")
        self.questions = tuple(sorted(first))
        for model in self.models[1:]:
            require_same_questions(self.models[0], first, model, tables[model])
        asked = [first[question] for question in self.questions]
        self._lay_out(asked, cluster)
        lettered = np.array([[is_lettered(table[q]) for q in self.questions] for table in tables.values()])
        same = np.array(
            [[table[q].letter == table[q].correct for q in self.questions] for table in tables.values()]
        )
        self.right: NDArray[np.bool_] = lettered & same
        self.asked: Array = self._count(np.ones(len(asked)))
        self.answered: Array = np.stack([self._count(found) for found in lettered])
        self.correct: Array = np.stack([self._count(found) for found in self.right])

    def _lay_out(self, asked: Sequence[Answer], cluster: Cluster) -> None:
        parts = 1 if cluster == "image" else 2
        names = [answer.key if parts == 1 else "/".join(answer.key.split("/")[:2]) for answer in asked]
        clusters = {name: place for place, name in enumerate(dict.fromkeys(names))}
        dataset_of = {name: answer.dataset for name, answer in zip(names, asked, strict=True)}
        self.datasets = tuple(dict.fromkeys(dataset_of.values()))
        self.dataset = np.array([self.datasets.index(dataset_of[name]) for name in clusters])
        if self.rule == "pooled":
            self.strata = np.zeros(len(clusters), np.intp)
        elif cluster == "object":
            self.strata = self.dataset
        else:
            self.strata = 2 * self.dataset + np.array([is_normal(name) for name in clusters])
        self.strata = joined(self.strata, self.dataset)
        place = np.array([clusters[name] for name in names])
        columns = [tuple(_PLACES[column] for column in columns_of(answer)) for answer in asked]
        self.column = np.array([found[0] for found in columns])
        second = np.array([found[1] if len(found) > 1 else -1 for found in columns])
        self._cells = place * _WIDTH + self.column
        self._also = np.flatnonzero(second >= 0)
        self._cells_also = (place * _WIDTH + second)[self._also]
        self._shape = (len(clusters), _WIDTH)

    def _count(self, each: NDArray[np.bool_] | Array) -> Array:
        """Sums ``(C, 9)`` of a number for each question."""
        size = self._shape[0] * self._shape[1]
        weights = each.astype(float)
        counts: Array = np.zeros(size)
        counts += np.bincount(self._cells, weights, size)
        counts += np.bincount(self._cells_also, weights[self._also], size)
        return counts.reshape(self._shape)

    def clusters_of(self, column: str) -> int:
        """In how many clusters a column's questions lie; of a single one no resample tells the spread."""
        return len(self.dataset) if column == AVERAGE else int((self.asked[:, _PLACES[column]] > 0).sum())

    @property
    def freedom(self) -> int:
        """Degrees of freedom of a spread over clusters: clusters less strata."""
        return max(1, len(self.strata) - len(np.unique(self.strata)))

    def percentages(self) -> Array:
        """What was found: ``(M, D + 1, 10)``, datasets and the average by column."""
        found: Array = next(self.weighted(iter([np.ones((1, self._shape[0]))])))[0]
        return found

    def weighted(self, weights: Iterator[Array]) -> Iterator[Array]:
        """The same under weights of the clusters.

        Args:
            weights: blocks ``(rows, C)``.

        Yields:
            Blocks ``(rows, M, D + 1, 10)``.
        """
        count = len(self.models)
        features = np.concatenate([self.asked, *self.answered, *self.correct], 1)
        for block in weights:
            sums = self.by_dataset(block, features).reshape(len(block), len(self.datasets), -1, _WIDTH)
            asked = np.repeat(sums[:, :, :1], count, 2)
            parts = (asked, sums[:, :, 1 : 1 + count], sums[:, :, 1 + count :])
            asked, answered, correct = (np.swapaxes(part, 1, 2) for part in parts)
            yield averaged(asked, answered, correct, self.rule)

    def by_dataset(self, weights: Array, features: Array) -> Array:
        """Weighted sums of features ``(C, F)`` within each dataset: ``(rows, D, F)``."""
        inside = [np.flatnonzero(self.dataset == i) for i in range(len(self.datasets))]
        return np.stack([weights[:, places] @ features[places] for places in inside], 1)


def _by_question(model: str, answers: Sequence[Answer]) -> dict[QuestionId, Answer]:
    table = {(answer.key, answer.number): answer for answer in answers}
    if len(table) < len(answers):
        times = Counter((answer.key, answer.number) for answer in answers)
        (key, number), _ = times.most_common(1)[0]
        raise BadInput(f"{model}: question {number} of {key} is answered twice; keep one of the answers")
    return table


def difference_of(one: Answer, other: Answer) -> str | None:
    """How two answers' questions differ, as the end of a sentence; None where they are the same question.

    Texts and options are compared where both sides know them: a baseline file and some answer files do not.
    """
    if one.subtask != other.subtask:
        return f"the subtask is {one.subtask} in one and {other.subtask} in the other"
    if one.correct != other.correct:
        return f"the right answer is {one.correct} in one and {other.correct} in the other"
    short, long = sorted((" ".join(one.question.split()), " ".join(other.question.split())), key=len)
    if not long.startswith(short):  # official answer files write the options behind the question
        return "the wording differs"
    if one.options and other.options and dict(one.options) != dict(other.options):
        return "the options differ"
    return None


def require_same_questions(
    name: str, one: Mapping[QuestionId, Answer], other_name: str, other: Mapping[QuestionId, Answer]
) -> None:
    """Refuse answers to other questions with :class:`BadInput`, which names the first difference."""
    if missing := sorted(one.keys() ^ other.keys()):
        key, number = missing[0]
        lacks = other_name if missing[0] in one else name
        raise BadInput(
            f"{name} and {other_name} did not answer the same questions: {len(missing):,} are in one of them "
            f"only, the first being question {number} of {key}, which {lacks} lacks; pass --common to "
            "compare what they share"
        )
    for question, answer in one.items():
        differs = difference_of(answer, other[question])
        if differs:
            raise BadInput(
                f"{name} and {other_name} did not answer the same questions: in question {question[1]} of "
                f"{question[0]} {differs}; pass --common to compare what they share"
            )
