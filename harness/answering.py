"""One model answers one benchmark: groups in, answers out, each durable as soon as it is there.

What the store already holds is reused, and the model is loaded when a group needs it: a run whose answers are
all there never loads a model. Groups that may be computed together are handed out as one unit. Units are made
of the plan's neighbours, whatever is answered already, so that a continued run computes what an uninterrupted
one would have.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from harness.extraction import read_letter
from harness.keys import answer_key, group_key
from harness.prefetch import prefetch
from harness.records import (
    Answer,
    Decoding,
    GroupResult,
    Outcome,
    PlannedGroup,
    Question,
    Response,
    reason_of,
)
from harness.store import PlanRow, Spoken, Store
from harness.work import Asked, Finished, WorkUnit


class Executor(Protocol):
    """Who does the work: :class:`harness.work.Worker` in this process, or several elsewhere."""

    def run(self, units: Iterator[WorkUnit]) -> Iterator[Finished]:
        """Results of every group of every unit, each once, in any order."""

    def close(self) -> None:
        """Give memory and processes back."""


class ImageDigests:
    """SHA-256 of image files, read again only when size, times or inode have changed."""

    def __init__(self, known: Mapping[str, tuple[str, str]]) -> None:
        self._known = dict(known)
        self._fresh: dict[str, tuple[str, str]] = {}

    def __call__(self, path: Path) -> str:
        """The digest; for a file that cannot be read, a text that no digest equals."""
        from harness.records import ImageFile

        try:
            status = os.stat(path)
            stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            name = str(path.absolute())
            if self._known.get(name, ("", ""))[0] != stamp:
                self._known[name] = self._fresh[name] = (stamp, ImageFile(path).digest)
            return self._known[name][1]
        except OSError as error:
            return f"unreadable: {error.strerror}"

    def take_fresh(self) -> dict[str, tuple[str, str]]:
        """Path -> (stamp, digest) of the files read since the last call."""
        fresh, self._fresh = self._fresh, {}
        return fresh


@dataclass(frozen=True, slots=True)
class Task:
    """One model's part of a run."""

    model: str
    digest: str  #: of the model, see :func:`harness.keys.model_digest`
    decoding: Decoding
    groups: Sequence[PlannedGroup]
    positions: Mapping[tuple[str, int], int]  #: item and question number -> place in the benchmark
    threads: int = 2  #: that hash images
    unit: int = 8  #: groups handed out together


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A group with its keys, and what of it has to be asked."""

    rows: tuple[PlanRow, ...]
    key: str
    images: frozenset[str]
    missing: tuple[int, ...]  #: indexes of the questions without a usable answer
    asked: Asked | None  #: the missing questions


@dataclass
class Progress:
    """What has happened so far, for the terminal and the manifest."""

    questions: int = 0
    reused: int = 0
    failed: int = 0
    unparsed: int = 0
    groups: int = 0
    images: set[str] = field(default_factory=set)


def answer_all(
    task: Task,
    store: Store,
    digests: ImageDigests,
    executor: Executor,
    answered: Callable[[Sequence[Answer], Progress], None],
) -> Progress:
    """Answer every group of a task, reusing what the store holds.

    Args:
        task: the model and its groups.
        store: where answers go; what an executor reports together, in one transaction.
        digests: digests of image files.
        executor: who asks the model.
        answered: called after each group with its answers; they are in the store by then.

    Returns:
        Counts over all groups of the task.
    """
    course = _Course(task, store, digests, answered)
    source = course.units()
    try:
        for finished in executor.run(source):
            course.take(finished)
    finally:
        source.close()
        course.finish()
    if course.waiting:
        raise RuntimeError(f"{len(course.waiting)} groups of {task.model} were asked and never came back")
    return course.progress


class _Course:
    """The state of one task: what is stored, what is being asked, what has come back."""

    def __init__(
        self,
        task: Task,
        store: Store,
        digests: ImageDigests,
        answered: Callable[[Sequence[Answer], Progress], None],
    ) -> None:
        self.task, self.store, self.digests, self.answered = task, store, digests, answered
        self.stored = store.spoken(task.model)
        self.done = {key: said for key, said in self.stored.items() if said.outcome is not Outcome.FAILED}
        self.progress = Progress()
        self.waiting: dict[str, _Prepared] = {}
        self.pending: list[PlanRow] = []  # of groups that needed nothing; written with the next results

    def units(self) -> Generator[WorkUnit, None, None]:
        """What has to be asked; groups that need nothing are settled on the way."""
        task, unit = self.task, list[Asked]()
        ahead = prefetch(self._prepare, task.groups, task.threads)
        try:
            for number, prepared in enumerate(ahead, 1):
                if prepared.asked is None:
                    self._reuse(prepared)
                else:
                    self.waiting[prepared.asked.id] = prepared
                    unit.append(prepared.asked)
                if number % task.unit == 0 and unit:
                    yield tuple(unit)
                    unit.clear()
            if unit:
                yield tuple(unit)
        finally:
            ahead.close()

    def take(self, finished: Finished) -> None:
        """Store results, all in one transaction, and tell of them."""
        groups = [self.waiting.pop(result.id) for result in finished.results]
        heard = [
            self._settle(group, _hear_group(group, result, self.task, finished))
            for group, result in zip(groups, finished.results, strict=True)
        ]
        changes = {key: one for spoken in heard for key, one in self._changed(spoken).items()}
        pairs = list(zip(groups, finished.results, strict=True))
        heat_maps = {group.key: result.heat_map for group, result in pairs if result.heat_map}
        self._save(changes, _works(finished, groups), heat_maps)
        for group, spoken in zip(groups, heard, strict=True):
            self._tell(group, spoken)

    def finish(self) -> None:
        """Store what is left to store, however the task ends."""
        if self.pending:
            self._save({}, [])
        self.store.save_digests(self.digests.take_fresh())

    def _prepare(self, planned: PlannedGroup) -> _Prepared:
        return _prepare(planned, self.task, self.digests, self.done)

    def _reuse(self, prepared: _Prepared) -> None:
        spoken = self._settle(prepared, {})
        changed = self._changed(spoken)
        if changed:
            self._save(changed, [])
        self._tell(prepared, spoken)

    def _settle(self, prepared: _Prepared, said: Mapping[str, Spoken]) -> dict[str, Spoken]:
        """All answers of a group: those that were stored, read anew, and those that came now."""
        self.pending.extend(prepared.rows)
        return {**_reread(prepared, self.done, self.task.decoding), **said}

    def _changed(self, spoken: Mapping[str, Spoken]) -> dict[str, Spoken]:
        return {key: one for key, one in spoken.items() if one != self.stored.get(key)}

    def _save(
        self,
        changed: Mapping[str, Spoken],
        works: list[tuple[str, float, dict[str, int]]],
        heat_maps: Mapping[str, bytes] | None = None,
    ) -> None:
        self.store.save(self.task.model, self.pending, changed, works, heat_maps)
        self.pending.clear()

    def _tell(self, prepared: _Prepared, spoken: Mapping[str, Spoken]) -> None:
        _count(self.progress, prepared, spoken)
        self.answered(list(_answers(self.task.model, prepared.rows, spoken)), self.progress)


def _works(finished: Finished, groups: Sequence[_Prepared]) -> list[tuple[str, float, dict[str, int]]]:
    """Work by group: time in equal parts, counts with the first; of those that failed only if all did."""
    good = [group for group, result in zip(groups, finished.results, strict=True) if not result.reason]
    if not good and any(finished.counters.values()):
        good = list(groups[:1])  # what a failure cost was spent all the same
    return [
        (group.key, finished.seconds / len(good), {} if number else dict(finished.counters))
        for number, group in enumerate(good)
    ]


def _prepare(
    planned: PlannedGroup, task: Task, digests: ImageDigests, done: Mapping[str, Spoken]
) -> _Prepared:
    key = group_key(planned, digests, task.digest, task.decoding)
    rows = tuple(
        PlanRow(
            position=task.positions[planned.item.key, question.number],
            item=planned.item.key,
            question=question,
            answer=answer_key(key, prompt),
            work=key,
        )
        for prompt, question in zip(planned.prompts, planned.questions, strict=True)
    )
    images = frozenset(digests(image.path) for image in (*planned.references, planned.query))
    missing = tuple(i for i, row in enumerate(rows) if row.answer not in done)
    asked = None
    if missing:
        wanted = replace(
            planned,
            prompts=tuple(planned.prompts[i] for i in missing),
            questions=tuple(planned.questions[i] for i in missing),
        )
        # The position, because two items may show the same images and ask the same.
        asked = Asked(f"{key[:32]}-{rows[missing[0]].position}", wanted)
    return _Prepared(rows, key, images, missing, asked)


def _hear_group(
    prepared: _Prepared, result: GroupResult, task: Task, finished: Finished
) -> dict[str, Spoken]:
    """What became of each question that was asked, by the answer's key."""
    rows = [prepared.rows[i] for i in prepared.missing]
    reason = result.reason
    if not reason and len(result.responses) != len(rows):
        reason = f"RuntimeError: the model gave {len(result.responses)} responses to {len(rows)} questions"
    if reason:
        return {row.answer: Spoken(None, Outcome.FAILED, reason=reason) for row in rows}
    seconds = finished.seconds / sum(len(one.responses) for one in finished.results)
    return {
        row.answer: _hear(response, row.question, task.decoding, seconds)
        for row, response in zip(rows, result.responses, strict=True)
    }


