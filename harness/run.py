"""A run: models answer a benchmark under a protocol, into a folder to be continued, scored and reported."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness import manifest as manifests
from harness import store as stores
from harness.answering import Executor, ImageDigests, Progress, Task, answer_all
from harness.answers import write_answers
from harness.errors import BadInput, ExitCode
from harness.hookspecs import Benchmark, ModelSpec
from harness.keys import model_digest
from harness.plugins import Registry, load_model
from harness.protocol import KNOWLEDGE_NAMES, Protocol
from harness.records import Answer, Item, LoadRequest, PlannedGroup
from harness.sampling import sample_items
from harness.work import Order, Worker

ANSWERS_FOLDER = "answers"


@dataclass(frozen=True)
class Labour:
    """Who does the work of a run, and how it is cut; no answer depends on it."""

    workers: int = 1  #: processes, or Ray actors, each with the model in it
    executor: Literal["local", "ray"] = "local"
    threads: int = 2  #: of each worker, that read images ahead
    unit: int = 8  #: groups of questions that may be computed together


@dataclass(frozen=True)
class RunInfo:
    """Everything that was decided before the first question is asked."""

    out: Path
    benchmark: Benchmark
    protocol: Protocol
    models: tuple[ModelSpec, ...]
    requests: Mapping[str, LoadRequest]  #: model id -> how to load it
    fingerprints: Mapping[str, Mapping[str, Any]]  #: model id -> what makes its answers what they are
    items: tuple[Item, ...]  #: those asked about: all, or a sample
    seed: int = 0
    limit: int | None = None
    max_failed: float = 0.01  #: share of a model's questions that may fail
    labour: Labour = Labour()
    command: tuple[str, ...] = ()

    @property
    def n_questions(self) -> int:
        """Questions asked of each model."""
        return sum(len(item.questions) for item in self.items)

    @property
    def without_knowledge(self) -> tuple[str, ...]:
        """Products, as dataset/object, whose prompts lack the knowledge that the protocol would show."""
        if self.protocol.knowledge == "off":
            return ()
        texts = self.benchmark.knowledge
        products = dict.fromkeys((item.dataset, item.object) for item in self.items)
        return tuple(
            f"{dataset}/{name}"
            for dataset, name in products
            if not texts.get(KNOWLEDGE_NAMES.get(dataset, dataset), {}).get(name)
        )

    @property
    def substituted_references(self) -> int:
        """Images whose references are of the other kind than the protocol wants, for want of any."""
        return sum(self.protocol.substitutes(item) for item in self.items)


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
    labour: Labour = Labour(),
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
    groups = [group for item in run.items for group in run.protocol.plan(item, run.benchmark.knowledge)]
    with _locked(run.out):
        if fresh:
            _forget(run.out)
        previous = _previous_models(run.out)
        with stores.Store.open(run.out / stores.FILE_NAME) as store:
            store.forget_plan()
            manifest = manifests.describe_run(run)
            manifests.write_manifest(run.out, manifest)
            broken = list(registry.notify("emit_bench_run_started", run=run))
            digests = ImageDigests(store.digests())
            progress: dict[str, Progress] = {}
            for spec in run.models:
                progress[spec.id] = _ask_model(run, spec, groups, store, digests, registry)
                manifest["models"][spec.id] = _describe(run, spec.id, progress[spec.id], store)
                manifests.write_manifest(run.out, manifest)
            answers = {spec.id: store.answers(spec.id) for spec in run.models}
        _export(run.out, answers, previous)
        manifests.finish(manifest)
        manifests.write_manifest(run.out, manifest)
        broken += registry.notify("emit_bench_run_finished", run=run)
    shares = {name: done.failed / max(done.questions, 1) for name, done in progress.items()}
    return RunResult(answers, shares, _verdict(run, shares), tuple(f"{p}: {p.error}" for p in broken))


def read_run(out: Path) -> tuple[dict[str, Any], dict[str, tuple[Answer, ...]]]:
    """A run's manifest, and its answers by model id in the order of the command that made them.

    Raises:
        BadInput: the folder is no run's.
    """
    manifest = manifests.read_manifest(out)
    with stores.Store.read_only(out / stores.FILE_NAME) as store:
        present = store.models()
        order = [name for name in manifest["models"] if name in present]
        order += [name for name in present if name not in order]
        return manifest, {name: store.answers(name) for name in order}


def _request(spec: ModelSpec, request: LoadRequest, weights: str | None, adapter: str | None) -> LoadRequest:
    if spec.backends and request.backend not in spec.backends:
        raise BadInput(
            f"model {spec.id!r} does not run on the backend {request.backend!r}; "
            f"pass --backend {' or '.join(spec.backends)}"
        )
    return replace(request, weights=weights or request.weights, adapter=adapter or request.adapter)


def _ask_model(
    run: RunInfo,
    spec: ModelSpec,
    groups: Sequence[PlannedGroup],
    store: stores.Store,
    digests: ImageDigests,
    registry: Registry,
) -> Progress:
    positions = {
        (item.key, question.number): position
        for position, (item, question) in enumerate((i, q) for i in run.items for q in i.questions)
    }
    request, labour = run.requests[spec.id], run.labour
    task = Task(
        model=spec.id,
        digest=model_digest(spec.id, run.fingerprints[spec.id], request),
        decoding=run.protocol.decoding,
        groups=groups,
        positions=positions,
        threads=labour.threads,
        unit=labour.unit,
    )
    executor = _executor(run, spec, registry)
    usual = not spec.backends or request.backend == "transformers"
    title = spec.id if usual else f"{spec.id} ({request.backend})"
    with contextlib.closing(executor), _progress_bar(title, run.n_questions) as show:

        def answered(answers: Sequence[Answer], progress: Progress) -> None:
            show(len(answers), progress)
            registry.notify("emit_bench_group_answered", run=run, answers=answers)

        return answer_all(task, store, digests, executor, answered)


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


def _previous_models(out: Path) -> tuple[str, ...]:
    try:
        return tuple(manifests.read_manifest(out)["models"])
    except BadInput:
        return ()


def _export(out: Path, answers: Mapping[str, tuple[Answer, ...]], previous: Sequence[str]) -> None:
    """Write official answer files, and take away those of models that this command did not ask."""
    for model in previous:
        if model not in answers and Path(model).name == model:
            (out / ANSWERS_FOLDER / f"{model}.json").unlink(missing_ok=True)
    for model, given in answers.items():
        write_answers(out / ANSWERS_FOLDER / f"{model}.json", given)


def _forget(out: Path) -> None:
    if not (out / stores.FILE_NAME).exists() and not (out / manifests.FILE_NAME).exists():
        return  # no run of ours, so its folders are somebody else's
    for name in (stores.FILE_NAME, f"{stores.FILE_NAME}-wal", f"{stores.FILE_NAME}-shm", manifests.FILE_NAME):
        (out / name).unlink(missing_ok=True)
    for folder in (ANSWERS_FOLDER, "tables", "report"):
        shutil.rmtree(out / folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold a run's folder alone; the lock goes with the process, however it ends."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: it is a file; name a folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such lock on this system
            pass
        except BlockingIOError as error:
            raise BadInput(
                f"{out}: another run is writing to it; wait for it or use another --out"
            ) from error
        except OSError as error:
            raise BadInput(
                f"{out}: it cannot be locked ({error.strerror}); use an --out on another file system"
            ) from error
        yield
