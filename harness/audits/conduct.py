"""Audits from the plan to the result: variants are runs like any other, in folders inside the run's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.audits.results import write_result
from harness.audits.spec import Audit, AuditResult, Cell, Evidence, Finding, Variant
from harness.records import Outcome
from harness.run import execute_all
from harness.run_folder import AUDITS_FOLDER
from harness.run_info import RunInfo
from harness.store import FILE_NAME, Store

if TYPE_CHECKING:
    from harness.plugins import Registry
    from harness.records import Answer
    from harness.run import RunResult


@dataclass(frozen=True)
class PlannedAudit:
    """An audit with the variants of one run."""

    audit: Audit
    base: RunInfo
    variants: tuple[Variant, ...]

    @property
    def n_questions(self) -> int:
        """Asked of each model."""
        return sum(variant.run.n_questions for variant in self.variants)


@dataclass(frozen=True)
class Conducted:
    """A finished audit."""

    result: AuditResult
    failures: tuple[str, ...]  #: a sentence for each model that could not be judged
    path: Path  #: of ``result.json``


def plan_audit(audit: Audit, base: RunInfo) -> PlannedAudit:
    """The variants of a run, each with its folder; raises BadInput where the audit has nothing to vary."""
    variants = []
    for variant in audit.variants(base):
        folder = base.out / AUDITS_FOLDER / audit.name / variant.name
        told = {"audit": audit.name, "variant": variant.name, "summary": variant.summary}
        variants.append(replace(variant, run=replace(variant.run, out=folder, variant=told)))
    return PlannedAudit(audit, base, tuple(variants))


def conduct(planned: PlannedAudit, base: RunResult, registry: Registry) -> Conducted:
    """Ask the variants what their folders hold no answer to, judge, and write ``result.json``.

    Args:
        planned: the audit.
        base: how the run itself ended.
        registry: the plugins; no observer is told of a variant.

    Raises:
        BadInput: as :func:`harness.run.execute`.
    """
    _hand_on_digests(planned)
    runs = [variant.run for variant in planned.variants]
    done = execute_all(runs, registry, observed=False, title=f"[{planned.audit.name}]")
    answers = {v.name: result.answers for v, result in zip(planned.variants, done, strict=True)}
    findings: dict[str, Finding] = {}
    failures = []
    for spec in planned.base.models:
        given = {name: table[spec.id] for name, table in answers.items()}
        failed = _failure(spec.title, {"the run": base.answers[spec.id], **given}, planned.base.max_failed)
        if failed:
            failures.append(failed)
        else:
            evidence = Evidence(spec.title, planned.base, base.answers[spec.id], given)
            findings[spec.id] = planned.audit.judge(evidence)
    result = _result(planned.audit, findings, failures)
    return Conducted(result, tuple(failures), write_result(planned.base.out, result))


def _hand_on_digests(planned: PlannedAudit) -> None:
    """Variants show the run's images: none of them need be read again to be known."""
    with Store.read_only(planned.base.out / FILE_NAME) as store:
        known = store.digests()
    for variant in planned.variants:
        if not (variant.run.out / FILE_NAME).exists():
            with Store.open(variant.run.out / FILE_NAME) as store:
                store.save_digests(known)


def _failure(title: str, answers: Mapping[str, Sequence[Answer]], allowed: float) -> str | None:
    """Why a model is not judged: too many questions failed, in the run or in a variant."""
    for name, given in answers.items():
        failed = [one.reason for one in given if one.outcome is Outcome.FAILED]
        if len(failed) > allowed * len(given):
            (reason, _), *_ = Counter(failed).most_common(1)
            return (
                f"{title} is not judged: {len(failed):,} of {len(given):,} questions failed in {name}, most "
                f"of them because: {reason}."
            )
    return None


def _result(audit: Audit, findings: Mapping[str, Finding], failures: Sequence[str]) -> AuditResult:
    columns = tuple(dict.fromkeys(column for one in findings.values() for row in one.rows for column in row))
    return AuditResult(
        audit=audit.name,
        title=audit.title,
        sentence=" ".join([*(one.sentence for one in findings.values()), *failures]),
        columns=columns,
        rows=tuple(
            tuple(row.get(column) for column in columns) for one in findings.values() for row in one.rows
        ),
        n_questions=max((one.n_questions for one in findings.values()), default=0),
        figures={model: one.figures for model, one in findings.items()},
    )


def as_text(result: AuditResult) -> str:
    """For the terminal: what was asked, the table, what it says."""
    import textwrap

    from harness.text import columns

    body = [result.columns, *_lines(result)]
    table = [columns(body, right_from=_names(result)), ""] if result.rows else []
    heading = f"Audit {result.audit}: {result.title}"
    return "\n".join([heading, "", *table, textwrap.fill(result.sentence, 100)])


def _lines(result: AuditResult) -> Iterator[tuple[str, ...]]:
    """Rows as texts; a model is named in the first of its own."""
    before: Cell = None
    for first, *rest in result.rows:
        yield ("" if first == before else _shown(first), *map(_shown, rest))
        before = first


def _names(result: AuditResult) -> int:
    """How many columns name what the others are about: those of words, from the first."""
    worded = [
        all(isinstance(cell, str) and cell[:1].isalpha() for cell in cells)
        for cells in zip(*result.rows, strict=True)
    ]
    return [*worded, False].index(False)


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