def _hear(response: Response, question: Question, decoding: Decoding, seconds: float) -> Spoken:
    """Read one response: its letter if it states one, else why it has none."""
    text = response.text.encode("utf-8", "replace").decode()
    said = Spoken(
        letter=None,
        outcome=Outcome.UNPARSED,
        text=text,
        option_logprobs=response.option_logprobs,
        prompt_tokens=response.prompt_tokens,
        completion_tokens=response.completion_tokens,
        seconds=seconds,
    )
    if response.reason:
        return replace(said, outcome=Outcome.FAILED, reason=response.reason)
    return _read(said, question, decoding, truncated=response.truncated)


def _read(said: Spoken, question: Question, decoding: Decoding, *, truncated: bool = False) -> Spoken:
    try:
        letter = read_letter(said.text, said.option_logprobs, question.options, decoding.mode)
    except ValueError as error:
        return replace(said, letter=None, outcome=Outcome.FAILED, reason=reason_of(error))
    if letter is not None:
        return replace(said, letter=letter, outcome=Outcome.ANSWERED, reason="")
    reason = said.reason or ("cut off at the token limit" if truncated else "no option can be read from it")
    return replace(said, letter=None, outcome=Outcome.UNPARSED, reason=reason)


def _reread(prepared: _Prepared, done: Mapping[str, Spoken], decoding: Decoding) -> dict[str, Spoken]:
    """What the store holds for a group, its letters read anew, so that one extractor serves old and new."""
    held = [row for row in prepared.rows if row.answer in done]
    return {row.answer: _read(done[row.answer], row.question, decoding) for row in held}


def _count(progress: Progress, prepared: _Prepared, spoken: Mapping[str, Spoken]) -> None:
    outcomes = [spoken[row.answer].outcome for row in prepared.rows]
    progress.groups += 1
    progress.questions += len(outcomes)
    progress.reused += len(outcomes) - len(prepared.missing)
    progress.failed += outcomes.count(Outcome.FAILED)
    progress.unparsed += outcomes.count(Outcome.UNPARSED)
    progress.images |= prepared.images


def _answers(model: str, rows: Sequence[PlanRow], spoken: Mapping[str, Spoken]) -> Iterator[Answer]:
    for row in rows:
        question, said = row.question, spoken[row.answer]
        yield Answer(
            model=model,
            key=row.item,
            number=question.number,
            subtask=question.subtask,
            raw_type=question.raw_type,
            question=question.text,
            options=question.options,
            correct=question.answer,
            letter=said.letter,
            outcome=said.outcome,
            text=said.text,
            reason=said.reason,
            option_logprobs=said.option_logprobs,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            seconds=said.seconds,
        )
