"""The experiment's jobs: which there are, what decides each, and where its work and result lie.

A job is one arm with one seed. Its fingerprint covers all that the plan decides of its answers, so a result
whose fingerprint is the plan's is never made again, wherever it came from. Rounding is not in it: processor,
threads and versions stand in the record, and tables tell where runs differ in the last two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import BadInput
from harness.folders import sha256_of
from harness.jsonfiles import read_json
from harness.keys import digest_of
from harness.lookup import find
from harness.plugins import Registry
from harness.protocol import Protocol, find_protocol
from harness.records import Mode, TrainingSource, TrainRequest
from trainers.experiment.plan import Arm, Plan
from trainers.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from harness.hookspecs import Benchmark

#: Who answers for an arm that no model of the registry is named after.
TRAINED_MODEL, BASE_MODEL = "emit", "internvl3-base"
#: Options of `run` and `train`, which sentences advise, as fields of a plan.
_FIELDS = {r"--data (DIR|FILE\.jsonl)": r"`data` = \1", r"--weights [\w.-]+=(FOLDER|PATH)": r"`base` = \1"}
DRAWS = "strata"  #: the name of the task that draws them


@dataclass(frozen=True)
class Places:
    """Where an experiment keeps what: ``work`` can be thrown away, ``results`` is what counts."""

    work: Path
    results: Path

    def folder(self, job: Job) -> Path:
        """Of a job's training and evaluation."""
        return self.work / job.arm.id / f"seed-{job.seed}"

    def answers(self, job: Job) -> Path:
        """The official answer file, compressed."""
        return self.results / job.arm.id / f"seed-{job.seed}.json.gz"

    def record(self, job: Job) -> Path:
        """What made the answers."""
        return self.results / job.arm.id / f"seed-{job.seed}.record.json"

    def head(self, digest: str) -> Path:
        """What a stage 1 leaves, for every arm that begins with it."""
        return self.results / "stage1" / f"{digest[:16]}.safetensors"

    @property
    def strata(self) -> Path:
        """How often each question was answered correctly before stage 2, and what made that."""
        return self.results / "strata.json.gz"


@dataclass(frozen=True)
class Job:
    """One arm with one seed."""

    arm: Arm
    seed: int
    model: str  #: the id of the model plugin that answers
    fingerprint: str
    stage1: str | None  #: digest of the stage 1 that it begins with, if it does
    facts: Mapping[str, Any]  #: of its training; of the base, its weights
    samples: str | None = None  #: digest of the ids of the questions that it learns from, in their order

    @property
    def name(self) -> str:
        """As ``--only`` takes it."""
        return f"{self.arm.id}:{self.seed}"

    def is_done(self, places: Places) -> bool:
        """Whether its result is there, whole, and that of this plan."""
        answers = places.answers(self)
        record = readable(places.record(self))
        if record is None or record.get("fingerprint") != self.fingerprint or not answers.is_file():
            return False
        return bool(record.get("answers_sha256") == sha256_of(answers))

    def is_anothers(self, places: Places) -> bool:
        """Whether a result is in its place that another plan made."""
        record = readable(places.record(self))
        return record is not None and record.get("fingerprint") != self.fingerprint


