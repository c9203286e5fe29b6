"""Answers in columns: scores need five values of an answer, and a million of them should cost no more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, overload

from harness.records import Answer

#: What a record has in place of a column that was not read: most of a store is words.
LEFT_OUT: Mapping[str, Any] = {
    "raw_type": "",
    "question": "",
    "options": {},
    "text": "",
    "reason": "",
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "seconds": 0.0,
}


class AnswerTable(Sequence[Answer]):
    """One model's answers as a store has them, column by column; a record is made when one is asked for.

    Where a column was not read, :meth:`column` says so, and a record has the empty value of :data:`LEFT_OUT`.

    Args:
        model: its id.
        columns: field of :class:`~harness.records.Answer` -> its values, ``option_logprobs`` as JSON or None.
            Any of those in :data:`LEFT_OUT` may be absent.

    Raises:
        ValueError: columns are not equally long, or another one is absent.
    """

    def __init__(self, model: str, columns: Mapping[str, Sequence[Any]]) -> None:
        lengths = {name: len(values) for name, values in columns.items()}
        missing = set(Answer._fields) - {"model", *columns, *LEFT_OUT}
        if missing or len(set(lengths.values())) != 1:
            raise ValueError(f"these columns make no table: {lengths}")
        self._model = model
        self._columns = columns

    def column(self, name: str) -> Sequence[Any]:
        """All values of one field, in order.

        Raises:
            LookupError: it was not read, or there is no such field.
        """
        if name == "model":
            return [self._model] * len(self)
        if name not in self._columns:
            raise LookupError(f"{name} was not read" if name in LEFT_OUT else f"answers have no {name}")
        if name != "option_logprobs":
            return self._columns[name]
        told = ",".join(text or "null" for text in self._columns[name])  # parsed in one go
        return list(json.loads(f"[{told}]"))

    def __len__(self) -> int:
        return len(self._columns["key"])

    def __iter__(self) -> Iterator[Answer]:
        there = {"model", *self._columns}
        columns = (self.column(name) if name in there else repeat(LEFT_OUT[name]) for name in Answer._fields)
        return map(Answer._make, zip(*columns, strict=False))  # those left out are endless

    @overload
    def __getitem__(self, place: int) -> Answer: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Answer]: ...
    def __getitem__(self, place: int | slice) -> Answer | Sequence[Answer]:
        if isinstance(place, slice):
            return tuple(self)[place]
        one = {name: (values[place],) for name, values in self._columns.items()}
        return next(iter(AnswerTable(self._model, one)))


def values_of(answers: Sequence[Answer], name: str) -> Sequence[Any]:
    """All values of one field, without making a record where there is none yet.

    >>> answer = Answer("m", "D/o/good/1.png", 0, "object_details", "", "?", {}, "A", "B", None)
    >>> values_of([answer, answer._replace(letter="C")], "letter")
    ['B', 'C']
    """
    if isinstance(answers, AnswerTable):
        return answers.column(name)
    return list(map(attrgetter(name), answers))
