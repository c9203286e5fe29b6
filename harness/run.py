"""A run: models answer a benchmark under a protocol, into a folder to be continued, scored and reported."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness import manifest as manifests
from harness import store as stores
from harness.answering import Executor, ImageDigests, Progress, Task, answer_all
from harness.errors import BadInput, ExitCode
from harness.keys import model_digest
from harness.plugins import Plugin, Registry, load_model
from harness.protocol import Protocol
from harness.records import Answer, LoadRequest
from harness.run_folder import export, forget, locked, previous_models
from harness.run_info import ALONE, Labour, RunInfo
from harness.sampling import sample_items
from harness.specs import Benchmark, ModelSpec
from harness.work import Order, Worker


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    answers: Mapping[str, tuple[Answer, ...]]  #: model id -> its answers in benchmark order
    failed_share: Mapping[str, float]
    exit_code: ExitCode
    broken_observers: tuple[str, ...] = field(default=())


def plan_run(
    *,
    out: Path,
    benchmark: Benchmark,
    protocol: Protocol,
    models: Sequence[ModelSpec],
    request: LoadRequest,
    weights: Mapping[str, str] | None = None,
    adapters: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    max_failed: float = 0.01,
    labour: Labour = ALONE,
    command: Sequence[str] = (),
) -> RunInfo:
    """Decide everything about a run; nothing heavy is loaded and nothing is written.

    Args:
        out: the run's folder.
        benchmark: what is asked.
        protocol: how it is asked.
        models: who is asked.
        request: how models are loaded; its ``weights`` are replaced by those of ``weights``.
        weights: model id -> folder or hub id in place of the default.
        adapters: model id -> folder or hub id of an adapter to lay on the weights.
        limit: at most so many questions, as a stratified sample of whole images.
        seed: of the sample, and of models that draw.
        max_failed: share of a model's questions that may fail before the run counts as failed.
        labour: who does the work.
        command: the command line, for the record.

    Raises:
        BadInput: weights for a model that is not asked, or a backend that a model does not run on.
    """
    weights, adapters = weights or {}, adapters or {}
    asked = {spec.id for spec in models}
    for option, table in (("--weights", weights), ("--adapter", adapters)):
        for name in table:
            if name not in asked:
                raise BadInput(
                    f"{option} {name}: this model is not among --models {', '.join(sorted(asked))}"
                )
    requests = {
        spec.id: _request(spec, request, weights.get(spec.id), adapters.get(spec.id)) for spec in models
    }
    return RunInfo(
        out=out,
        benchmark=benchmark,
        protocol=protocol,
        models=tuple(models),
        requests=requests,
        fingerprints={spec.id: spec.fingerprint(requests[spec.id]) for spec in models},
        items=sample_items(benchmark.items, limit, seed),
        seed=seed,
        limit=limit,
        max_failed=max_failed,
        labour=labour,
        command=tuple(command),
    )


def execute(run: RunInfo, registry: Registry, *, fresh: bool = False) -> RunResult:
    """Ask every model every question that the folder holds no answer to, and export the answers.

    Args:
        run: the plan.
        registry: the plugins whose observers are told, and the backends.
        fresh: forget what the folder holds.

    Raises:
        BadInput: a reference image is lacking, the folder is in use, or a model cannot be loaded.
    """
    (result,) = execute_all([run], registry, fresh=fresh)
    return result


def execute_all(
    runs: Sequence[RunInfo],
    registry: Registry,
    *,
    fresh: bool = False,
    observed: bool = True,
    title: str = "",
) -> tuple[RunResult, ...]:
    """Several runs of the same models, each of which is loaded once for all of them.

    Args:
        runs: they ask otherwise, of models that are loaded alike and decode alike.
        registry: see :func:`execute`.
        fresh: see :func:`execute`.
        observed: whether observers are told.
        title: what stands beside a model's name while it is asked.

    Raises:
        BadInput: see :func:`execute`.
        ValueError: the runs load or decode otherwise.
    """
    first = runs[0]
    for run in runs:
        if (run.requests, run.protocol.decoding) != (first.requests, first.protocol.decoding):
            raise ValueError(f"{run.out}: it loads or decodes otherwise than {first.out}; run it by itself")
    with contextlib.ExitStack() as stack:
        courses = [_Course(run, registry if observed else None) for run in runs]
        for course in courses:
            stack.enter_context(locked(course.run.out))
            course.begin(fresh)
        questions = sum(run.n_questions for run in runs)
        for spec in first.models:
            name = " ".join(part for part in (_shown(first, spec), title) if part)
            executor = _executor(first, spec, registry)
            with contextlib.closing(executor), _progress_bar(name, questions) as show:
                for course in courses:
                    course.ask(spec, executor, show)
        return tuple(course.finish() for course in courses)


class _Course:
    """One run on its way; its folder is locked from beginning to finish.

    Args:
        run: the plan.
        observers: the plugins that are told, None for nobody.
    """

    def __init__(self, run: RunInfo, observers: Registry | None) -> None:
        self.run, self.observers = run, observers
        self.groups = [
            group for item in run.items for group in run.protocol.plan(item, run.benchmark.knowledge)
        ]
        self.positions = {
            (item.key, question.number): position
            for position, (item, question) in enumerate((i, q) for i in run.items for q in i.questions)
        }
        self.progress: dict[str, Progress] = {}
        self.broken: list[Plugin] = []

    def begin(self, fresh: bool) -> None:
        """Forget what is to be forgotten, and write the manifest."""
        if fresh:
            forget(self.run.out)
        self.previous = previous_models(self.run.out)
        with self._store() as store:
            store.forget_plan()
            self.digests = ImageDigests(store.digests())
        self.manifest = manifests.describe_run(self.run)
        manifests.write_manifest(self.run.out, self.manifest)
        self._notify("emit_bench_run_started", run=self.run)

    def ask(self, spec: ModelSpec, executor: Executor, show: Callable[[int, Progress], None]) -> None:
        """Ask one model what the folder holds no answer to."""
        run = self.run
        task = Task(
            model=spec.id,
            digest=model_digest(spec.id, run.fingerprints[spec.id], run.requests[spec.id]),
            decoding=run.protocol.decoding,
            groups=self.groups,
            positions=self.positions,
            threads=run.labour.threads,
            unit=run.labour.unit,
        )

        def answered(answers: Sequence[Answer], progress: Progress) -> None:
            show(len(answers), progress)
            self._notify("emit_bench_group_answered", run=run, answers=answers)

        with self._store() as store:
            progress = answer_all(task, store, self.digests, executor, answered)
            self.manifest["models"][spec.id] = _describe(run, spec.id, progress, store)
        self.progress[spec.id] = progress
        manifests.write_manifest(run.out, self.manifest)

    def finish(self) -> RunResult:
        """Export the answers and mark the run as finished."""
        run = self.run
        with self._store() as store:
            answers = {spec.id: store.answers(spec.id) for spec in run.models}
        export(run.out, answers, self.previous)
        manifests.finish(self.manifest)
        manifests.write_manifest(run.out, self.manifest)
        self._notify("emit_bench_run_finished", run=run)
        shares = {name: done.failed / max(done.questions, 1) for name, done in self.progress.items()}
        broken = tuple(f"{plugin}: {plugin.error}" for plugin in self.broken)
        return RunResult(answers, shares, _verdict(run, shares), broken)

    def _store(self) -> stores.Store:
        return stores.Store.open(self.run.out / stores.FILE_NAME)

    def _notify(self, hook: str, **arguments: Any) -> None:
        if self.observers is not None:
            self.broken += self.observers.notify(hook, **arguments)


def read_run(out: Path, words: bool = True) -> tuple[dict[str, Any], dict[str, Sequence[Answer]]]:
    """A run's manifest, and its answers by model id in the order of the command that made them.

    Args:
        out: the run's folder.
        words: whether as records; else in columns and without words (:meth:`harness.store.Store.table`).

    Raises:
        BadInput: the folder is no run's.
    """
    manifest = manifests.read_manifest(out)
    with stores.Store.read_only(out / stores.FILE_NAME) as store:
        present = store.models()
        order = [name for name in manifest["models"] if name in present]
        order += [name for name in present if name not in order]
        read = store.answers if words else partial(store.table, words=False)
        return manifest, {name: read(name) for name in order}


def _request(spec: ModelSpec, request: LoadRequest, weights: str | None, adapter: str | None) -> LoadRequest:
    if spec.backends and request.backend not in spec.backends:
        raise BadInput(
            f"model {spec.id!r} does not run on the backend {request.backend!r}; "
            f"pass --backend {' or '.join(spec.backends)}"
        )
    return replace(request, weights=weights or request.weights, adapter=adapter or request.adapter)


def _shown(run: RunInfo, spec: ModelSpec) -> str:
    """A model's name, with its backend unless that is the usual one."""
    backend = run.requests[spec.id].backend
    usual = not spec.backends or backend == "transformers"
    return spec.id if usual else f"{spec.id} ({backend})"


