"""Supervised training on answers: SFT, and stage 1, which is SFT of the contrast head alone.

The unit is the image pair: its images are encoded once, its prompt is computed once, and the answers to all
its questions are learnt from one packed row. Loss is on answer tokens only, divided by their number over the
whole step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch

from harness.errors import BadInput
from harness.records import Mode
from trainers.distributed import Tally, World
from trainers.feed import Feed
from trainers.loss import answer_loss
from trainers.objective import Unit, batches, units_of
from trainers.packing import Suffix
from trainers.policy import Policy, Sight
from trainers.prompts import TrainingPrompt
from trainers.samples import Sample
from trainers.settings import SupervisedSettings

#: Which answer modes a training's answers are learnt in.
MODES: Mapping[str, tuple[Mode, ...]] = {
    "letter": ("direct",),
    "think+letter": ("think",),
    "both": ("direct", "think"),
}


class Supervised:
    """The trainer of SFT; with ``norm_learns``, of stage 1.

    Args:
        policy: the model; what learns is already chosen.
        feed: makes prompts.
        pairs: samples by image pair.
        settings: optimiser and answer form.
        seed: of the order.
        world: the processes that share a step's rows.
        norm_learns: whether the batch norm's statistics move: in stage 1, and never after.

    Raises:
        BadInput: a thought is to be learnt, and a sample has no rationale.
    """

    iterations = 1

    def __init__(
        self,
        policy: Policy,
        feed: Feed,
        pairs: Sequence[Sequence[Sample]],
        settings: SupervisedSettings,
        seed: int,
        world: World,
        *,
        norm_learns: bool = False,
    ) -> None:
        self.policy, self.feed, self.world = policy, feed, world
        self.norm_learns = norm_learns
        units = [unit for mode in MODES[settings.answers] for unit in units_of(pairs, mode)]
        self._require_thoughts(units)
        self.batches = batches(units, settings, settings.batch, seed)
        self.steps = len(self.batches)

    @staticmethod
    def _require_thoughts(units: Sequence[Unit]) -> None:
        for samples, mode in units:
            lacking = next((one for one in samples if mode == "think" and not one.rationale), None)
            if lacking is not None:
                raise BadInput(
                    f"sample {lacking.id} has no rationale, so there is no thought to learn; train on "
                    "letters (answers=letter) or add rationales to the training set"
                )

    def collect(self, step: int) -> list[tuple[TrainingPrompt, Mode]]:
        """This rank's rows of a step; the next step's images begin to be read."""
        if step + 1 < self.steps:
            self.feed.ahead(self.world.share(self.batches[step + 1]))
        units = self.world.share(self.batches[step])
        return [(self.feed.get(samples, mode), mode) for samples, mode in units]

    def accumulate(self, work: list[tuple[TrainingPrompt, Mode]], world: World, iteration: int) -> Tally:
        """Cross-entropy on the answers of the step's rows, over all ranks' answer tokens."""
        device = self.policy.device
        answers = [self._answers(prompt, mode) for prompt, mode in work]
        tokens = sum(len(ids) for row in answers for ids in row)
        total = int(world.add(Tally(tokens=tokens), device)["tokens"])
        tally = Tally(learning=len(work), tokens=tokens, rows=sum(len(row) for row in answers))
        sights = [self.policy.look(prompt) for prompt, _ in work] if self.norm_learns else None
        with self._norm_of(sights, world) if sights is not None else nullcontext():
            for index, ((prompt, _), row) in enumerate(zip(work, answers, strict=True)):
                sight = self.policy.look(prompt) if sights is None else sights[index]
                loss = answer_loss(self._score(prompt, sight, row), total)
                loss.backward()
                tally["loss"] += float(loss.detach())
        return tally

    def _score(self, prompt: TrainingPrompt, sight: Sight, answers: Sequence[Sequence[int]]) -> torch.Tensor:
        suffixes = [
            Suffix(tuple(row[prompt.shared :]), tuple(ids))
            for row, ids in zip(prompt.rows, answers, strict=True)
        ]
        logps, _ = self.policy.log_probs(
            prompt, sight, prompt.rows[0][: prompt.shared], suffixes, contrastive=sum(prompt.contrastive)
        )
        return logps

    def _answers(self, prompt: TrainingPrompt, mode: Mode) -> list[tuple[int, ...]]:
        maker = self.feed.maker
        return [
            maker.answer_ids(thought(sample) if mode == "think" else sample.answer)
            for sample in prompt.samples
        ]

    @contextmanager
    def _norm_of(self, sights: Sequence[Sight], world: World) -> Iterator[None]:
        """Within, the batch norm has the statistics of *all* the step's heat maps.

        A batch norm in training mode would see one pair at a time. So its statistics are taken here over
        whatever rows and ranks the step is spread over; its running ones follow as torch's own do.
        """
        norm = self.policy.model.contrast.norm
        maps = [sight.heat.double() for sight in sights if sight.heat is not None]
        sums = Tally(
            n=sum(heat.numel() for heat in maps),
            first=sum(float(heat.sum()) for heat in maps),
            second=sum(float(heat.square().sum()) for heat in maps),
        )
        sums = world.add(sums, self.policy.device)
        if sums["n"] < 2:
            yield
            return
        mean = sums["first"] / sums["n"]
        variance = max(0.0, sums["second"] / sums["n"] - mean * mean)
        before, spread = norm.running_mean.clone(), norm.running_var.clone()
        norm.running_mean.fill_(mean)
        norm.running_var.fill_(variance)
        yield
        unbiased = variance * sums["n"] / (sums["n"] - 1)
        norm.running_mean.copy_(before.lerp(torch.full_like(before, mean), norm.momentum))
        norm.running_var.copy_(spread.lerp(torch.full_like(spread, unbiased), norm.momentum))
        norm.num_batches_tracked += 1

    def report(self, tally: Tally) -> Mapping[str, float]:
        """Means of a step."""
        return {"loss": tally["loss"], "rows": tally["rows"], "answer_tokens": tally["tokens"]}


def thought(sample: Sample) -> str:
    """The answer in the thinking form; the sample must have a rationale."""
    return f"<think>{sample.rationale} {sample.answer}.</think><answer>{sample.answer}</answer>"
