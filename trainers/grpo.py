"""GRPO, and difficulty-aware GRPO: one story, told in the paper's order.

For every question the policy draws G responses, each earns a reward, and a response is made more likely by as
much as its reward stands out of its group (Eq. 2-4). Difficulty-aware GRPO is the same with two functions
handed in: ``resample`` draws anew where no response is correct, ``weight`` lets hard questions count for more
(Eq. 5-6).

The questions on one image pair are drawn and learnt together: encoded, prefilled and packed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from harness.records import Mode
from trainers.advantage import difficulty_weight, group_advantages
from trainers.distributed import Tally, World
from trainers.feed import Feed
from trainers.groups import Group, Resample, keep_all, once, until_solved
from trainers.loss import policy_loss, policy_statistics
from trainers.objective import batches, units_of
from trainers.packing import Branch
from trainers.policy import Policy, Sight
from trainers.prompts import TrainingPrompt
from trainers.rewards import correct, reward
from trainers.rollout import Completion, Sampler, response_seed
from trainers.samples import Sample
from trainers.settings import Settings

Weight = Callable[[Sequence[bool]], float]


@dataclass
class Step:
    """What a rank draws in one step."""

    groups: list[Group]  #: learnt from
    drawn: list[Group]  #: all, those that were drawn again included
    #: Log-probabilities by row (see :func:`_rows`): of the reference, and of the policy that drew.
    reference: dict[int, Tensor] = field(default_factory=dict)
    old: dict[int, Tensor] = field(default_factory=dict)


class Grpo:
    """The trainer of stage 2.

    Args:
        policy: the model, its adapters attached.
        sampler: what draws responses.
        feed: makes prompts.
        pairs: the questions, by image pair.
        settings: of the whole training.
        world: the processes that share a step's questions.
        resample: draws groups, and draws again.
        weight: Eq. 5, or None.
    """

    def __init__(
        self,
        policy: Policy,
        sampler: Sampler,
        feed: Feed,
        pairs: Sequence[Sequence[Sample]],
        settings: Settings,
        world: World,
        resample: Resample[Group] = once,
        weight: Weight | None = None,
    ) -> None:
        self.policy, self.sampler, self.feed, self.world = policy, sampler, feed, world
        self.settings, self.resample, self.weight = settings, resample, weight
        self.batches = batches(units_of(pairs, "think"), settings.grpo, settings.questions, settings.seed)
        self.iterations, self.steps = settings.grpo.iterations, len(self.batches)

    def collect(self, step: int) -> Step:
        """Draw this rank's groups. Nothing here depends on how many ranks there are."""
        self.sampler.updated()
        if step + 1 < self.steps:
            self.feed.ahead(self.world.share(self.batches[step + 1]))
        found = Step([], [])
        for samples, mode in self.world.share(self.batches[step]):
            prompt = self.feed.get(samples, mode)
            with torch.no_grad():
                sight = self.policy.look(prompt)
            for first in self._draw(step, prompt, sight, range(len(prompt.rows)), attempt=0):
                again = partial(self._again, step, sight, first)
                kept, drawn = self.resample(again, lambda group: group.solved)
                found.groups += [group for group in kept if group.solved or self._keeps_unsolved]
                found.drawn += drawn
        return found

    def groups(self, samples: Sequence[Sample], mode: Mode) -> list[Group]:
        """A group of responses to each of the questions on one image pair, for their own sake."""
        prompt = self.feed.get(samples, mode)
        with torch.no_grad():
            sight = self.policy.look(prompt)
        return self._draw(-1, prompt, sight, range(len(prompt.rows)), attempt=0)

    def _again(self, step: int, sight: Sight, first: Group, attempt: int) -> Group:
        """The group of an attempt: the first one, or drawn anew from the same question."""
        if attempt == 0:
            return first
        return self._draw(step, first.prompt, sight, [first.row], attempt)[0]

    def _draw(
        self, step: int, prompt: TrainingPrompt, sight: Sight, rows: Sequence[int], attempt: int
    ) -> list[Group]:
        """G responses to each of a prompt's questions, and their rewards."""
        numbers = range(self.settings.rollout.group)
        seeds = [
            [response_seed(self.settings.seed, step, prompt.samples[row].id, attempt, n) for n in numbers]
            for row in rows
        ]
        drawn = self.sampler.sample(prompt, sight, rows, seeds)
        return [self._group(prompt, row, part, attempt) for row, part in zip(rows, drawn, strict=True)]

    def _group(
        self, prompt: TrainingPrompt, row: int, completions: Sequence[Completion], attempt: int
    ) -> Group:
        sample = prompt.samples[row]
        earned = tuple(
            reward(
                self.feed.maker.builder.decode(completion.ids),
                sample.answer,
                sample.options,
                len(completion.ids),
                self.settings.grpo.reward,
                max_tokens=self.settings.rollout.max_new_tokens,
            )
            for completion in completions
        )
        return Group(prompt, row, tuple(completions), earned, tuple(map(correct, earned)), attempt)

    @property
    def _keeps_unsolved(self) -> bool:
        return self.settings.rollout.unsolved != "drop"

    def _weight(self, group: Group) -> float:
        """Eq. 5; a group that stays unsolved may be left at 1 (``neutral``)."""
        if self.weight is None or (not group.solved and self.settings.rollout.unsolved == "neutral"):
            return 1.0
        return self.weight(group.correct)

    def accumulate(self, work: Step, world: World, iteration: int) -> Tally:
        """The gradients of Eq. 3 over all ranks' groups, divided once by a number that is fixed here."""
        grpo = self.settings.grpo
        weights = self._balanced([self._weight(group) for group in work.groups], world)
        advantages = [
            group_advantages(group.totals, group.correct, weighted=False) * weight  # Eq. 2, Eq. 6
            for group, weight in zip(work.groups, weights, strict=True)
        ]
        # Without a spread of rewards and without the KL term there is nothing to learn from a group.
        taught = [i for i, a in enumerate(advantages) if grpo.beta > 0 or bool(a.any())]
        rows = _rows(work.groups, taught, self.settings.model.row_tokens)
        total = self._total(work, world)
        tally = self._tally(work, advantages) if iteration == 0 else Tally()
        tally["learning"] += len(taught)
        if iteration == 0 and grpo.beta > 0:
            with self.policy.reference():
                work.reference = {at: self._log_probs(work, row)[0] for at, row in enumerate(rows)}
        for at, row in enumerate(rows):
            loss, found = self._loss(
                work, at, row, torch.stack([advantages[i] for i in row]), iteration, total
            )
            loss.backward()
            tally["loss"] += float(loss.detach())
            tally.plus(found)
        return tally

    def _loss(
        self, work: Step, at: int, row: Sequence[int], advantages: Tensor, iteration: int, total: float
    ) -> tuple[Tensor, Tally]:
        """Loss and statistics of one packed row's groups."""
        grpo = self.settings.grpo
        logps, mask = self._log_probs(work, row)
        if iteration == 0 and grpo.iterations > 1:
            work.old[at] = logps.detach()
        old, reference = work.old[at] if iteration > 0 else None, work.reference.get(at)
        advantages = advantages.to(logps)
        loss = policy_loss(  # Eq. 3 and 4
            logps,
            old,
            reference,
            advantages,
            mask,
            clip=grpo.clip,
            beta=grpo.beta,
            normalise=grpo.normalise,
            kl=grpo.kl,
            total=total,
        )
        found = Tally(policy_statistics(logps, old, reference, advantages, mask, grpo.clip))
        if iteration == 0:
            drawn = torch.cat([one.logps for i in row for one in work.groups[i].completions]).to(logps)
            found["sampler_gap"] = float((logps.detach()[mask] - drawn).abs().sum())
            found["sampled_tokens"] = len(drawn)
        return loss, found

    def _log_probs(self, work: Step, row: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(n, G, T) log-probabilities of the responses of n groups on one prompt, and their mask."""
        groups = [work.groups[i] for i in row]
        prompt = groups[0].prompt
        branches = [
            Branch(prompt.rows[one.row][prompt.shared :], tuple(c.ids for c in one.completions))
            for one in groups
        ]
        flat, _ = self.policy.log_probs(
            prompt,
            self.policy.look(prompt),
            prompt.rows[0][: prompt.shared],
            branches,
            contrastive=sum(prompt.contrastive[one.row] for one in groups),
            temperature=self.settings.rollout.temperature,
            suppress=True,
        )
        lengths = torch.tensor([[len(one.ids) for one in group.completions] for group in groups])
        mask = (torch.arange(int(lengths.max())) < lengths[..., None]).to(flat.device)
        return flat.new_zeros(mask.shape).masked_scatter(mask, flat), mask

    def _total(self, work: Step, world: World) -> float:
        """What every loss of this update is divided by: groups, tokens or responses of all ranks."""
        lengths = [len(one.ids) for group in work.groups for one in group.completions]
        counts = Tally(group=len(work.groups), batch=sum(lengths), sequence=len(lengths))
        return max(1.0, world.add(counts, self.policy.device)[self.settings.grpo.normalise])

    def _balanced(self, weights: Sequence[float], world: World) -> Sequence[float]:
        """The constant control: every group gets the mean of the weights that Eq. 5 would give."""
        if self.settings.grpo.weighting != "constant":
            return weights
        sums = world.add(Tally(weights=sum(weights), groups=len(weights)), self.policy.device)
        return [sums["weights"] / max(1.0, sums["groups"])] * len(weights)

    def _tally(self, work: Step, advantages: Sequence[Tensor]) -> Tally:
        """Sums of this step's draws; see :meth:`report`."""
        tally = Tally()
        first = [group for group in work.drawn if group.attempt == 0]
        for group in first:
            tally[f"first_{sum(group.correct)}"] += 1
        for group in work.drawn:
            tally[f"drawn_{sum(group.correct)}"] += 1
        tally.plus({"groups": len(work.groups), "draws": len(work.drawn), "questions": len(first)})
        for group in first:
            tally["responses"] += len(group.completions)
            tally["completion_tokens"] += sum(len(one.ids) for one in group.completions)
            tally["truncated"] += sum(not one.ended for one in group.completions)
            tally["correct"] += sum(group.correct)
            for part in ("format", "classification", "cosine", "repetition", "total"):
                tally[f"reward_{part}"] += sum(getattr(one, part) for one in group.rewards)
        for group, advantage in zip(work.groups, advantages, strict=True):
            mass = float(advantage.abs().sum())
            tally["advantage"] += mass
            tally["advantage_of_equals"] += mass if len(set(group.correct)) == 1 else 0.0
            tally["constant_groups"] += int(mass == 0.0)
        return tally

    def report(self, tally: Tally) -> Mapping[str, float]:
        """Means of a step. Rewards and correctness are those of first draws, whatever is drawn again."""
        responses, tokens = max(1, tally["responses"]), max(1.0, tally["tokens"])
        rewards = {name: tally[name] / responses for name in sorted(tally) if name.startswith("reward_")}
        size = self.settings.rollout.group
        return {
            "loss": tally["loss"],
            "correct": tally["correct"] / responses,
            **rewards,
            **{f"p{k}/{size}": tally[f"first_{k}"] for k in range(size + 1)},
            **{f"drawn_p{k}/{size}": tally[f"drawn_{k}"] for k in range(size + 1)},
            "equal_correctness_share": tally["advantage_of_equals"] / max(1e-12, tally["advantage"]),
            "constant_groups": tally["constant_groups"],
            "groups": tally["groups"],
            "draws": tally["draws"],
            "kl": tally["kl"] / tokens,
            "clipped_low": tally["clipped_low"] / tokens,
            "clipped_high": tally["clipped_high"] / tokens,
            "sampler_gap": tally["sampler_gap"] / max(1, tally["sampled_tokens"]),
            "truncated": tally["truncated"] / responses,
            "mean_tokens": tally["completion_tokens"] / responses,
        }


def _rows(groups: Sequence[Group], taught: Sequence[int], most: int) -> list[list[int]]:
    """Which groups share a packed row: those on one prompt, up to ``most`` tokens, one at least."""
    rows: list[list[int]] = []
    for index in taught:
        group = groups[index]
        if rows and groups[rows[-1][0]].prompt is group.prompt:
            together = [groups[i] for i in (*rows[-1], index)]
            if group.prompt.shared + sum(one.own_tokens for one in together) <= most:
                rows[-1].append(index)
                continue
        rows.append([index])
    return rows


def difficulty_functions(settings: Settings) -> tuple[Resample[Group], Weight | None]:
    """The two functions that settings hand in: how groups are drawn again, and Eq. 5."""
    budget = settings.rollout.budget
    resample: Mapping[str, Resample[Group]] = {
        "none": once,
        "same": until_solved(budget),
        "all": keep_all(budget),
    }
    return resample[
        settings.rollout.resampling
    ], None if settings.grpo.weighting == "none" else difficulty_weight