def _executor(run: RunInfo, spec: ModelSpec, registry: Registry) -> Executor:
    """Nothing is loaded or started before there is something to ask."""
    request, labour = run.requests[spec.id], run.labour
    decoding = run.protocol.decoding
    if labour.executor == "ray":
        from harness.ray_executor import RayExecutor

        return RayExecutor(Order(spec.id, request, decoding, labour.threads), labour.workers)
    if labour.workers > 1:
        from harness.crew import Crew

        return Crew(Order(spec.id, request, decoding, labour.threads), labour.workers)
    return Worker(partial(load_model, spec, request, registry), decoding, labour.threads)


@contextlib.contextmanager
def _progress_bar(title: str, total: int) -> Iterator[Callable[[int, Progress], None]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=title, unit="q", file=sys.stderr, dynamic_ncols=True) as bar:

        def show(n: int, progress: Progress) -> None:
            bar.set_postfix(failed=progress.failed, unparsed=progress.unparsed, refresh=False)
            bar.update(n)

        yield show


def _describe(run: RunInfo, model: str, progress: Progress, store: stores.Store) -> dict[str, Any]:
    counts = {
        "questions": progress.questions,
        "reused": progress.reused,
        "failed": progress.failed,
        "unparsed": progress.unparsed,
        "groups": progress.groups,
        "distinct_images": len(progress.images),
    }
    digest = model_digest(model, run.fingerprints[model], run.requests[model])
    return manifests.describe_model(run, model, digest, counts, store.work_done(model))


def _verdict(run: RunInfo, shares: Mapping[str, float]) -> ExitCode:
    if run.n_questions == 0:
        return ExitCode.NOTHING
    if any(share > run.max_failed for share in shares.values()):
        return ExitCode.FAILED_ITEMS
    return ExitCode.OK
