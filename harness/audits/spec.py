"""What an audit is: variants of a run, and a judgement on how their answers differ from its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.keys import digest_of

if TYPE_CHECKING:
    from harness.records import Answer, Item
    from harness.run_info import RunInfo

#: A text as it is shown, or a number; None where there is nothing to say.
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Variant:
    """The run once more with one thing changed. Its folder is set where it is executed."""

    name: str  #: of its folder
    summary: str  #: what is changed
    run: RunInfo


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one model answered: in the run, and in each variant."""

    title: str  #: of the model, as tables print it
    run: RunInfo
    base: Sequence[Answer]
    variants: Mapping[str, Sequence[Answer]]  #: name of the variant -> answers


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit finds of one model."""

    rows: Sequence[Mapping[str, Cell]]  #: column -> cell
    sentence: str
    n_questions: int  #: that it rests on
    figures: Mapping[str, Any]  #: the same as plain numbers, unrounded, for programs


@dataclass(frozen=True, slots=True)
class Audit:
    """An audit that ``--audit`` can name."""

    name: str
    title: str
    summary: str
    #: The variants of a run; raises BadInput where there is nothing to vary. Nothing is asked yet.
    variants: Callable[[RunInfo], Sequence[Variant]]
    judge: Callable[[Evidence], Finding]


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit found, of all models of a run."""

    audit: str  #: its name
    title: str
    sentence: str
    columns: tuple[str, ...]  #: the first is the model
    rows: tuple[tuple[Cell, ...], ...]
    n_questions: int  #: that each model was judged by, at most
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  #: model id -> plain numbers

    def as_json(self) -> dict[str, Any]:
        """For ``result.json`` and ``--format json``."""
        return asdict(self)


def with_items(base: RunInfo, items: Sequence[Item], *change: str) -> RunInfo:
    """The run with other items, under a benchmark digest of its own.

    Args:
        base: the run.
        items: in place of its own.
        change: names what was changed, for the digest.
    """
    digest = digest_of(["audit", base.benchmark.digest, *change])
    changed = replace(base.benchmark, items=tuple(items), digest=digest)
    return replace(base, items=tuple(items), benchmark=changed)
