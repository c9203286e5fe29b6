"""From a recipe to trained weights: settings, data, model, stages, export.

A training's folder holds ``training.json`` (everything that decided it), one folder a stage (metrics, curves,
checkpoints), ``adapter/`` (peft's format, on the base that it names) and ``model/`` (the whole model).
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from emit_model.configuration import PRESETS as CONTRASTS
from emit_model.configuration import Contrast
from emit_model.modeling import EmitForConditionalGeneration
from emit_model.processing import HINT, add_comp_token, load_processor
from harness.errors import BadInput
from harness.jsonfiles import read_json, write_json
from harness.keys import digest_of
from harness.protocol import shipped_protocols
from harness.records import LoadRequest, TrainRequest
from harness.subtasks import ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION
from plugins.engine import pick_device, pick_dtype
from plugins.families.internvl3 import BASE
from plugins.weights import Weights
from trainers import export, pass_rates
from trainers.adapters import attach, checkpoint_activations, quantisation, quantised_layers
from trainers.distributed import World
from trainers.feed import Feed
from trainers.grpo import Grpo, difficulty_functions
from trainers.loop import Training
from trainers.objective import Objective
from trainers.policy import Policy
from trainers.presets import preset
from trainers.prompts import PromptMaker
from trainers.recipes import Recipe
from trainers.rollout import Sampler, TorchSampler
from trainers.samples import Sample, TrainingSet, read_training_set
from trainers.settings import ModelSettings, Optimisation, Settings
from trainers.supervised import Supervised

RECORD = "training.json"
HEAD = "contrast.safetensors"
PROTOCOL = "emit"  #: whose prompts are trained
#: What stage 1 is aligned on (paper, "Training Strategy").
ALIGNED = frozenset({ANOMALY_DISCRIMINATION, DEFECT_LOCALIZATION})


def resolve_settings(recipe: Recipe, request: TrainRequest) -> Settings:
    """Preset, then what the world needs, then the recipe's arm, then ``--set``; later ones win."""
    settings = Settings()
    for layer in (preset(request.preset), request.source.settings, recipe.settings, request.settings):
        settings = settings.replaced(layer)
    return settings


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a training, before anything is computed."""

    settings: Settings
    base: Weights
    data: TrainingSet
    facts: Mapping[str, Any]  #: as plain data: two trainings with equal facts are the same

    @property
    def stage1(self) -> str | None:
        """Digest of all that decides stage 1, None where there is none: arms may share it."""
        if "stage1" not in self.facts["stages"]:
            return None
        settings = self.facts["settings"]
        aligned = [sample.id for sample in self.data.samples if _aligns(sample)]
        own = {name: settings[name] for name in ("seed", "model", "stage1")}
        return digest_of(["stage1", own, aligned, *(self.facts[name] for name in ("base", "data", "dtype"))])


def plan_training(recipe: Recipe, request: TrainRequest) -> TrainingPlan:
    """What a request comes to.

    Raises:
        BadInput: unfit data, weights or settings.
    """
    settings = resolve_settings(recipe, request)
    base = BASE.resolve(LoadRequest(world=request.source.world, weights=request.base))
    data = _data(read_training_set(request.source.path), settings)
    facts = {
        "recipe": recipe.name,
        "stages": list(recipe.stages),
        "preset": request.preset,
        "settings": settings.as_json(),
        "base": base.digest(),
        "data": data.digest,
        "dtype": str(pick_dtype(request.dtype, pick_device(request.device))).removeprefix("torch."),
    }
    return TrainingPlan(settings, base, data, _plain(facts))


def train(recipe: Recipe, request: TrainRequest) -> Path:
    """Run a recipe to its end, from where it stopped if it was interrupted; returns the folder of the model.

    Where draws are asked for, stage 2 learns nothing: its questions' pass rates are measured
    (:mod:`trainers.pass_rates`), and the file of these is returned.

    Raises:
        BadInput: the folder holds a training and ``resume`` is not set; unfit data, weights or settings.
    """
    plan = plan_training(recipe, request)
    settings, base, data, facts = plan.settings, plan.base, plan.data, plan.facts
    if facts["dtype"] == "float16":
        raise BadInput("--dtype float16: gradients of half precision vanish; use bfloat16 or float32")
    draws = {"rollout.group": request.draws, "grpo.batch": request.draws} if request.draws else {}
    drawing = settings.replaced(draws)  # refused now, not after stage 1
    device = pick_device(request.device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    world = World.join(device)
    try:
        _claim(request, facts, base, world)
        if world.leads:
            print(
                f"emit-bench: {recipe.name} on {base.origin}: {len(data.samples):,} questions on "
                f"{len(data.pairs()):,} image pairs, {world.size} process(es), into {request.out}",
                file=sys.stderr,
            )
        job = _Job(settings, base, data, request, world, device, facts)
        for stage in recipe.stages[:-1]:
            if not job.has_finished(stage):
                job.run(stage)
                release_memory()
        if request.draws:
            return job.measure(drawing)
        job.export(job.run(recipe.stages[-1]))
        return request.out / "model"
    finally:
        world.leave()


class _Job:
    """One training under way."""

    def __init__(
        self,
        settings: Settings,
        base: Weights,
        data: TrainingSet,
        request: TrainRequest,
        world: World,
        device: torch.device,
        facts: Mapping[str, Any],
    ) -> None:
        self.settings, self.base, self.data, self.request = settings, base, data, request
        self.world, self.device, self.facts = world, device, facts
        self.head = request.out / "stage1" / HEAD

    def has_finished(self, stage: str) -> bool:
        """Whether a stage has left what the next one begins with, so that no model need be read for it."""
        there = stage == "stage1" and self.head.is_file()
        return bool(self.world.told(there))

    def run(self, stage: str) -> Policy:
        """One stage, from where it stopped if it was interrupted; returns the model that learnt."""
        folder = self.request.out / stage
        policy, maker = self._policy(stage)
        feed, pairs = Feed(maker), self.data.pairs()
        objective: Objective
        optimisation: Optimisation
        if stage == "grpo":
            objective = self._grpo(policy, feed, self.settings)
            optimisation = self.settings.grpo
        else:
            optimisation = supervised = self.settings.stage1 if stage == "stage1" else self.settings.sft
            if stage == "stage1":
                pairs = [p for pair in pairs if (p := tuple(one for one in pair if _aligns(one)))]
            objective = Supervised(
                policy, feed, pairs, supervised, self.settings.seed, self.world, norm_learns=stage == "stage1"
            )
        if not objective.steps:
            raise BadInput(
                f"{self.request.source.path}: it holds no sample that {stage} can learn from; stage 1 needs "
                "Anomaly Discrimination or Defect Localization with a query and a reference image"
            )
        Training(policy, objective, optimisation, folder, self.world, self.facts).run(
            f"{self.facts['recipe']} {stage}"
        )
        if stage == "stage1" and self.world.leads:
            export.save_head(policy.model, self.head)
        self.world.agree(None)  # nobody reads the head before it is written
        return policy

    def _grpo(self, policy: Policy, feed: Feed, settings: Settings) -> Grpo:
        resample, weight = difficulty_functions(settings)
        sampler = make_sampler(policy, settings)
        return Grpo(policy, sampler, feed, self.data.pairs(), settings, self.world, resample, weight)

    def measure(self, drawing: Settings) -> Path:
        """Pass rates of the policy that stage 2 begins with; returns their file."""
        policy, maker = self._policy("grpo")
        path = self.request.out / pass_rates.FILE
        pass_rates.measure(self._grpo(policy, Feed(maker), drawing), self.data.pairs(), self.world, path)
        return path

    def _policy(self, stage: str) -> tuple[Policy, PromptMaker]:
        model, processor = new_emit(self.base, self.settings, self.device, self.request.dtype)
        if stage != "stage1" and "stage1" in self.facts["stages"]:
            export.load_head(model, self.head)
        model.requires_grad_(False)
        adapters = None
        if stage == "stage1":
            model.contrast.requires_grad_(True)
        else:
            adapters = attach(model, self.settings.model, self.settings.seed)
        chosen = self.settings.model
        if chosen.checkpointing:
            checkpoint_activations(model)
        cache = int(chosen.feature_cache * 2**30)
        policy = Policy(model, processor, adapters, cache_bytes=cache, attention=chosen.attention)
        protocol = next(found for found in shipped_protocols() if found.name == PROTOCOL)
        return policy, PromptMaker(processor, protocol, model.config.placeholders, chosen.tiles)

    def export(self, policy: Policy) -> None:
        """Write what the last stage made."""
        out = self.request.out
        if self.world.leads:
            export.write(policy, self.base, out)
            record, _ = read_json(out / RECORD)
            write_json(out / RECORD, {**record, "status": "finished"})
        self.world.agree(None)


def new_emit(
    base: Weights, settings: Settings, device: torch.device, dtype: str
) -> tuple[EmitForConditionalGeneration, Any]:
    """An EMIT around the base, its additions at their start, and its processor.

    Everything is drawn from the seed, so that every stage and every rank begins alike.
    """
    logging.set_verbosity_error()  # that the contrast head is new is no news
    logging.disable_progress_bar()
    processor = load_processor(base.folder, local_files_only=True)
    kind = pick_dtype(dtype, device)
    contrast = _contrast(settings.model, add_comp_token(processor.tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = EmitForConditionalGeneration.from_internvl(
            base.folder,
            contrast,
            dtype=kind,
            device_map={"": device},
            local_files_only=True,
            **quantisation(settings.model, kind),
        )
    if kind in (torch.float16, torch.bfloat16):
        model.contrast.float()  # kept so by its class, but not where 4-bit weights are read
    quantised = set(quantised_layers(model))
    if quantised - {"model.language_model"} or (settings.model.quantise == "nf4" and not quantised):
        raise ValueError(f"4-bit layers are where they must not be, or nowhere: {sorted(quantised)}")
    model.init_soft_prompt(processor.tokenizer(HINT).input_ids)
    words = settings.model.projector_words
    if words:
        model.init_projector(*(processor.tokenizer(word).input_ids[0] for word in words))
    model.train(False)
    return model, processor


def release_memory() -> None:
    """Give back what a stage held before the next one reads its model: hooks on layers are cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make_sampler(policy: Policy, settings: Settings) -> Sampler:
    """The sampler that the settings name."""
    if settings.rollout.sampler == "torch":
        return TorchSampler(policy, settings.rollout)
    from trainers.rollout_vllm import VllmSampler

    return VllmSampler(policy, settings.rollout)