def readable(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None where there is none, or a damaged one: it is made again."""
    try:
        content, _ = read_json(path)
    except BadInput:
        return None
    return content if isinstance(content, dict) else None


@dataclass(frozen=True)
class Setting:
    """What a plan's words stand for here: benchmark, protocol, training set."""

    plan: Plan
    registry: Registry
    benchmark: Benchmark
    protocol: Protocol
    source: TrainingSource
    device: str = "auto"
    dtype: str = "auto"

    def protocol_of(self, arm: Arm) -> Protocol:
        """How an arm is asked."""
        return self.protocol.with_options(cast(Mode, arm.mode)) if arm.mode else self.protocol

    def request(self, arm: Arm, seed: int, out: Path) -> TrainRequest:
        """An arm's training."""
        settings = {**self.plan.settings, **arm.settings, "seed": seed}
        return TrainRequest(
            recipe=arm.recipe,
            source=self.source,
            out=out,
            base=self.plan.base or None,
            preset=arm.preset,
            settings=settings,
            resume=True,
            device=self.device,
            dtype=self.dtype,
        )


def read_setting(plan: Plan, registry: Registry, device: str = "auto", dtype: str = "auto") -> Setting:
    """Find what the plan names; a training set that is built by rule is built if it is not there yet.

    Raises:
        BadInput: there is no such benchmark, protocol or training set.
    """
    from trainers.dataset.prepared import prepared

    asked = plan.evaluation
    for arm in plan.arms:
        if arm.ships and arm.ships not in registry.models:
            raise BadInput(f"{plan.path}: arm {arm.id}: ships: there is no model {arm.ships!r}")
    with told_of(plan, "evaluation"):
        spec = find(registry.benchmarks, asked.benchmark, "benchmark")
        protocol = find_protocol(registry.protocols, asked.protocol).with_options(asked.mode)
        benchmark = spec.load(Path(asked.data) if asked.data else None)
    with told_of(plan, "training"):
        trained = find(registry.benchmarks, plan.training, "benchmark")
        if trained.training is None:
            raise BadInput(f"benchmark {plan.training!r} brings no training set")
        source = prepared(trained.training(Path(plan.data) if plan.data else None), registry)
    return Setting(plan, registry, benchmark, protocol, source, device, dtype)


@contextmanager
def told_of(plan: Plan, part: str) -> Iterator[None]:
    """Begin what is said of bad input with the plan and the part of it that is to blame."""
    try:
        yield
    except BadInput as error:
        parts = str(error).split("`")
        for option, name in _FIELDS.items():
            parts[::2] = [re.sub(option, name, words) for words in parts[::2]]  # a quoted command stays
        raise BadInput(f"{plan.path}: {part}: {'`'.join(parts)}") from error


def recipe_of(arm: Arm) -> Recipe:
    """The recipe that an arm names; raises :class:`BadInput` where there is none."""
    return find({recipe.name: recipe for recipe in RECIPES}, arm.recipe, "recipe")


def jobs_of(setting: Setting) -> Iterator[Job]:
    """Every job of a plan, arm by arm in its order.

    Raises:
        BadInput: an arm's recipe or settings are unfit.
    """
    from trainers.training import plan_training

    for arm in setting.plan.arms:
        model = arm.recipe if arm.recipe in setting.registry.models else TRAINED_MODEL
        for seed in range(arm.seeds):
            if not arm.recipe:
                with told_of(setting.plan, f"arm {arm.id}"):
                    facts = _base_facts(setting)
                yield Job(arm, seed, BASE_MODEL, _fingerprint(setting, arm, BASE_MODEL, facts), None, facts)
                continue
            with told_of(setting.plan, f"arm {arm.id}"):
                training = plan_training(recipe_of(arm), setting.request(arm, seed, Path()))
            fingerprint = _fingerprint(setting, arm, model, training.facts)
            samples = digest_of([sample.id for sample in training.data.samples])
            yield Job(arm, seed, model, fingerprint, training.stage1, training.facts, samples)


def _base_facts(setting: Setting) -> dict[str, str]:
    """What decides the answers of the base as it is."""
    from harness.records import LoadRequest
    from plugins.engine import pick_device, pick_dtype
    from plugins.families.internvl3 import BASE

    request = LoadRequest(world=setting.source.world, weights=setting.plan.base or None)
    kind = pick_dtype(setting.dtype, pick_device(setting.device))  # "auto" is another one on a GPU
    return {"base": BASE.resolve(request).digest(), "dtype": str(kind).removeprefix("torch.")}


def strata_fingerprint(setting: Setting, job: Job) -> str:
    """What decides the draws: the policy, and the questions."""
    strata = setting.plan.strata
    return digest_of([DRAWS, job.fingerprint, strata.draws if strata else 0])


def is_drawn(setting: Setting, job: Job, places: Places) -> bool:
    """Whether the draws of the plan's strata are there."""
    content = readable(places.strata)
    return content is not None and content.get("fingerprint") == strata_fingerprint(setting, job)


def drawing(protocol: Protocol, draw: int) -> Protocol:
    """The protocol with answers drawn at temperature 1."""
    return replace(protocol, temperature=1.0, draw=draw)


def _fingerprint(setting: Setting, arm: Arm, model: str, facts: Mapping[str, Any]) -> str:
    asked = [setting.benchmark.digest, setting.protocol_of(arm).digest, setting.plan.evaluation.limit]
    # The base is among the facts, by its content. Its path stood where "" stands, and does not matter.
    return digest_of(["job", model, dict(facts), "", asked])
