"""Our side of the benchmark: the trainer's own classes on the scene, as a training puts them together."""

from __future__ import annotations

from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from emit_model import Contrast, EmitForConditionalGeneration, add_comp_token, load_processor
from tests.performance.meter import Meter
from tests.performance.scene import BASE, DATA, SIZES, Case
from tests.trainers.small import PROTOCOL, wake
from trainers.adapters import attach
from trainers.distributed import Tally, World
from trainers.feed import Feed
from trainers.grpo import Grpo
from trainers.loop import Training
from trainers.policy import Policy
from trainers.prompts import PromptMaker, TrainingPrompt
from trainers.rollout import TorchSampler
from trainers.samples import read_training_set


class Metered:
    """A trainer whose steps are measured, from the first look at their questions to the weights' update."""

    def __init__(self, objective: Grpo, meter: Meter) -> None:
        self._objective, self._meter = objective, meter
        self.steps, self.iterations = objective.steps, objective.iterations

    def collect(self, step: int) -> Any:
        self._meter.begin()
        return self._objective.collect(step)

    def accumulate(self, work: Any, world: World, iteration: int) -> Tally:
        return self._objective.accumulate(work, world, iteration)

    def report(self, tally: Tally) -> Mapping[str, float]:
        found = self._objective.report(tally)
        self._meter.end()
        return found


def make_policy(folder: Path, case: Case, device: str = "cpu") -> tuple[Policy, PromptMaker]:
    """The scene's InternVL as an EMIT without additions, adapters on its language model, and its prompts."""
    processor = load_processor(folder / BASE)
    contrast = Contrast(
        layers=(1, 2),
        comp_token_id=add_comp_token(processor.tokenizer),
        use_soft_prompt=False,
        use_contrast=False,
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = EmitForConditionalGeneration.from_internvl(
        folder / BASE, contrast, dtype=SIZES[case.size].dtype, device_map={"": device}
    )
    model.requires_grad_(False)
    adapters = attach(model, case.settings.model, case.settings.seed)
    wake(model)  # or the policy would be its own reference
    policy = Policy(model, processor, adapters)
    policy.ends = frozenset()  # every response has R tokens
    return policy, PromptMaker(processor, PROTOCOL, model.config.placeholders, case.tiles)


def prompts(folder: Path, case: Case, maker: PromptMaker) -> list[TrainingPrompt]:
    """The scene's prompts, in the order of its file; each has P tokens."""
    found = [maker.make(maker.open([one], "think")) for one in read_training_set(folder / DATA).samples]
    lengths = {len(prompt.rows[0]) for prompt in found}
    if lengths != {case.prompt}:
        raise ValueError(f"prompts have {lengths} tokens, and not {case.prompt}: correct scene.FRAME")
    return found


def run(folder: Path, case: Case, link: Connection | None = None, device: str = "cpu") -> Meter:
    """Train over the scene's questions once, under a meter."""
    torch.set_num_threads(1)
    policy, maker = make_policy(folder, case, device)
    prompts(folder, case, maker)
    meter = Meter(policy.model, policy.processor, link)
    settings, world = case.settings, World()
    grpo = Grpo(
        policy,
        TorchSampler(policy, settings.rollout),
        Feed(maker, workers=0),  # images are opened within the step, and their time is measured
        read_training_set(folder / DATA).pairs(),
        settings,
        world,
    )
    Training(policy, Metered(grpo, meter), settings.grpo, folder / "ours", world, {}).run("ours")
    return meter
