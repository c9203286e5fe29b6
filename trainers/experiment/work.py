"""One job from training to result; every step goes on where an earlier process stopped."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from harness.answers import write_answers
from harness.errors import BadInput, ExitCode
from harness.folders import sha256_of
from harness.jsonfiles import read_json, write_json
from harness.manifest import versions
from harness.protocol import Protocol
from harness.records import Answer, LoadRequest
from harness.run import execute_all, plan_run
from harness.store import FILE_NAME
from trainers.experiment.jobs import Job, Places, Setting, drawing, is_drawn, recipe_of, strata_fingerprint
from trainers.journal import METRICS
from trainers.training import HEAD, RECORD, train

WEIGHTS = "model.safetensors"


def do_job(setting: Setting, job: Job, places: Places) -> None:
    """Train, evaluate, keep the answers and what made them.

    Raises:
        BadInput: the training or the evaluation cannot be done; what is done is kept.
    """
    if job.is_done(places):
        return
    folder = places.folder(job)
    evaluation = folder / "evaluation"
    begun = any(folder.glob(f"*/{METRICS}")), evaluation.exists()  # by an earlier process
    start = time.perf_counter()
    weights = trained(setting, job, places)
    learnt = time.perf_counter()
    protocol = setting.protocol_of(job.arm)
    answers = _asked(setting, job, weights, evaluation, protocol)
    ended = time.perf_counter()
    # Letters are what counts; what was thought aloud fills the work folder, and would fill a repository.
    kept = [answer._replace(model=job.arm.id, text="", option_logprobs=None) for answer in answers]
    write_answers(places.answers(job), kept)
    record = {
        "arm": job.arm.id,
        "seed": job.seed,
        "fingerprint": job.fingerprint,
        "model": job.model,
        "facts": dict(job.facts),
        "stage1": job.stage1,
        "samples_sha256": job.samples,
        "answers_sha256": sha256_of(places.answers(job)),
        "weights_sha256": sha256_of(weights / WEIGHTS) if weights else None,
        "benchmark": {"name": setting.benchmark.name, "digest": setting.benchmark.digest},
        "protocol": {
            "name": protocol.name,
            "mode": protocol.mode,
            "digest": protocol.digest,
        },
        "learning": _learning(folder),
        # Null where an earlier process did a part: this one's share alone says nothing.
        "seconds": {
            "training": None if begun[0] else round(learnt - start, 1),
            "evaluation": None if begun[1] else round(ended - learnt, 1),
        },
        "machine": _machine(),
    }
    write_json(places.record(job), record)


def draw_strata(setting: Setting, job: Job, places: Places) -> None:
    """Count, question by question, how often a job's model answers correctly at temperature 1."""
    strata = setting.plan.strata
    assert strata is not None
    if is_drawn(setting, job, places):
        return
    folder = places.folder(job)
    weights = trained(setting, job, places)
    correct: dict[tuple[str, int], int] = {}
    for draw in range(strata.draws):
        out = folder / "draws" / str(draw)
        for answer in _asked(setting, job, weights, out, drawing(setting.protocol_of(job.arm), draw)):
            question = answer.key, answer.number
            correct[question] = correct.get(question, 0) + (answer.letter == answer.correct)
    content = {
        "fingerprint": strata_fingerprint(setting, job),
        "job": job.name,
        "draws": strata.draws,
        "correct": [[key, number, count] for (key, number), count in correct.items()],
    }
    write_json(places.strata, content)


def trained(setting: Setting, job: Job, places: Places) -> Path | None:
    """The folder of a job's weights, trained now if they are not there; None for the base.

    Raises:
        BadInput: the folder holds a training of other facts, as after a change of the plan.
    """
    if not job.arm.recipe:
        return None
    folder = places.folder(job)
    model = folder / "model"
    _require_own(folder, job)
    if not (model / WEIGHTS).is_file():
        head = places.head(job.stage1) if job.stage1 else None
        own = folder / "stage1" / HEAD
        if not (folder / RECORD).is_file():
            own.unlink(missing_ok=True)  # copied by a process that ended there: of which plan, nobody knows
        if head is not None and head.is_file() and not _is_whole(head):
            head.unlink()  # damaged, so it is made again
        if head is not None and head.is_file() and not own.is_file():
            _copy(head, own)
        train(recipe_of(job.arm), setting.request(job.arm, job.seed, folder))
        if head is not None and not head.is_file():
            _copy(own, head)
    return model


def _require_own(folder: Path, job: Job) -> None:
    """Weights of an older plan must not answer under the fingerprint of this one."""
    path = folder / RECORD
    if not path.is_file():
        return
    record, _ = read_json(path)
    if not isinstance(record, dict) or record.get("facts") != dict(job.facts):
        raise BadInput(f"{folder}: it holds another plan's training; delete it, or pass another --out")


def _asked(
    setting: Setting, job: Job, weights: Path | None, out: Path, protocol: Protocol
) -> Sequence[Answer]:
    """A model's answers to the whole evaluation, through the runner like any other's."""
    plan = setting.plan
    specs = setting.registry.select_models(job.model)
    place = str(weights) if weights else plan.base or None
    run = plan_run(
        out=out,
        benchmark=setting.benchmark,
        protocol=protocol,
        models=specs,
        request=LoadRequest(world=setting.benchmark.world, device=setting.device, dtype=setting.dtype),
        weights={job.model: place} if place else {},
        limit=plan.evaluation.limit or None,
        max_failed=0.0,
    )
    (result,) = execute_all([run], setting.registry, observed=False)
    if result.exit_code != ExitCode.OK:
        raise BadInput(
            f"{job.name}: questions failed; `emit-bench score {out}` and {out / FILE_NAME} tell why"
        )
    return result.answers[job.model]


def _learning(folder: Path) -> Mapping[str, Any]:
    """Of each stage that learnt here its steps, and the last and the mean of what it measured at each."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if lines:
            rows = [json.loads(line) for line in lines]
            means = {name: fmean(row[name] for row in rows if name in row) for name in rows[-1]}
            found[path.parent.name] = {"steps": len(rows), "last": rows[-1], "mean": means}
    return found


def _machine() -> dict[str, Any]:
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    threads = torch.get_num_threads()
    return {"processor": _processor(), "threads": threads, "cuda": cuda, **versions()}


def _processor() -> str:
    """Architecture, and where the system tells the kind too: of two kinds, one rounds otherwise."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    first = lines[: lines.index("")] if "" in lines else lines  # of several, the first core
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
    kind = [f"{name} {facts[name]}" for name in ("cpu family", "model", "stepping") if name in facts]
    name = facts.get("model name", platform.machine())
    return ", ".join([name, *kind, torch.backends.cpu.get_cpu_capability()])


def _copy(source: Path, target: Path) -> None:
    """In one step, for another process may read it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with source.open("rb") as old, partial.open("wb") as new:
        shutil.copyfileobj(old, new)
        new.flush()
        os.fsync(new.fileno())
    partial.replace(target)


def _is_whole(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False
