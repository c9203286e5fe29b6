"""The one optimiser loop: every trainer goes through it, and resumes by it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from harness.errors import BadInput
from trainers import checkpoint
from trainers.distributed import Tally, World
from trainers.journal import Journal
from trainers.objective import Objective
from trainers.policy import Policy
from trainers.settings import Optimisation


def learning_rate(settings: Optimisation, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine towards zero; ``step`` counts from 0.

    >>> settings = Optimisation(learning_rate=1.0, warmup=0.2)
    >>> [round(learning_rate(settings, step, 10), 3) for step in (0, 1, 2, 9)]
    [0.5, 1.0, 1.0, 0.038]
    """
    warm = math.ceil(steps * settings.warmup)
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    share = (step - warm) / max(1, steps - warm)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


class Training:
    """One stage: a policy, what it learns from, and the folder where it leaves its traces.

    Args:
        policy: the model; what learns is already chosen.
        objective: the trainer.
        settings: its optimiser.
        folder: of the stage.
        world: the processes that share it.
        facts: what this training is; a checkpoint of another one is refused.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        settings: Optimisation,
        folder: Path,
        world: World,
        facts: Mapping[str, Any],
    ) -> None:
        self.policy, self.objective, self.settings = policy, objective, settings
        self.folder, self.world, self.facts = folder, world, facts
        self.learners = policy.learners()
        if not self.learners:
            raise ValueError("nothing learns: every parameter of the model is frozen")
        rounded = [name for name, p in self.learners.items() if p.dtype in (torch.float16, torch.bfloat16)]
        if rounded:
            raise ValueError(f"{rounded[0]} learns in half precision; small updates would be rounded away")
        plain = [p for p in self.learners.values() if p.ndim < 2]
        heavy = [p for p in self.learners.values() if p.ndim >= 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": heavy, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},  # biases and norms are not shrunk
            ],
            lr=settings.learning_rate,
            betas=(0.9, settings.beta2),
        )

    @property
    def checkpoints(self) -> Path:
        """Where they lie."""
        return self.folder / "checkpoints"

    def run(self, title: str) -> None:
        """Train to the end, from the latest checkpoint if there is one.

        Raises:
            BadInput: the checkpoint is damaged or of another training.
        """
        done = self._resume()
        journal = Journal(self.folder, done) if self.world.leads else None
        steps = self.objective.steps
        bar = tqdm(
            total=steps,
            initial=done,
            desc=title,
            unit="step",
            disable=not self.world.leads,
            dynamic_ncols=True,
        )
        self.policy.model.train()
        for step in range(done, steps):
            metrics, work = self._step(step, steps)
            if journal is not None:
                journal.write(step + 1, metrics, work)
            bar.set_postfix_str(_glance(metrics), refresh=False)
            bar.update()
            if (step + 1) % self.settings.save_every == 0 or step + 1 == steps:
                if journal is not None:
                    journal.sync()
                self._save(step + 1)
        bar.close()
        self.policy.model.eval()
        if journal is not None:
            journal.close()

    def _step(self, step: int, steps: int) -> tuple[dict[str, float], dict[str, float]]:
        """One step; its metrics, and the work that depends on what was in a cache."""
        rate = learning_rate(self.settings, step, steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        before = Counter(self.policy.counts)
        work = self.objective.collect(step)
        total = Tally()
        norm, skipped = 0.0, 0
        for iteration in range(self.objective.iterations):
            self.optimiser.zero_grad(set_to_none=True)
            tally = self.objective.accumulate(work, self.world, iteration)
            tally = self.world.add(tally, self.policy.device)
            self.world.add_gradients(self.learners.values())
            if tally["learning"] == 0:
                skipped += 1
            else:
                norm = self._update(step)
            total.plus(tally)
        work_done = Counter(self.policy.counts)
        work_done.subtract(before)
        counts = self.world.add(Tally(work_done), self.policy.device)
        cached = {name: counts[name] for name in sorted(counts) if name.endswith("_encoded")}
        total["loss"] /= self.objective.iterations
        metrics = {
            **self.objective.report(total),
            "learning_rate": rate,
            "gradient_norm": norm,
            "skipped": skipped,
            **{name: counts[name] for name in sorted(counts) if name not in cached},
        }
        return metrics, cached

    def _update(self, step: int) -> float:
        parameters = [p for p in self.learners.values() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)
        if not torch.isfinite(norm):
            raise ValueError(f"step {step + 1}: the gradient is not finite; lower the learning rate")
        self.optimiser.step()
        return float(norm)

    def _tensors(self) -> dict[str, Tensor]:
        """What changes: parameters that learn, and statistics beside them."""
        statistics = {
            f"contrast.{name}": buffer for name, buffer in self.policy.model.contrast.named_buffers()
        }
        return {**self.learners, **statistics}

    def _resume(self) -> int:
        """Steps that are done, the same on every rank, or one error for all."""
        done, error = 0, None
        try:
            done = self._restore()
        except BadInput as failure:
            error = str(failure)
        if error is None and done != self.world.told(done):
            error = f"{self.checkpoints}: not every machine sees the latest checkpoint yet; resume once more"
        elif error is not None:
            self.world.told(done)
        error = self.world.agree(error)
        if error is not None:
            raise BadInput(error)
        return done

    def _restore(self) -> int:
        state = checkpoint.load(self.checkpoints)
        if state is None:
            return 0
        if dict(state.facts) != dict(self.facts):
            names = sorted(
                name for name in {*state.facts, *self.facts} if state.facts.get(name) != self.facts.get(name)
            )
            raise BadInput(
                f"{self.checkpoints}: the checkpoint is of another training ({', '.join(names)} differ); "
                "resume with the same settings, or train into another folder"
            )
        own = self._tensors()
        if set(own) != set(state.weights):
            raise BadInput(f"{self.checkpoints}: the checkpoint holds other tensors than this model learns")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state.weights[name])
        checkpoint.restore_optimiser(self.optimiser, self.learners, state.optimiser)
        return state.step

    def _save(self, step: int) -> None:
        error = None
        if self.world.leads:
            moments = checkpoint.optimiser_tensors(self.optimiser, self.learners)
            state = checkpoint.State(step, self._tensors(), moments, self.facts)
            try:
                checkpoint.save(self.checkpoints, state, self.settings.keep)
            except (OSError, SafetensorError) as failure:  # told to every rank, or the others would wait
                error = f"{self.checkpoints}: {failure}; free some space and resume"
        error = self.world.agree(error)
        if error is not None:
            raise BadInput(error)


def _glance(metrics: Mapping[str, float]) -> str:
    """The few numbers that tell how it goes."""
    shown = {
        "loss": "loss {:.3f}",
        "reward_total": "reward {:.2f}",
        "correct": "correct {:.0%}",
        "kl": "KL {:.4f}",
    }
    return ", ".join(text.format(metrics[name]) for name, text in shown.items() if name in metrics)
