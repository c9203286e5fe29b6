"""One model answers one benchmark: group in, answers out, each group durable before the next.

What the store already holds is reused, and the model is loaded when the first group needs it: a run whose
answers are all there never loads a model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import BadInput
from harness.extraction import read_letter
from harness.keys import answer_key, group_key
from harness.prefetch import prefetch
from harness.records import Answer, Decoding, Model, Outcome, PlannedGroup, PromptGroup, Question, Response
from harness.store import PlanRow, Spoken, Store

#: What a model or its libraries raise on one group without being broken as a whole; CUDA's out-of-memory
#: error is a RuntimeError. Anything else is a bug and ends the run.
KNOWN_FAILURES = (BadInput, RuntimeError, ValueError, ArithmeticError, LookupError, OSError, MemoryError)
_MAX_REASON = 400


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
    load: Callable[[], Model]
    workers: int = 2


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A group with its keys, and with its pictures where it has to be asked."""

    rows: tuple[PlanRow, ...]
    key: str
    images: frozenset[str]
    missing: tuple[int, ...]  #: indexes of the questions without a usable answer
    group: PromptGroup | None  #: of the missing questions
    reason: str  #: why ``group`` could not be loaded


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
    answered: Callable[[Sequence[Answer], Progress], None],
) -> Progress:
    """Answer every group of a task, reusing what the store holds.

    Args:
        task: the model and its groups.
        store: where answers go, one transaction a group.
        digests: digests of image files.
        answered: called after each group with its answers; they are in the store by then.

    Returns:
        Counts over all groups of the task.
    """
    stored = store.spoken(task.model)
    done = {key: said for key, said in stored.items() if said.outcome is not Outcome.FAILED}
    progress = Progress()
    asker = _Asker(task)
    pending: list[PlanRow] = []  # rows of groups that needed nothing, written along with the next group

    def prepare(planned: PlannedGroup) -> _Prepared:
        return _prepare(planned, task, digests, done)

    ahead = prefetch(prepare, task.groups, task.workers)
    try:
        for prepared in ahead:
            spoken = _reread(prepared, done, task.decoding)
            changed = {key: said for key, said in spoken.items() if said != stored.get(key)}
            work = None
            if prepared.missing:
                said, work = asker.ask(prepared)
                spoken.update(said)
                changed.update(said)
            pending.extend(prepared.rows)
            if changed:
                store.save_group(task.model, pending, changed, work)
                pending.clear()
            _count(progress, prepared, spoken)
            answered(list(_answers(task.model, prepared.rows, spoken)), progress)
    finally:
        ahead.close()
        if pending:
            store.save_group(task.model, pending, {}, None)
        store.save_digests(digests.take_fresh())
        asker.close()
    return progress


class _Asker:
    """Loads the model when it is first needed, and turns what it raises into typed outcomes."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.model: Model | None = None

    def ask(self, prepared: _Prepared) -> tuple[dict[str, Spoken], tuple[str, float, dict[str, int]] | None]:
        """Answers by key, and the group's work (none when its images could not be read)."""
        missing = [prepared.rows[i] for i in prepared.missing]
        if prepared.group is None:
            return _all_failed(missing, prepared.reason), None
        if self.model is None:
            self.model = self.task.load()
        before = dict(self.model.counters())
        start = time.perf_counter()
        try:
            responses = self.model.answer(prepared.group, self.task.decoding)
            if len(responses) != len(missing):
                raise RuntimeError(f"the model gave {len(responses)} responses to {len(missing)} questions")
        except KNOWN_FAILURES as error:
            return _all_failed(missing, _reason(error)), None
        seconds = time.perf_counter() - start
        said = {
            row.answer: _hear(response, row.question, self.task.decoding, seconds / len(missing))
            for row, response in zip(missing, responses, strict=True)
        }
        after = self.model.counters()
        counted = {name: count - before.get(name, 0) for name, count in after.items()}
        return said, (prepared.key, seconds, counted)

    def close(self) -> None:
        if self.model is not None:
            self.model.close()


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
    group, reason = None, ""
    if missing:
        asked = replace(
            planned,
            prompts=tuple(planned.prompts[i] for i in missing),
            questions=tuple(planned.questions[i] for i in missing),
        )
        try:
            group = asked.load()
        except (BadInput, OSError, MemoryError) as error:
            reason = _reason(error)
    return _Prepared(rows, key, images, missing, group, reason)


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
    return _read(said, question, decoding, truncated=response.truncated)


def _read(said: Spoken, question: Question, decoding: Decoding, *, truncated: bool = False) -> Spoken:
    try:
        letter = read_letter(said.text, said.option_logprobs, question.options, decoding.mode)
    except ValueError as error:
        return replace(said, letter=None, outcome=Outcome.FAILED, reason=_reason(error))
    if letter is not None:
        return replace(said, letter=letter, outcome=Outcome.ANSWERED, reason="")
    reason = said.reason or ("cut off at the token limit" if truncated else "no option can be read from it")
    return replace(said, letter=None, outcome=Outcome.UNPARSED, reason=reason)


def _reread(prepared: _Prepared, done: Mapping[str, Spoken], decoding: Decoding) -> dict[str, Spoken]:
    """What the store holds for a group, its letters read anew, so that one extractor serves old and new."""
    held = [row for row in prepared.rows if row.answer in done]
    return {row.answer: _read(done[row.answer], row.question, decoding) for row in held}


def _all_failed(rows: Sequence[PlanRow], reason: str) -> dict[str, Spoken]:
    return {row.answer: Spoken(None, Outcome.FAILED, reason=reason) for row in rows}


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    text = lines[0] if isinstance(error, BadInput) else f"{type(error).__name__}: {lines[0]}"
    return text[:_MAX_REASON].encode("utf-8", "replace").decode()


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