def _contrast(settings: ModelSettings, comp: int) -> Contrast:
    changes: dict[str, Any] = {
        "comp_token_id": comp,
        "use_soft_prompt": settings.soft_prompt,
        "use_contrast": settings.contrastive_embeddings,
    }
    if settings.layers:
        changes["layers"] = settings.layers
    if settings.window >= 0:
        changes["window"] = settings.window
    return CONTRASTS[settings.contrast].replaced(**changes)


def _data(found: TrainingSet, settings: Settings) -> TrainingSet:
    """What is learnt from: ``data.limit`` pairs by the seed, then without text samples if so wanted.

    In this order, an ablation without text samples learns from the pictures that the others learn from.
    """
    samples = found.samples
    if settings.data.limit:
        from trainers.objective import permutation

        pairs = found.pairs()
        chosen = sorted(permutation(settings.seed, 0, len(pairs))[: settings.data.limit])
        samples = tuple(one for index in chosen for one in pairs[index])
    if not settings.data.text_samples:
        samples = tuple(one for one in samples if one.query is not None)
    return TrainingSet(found.path, found.digest, samples)


def _aligns(sample: Sample) -> bool:
    return sample.task in ALIGNED and sample.query is not None and bool(sample.references)


def _claim(request: TrainRequest, facts: Mapping[str, Any], base: Weights, world: World) -> None:
    """Make the folder this training's own, or refuse it."""
    path, error = request.out / RECORD, None
    if path.exists():
        record, _ = read_json(path)
        if not request.resume:
            error = (
                f"{request.out} holds a training already; pass --resume to go on with it, or another --out"
            )
        elif not isinstance(record, dict) or record.get("facts") != dict(facts):
            error = (
                f"{request.out} holds another training; resume with the same command, or pass another --out"
            )
    error = world.agree(error)
    if error is not None:
        raise BadInput(error)
    if world.leads and not path.exists():
        request.out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"status": "running", "base": base.origin, "facts": dict(facts)})


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
