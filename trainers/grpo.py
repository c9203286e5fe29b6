"""GRPO, and difficulty-aware GRPO: one story, told in the paper's order.

For every question the policy draws G responses, each earns a reward, and a response is made more likely by as
much as its reward stands out of its group (Eq. 2-4). Difficulty-aware GRPO is the same with two functions
handed in: ``resample`` draws anew where no response is correct, ``weight`` lets hard questions count for more
(Eq. 5-6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainers.advantage import difficulty_weight, group_advantages
from trainers.distributed import Tally, World
from trainers.feed import Feed
from trainers.groups import Group, Resample, equal_draws, once, until_solved
from trainers.loss import policy_loss, policy_statistics
from trainers.objective import Order, step_count
from trainers.packing import Suffix
from trainers.policy import Policy
from trainers.rewards import correct, reward
from trainers.rollout import Sampler, response_seed
from trainers.samples import Sample
from trainers.settings import Settings

Weight = Callable[[Sequence[bool]], float]


@dataclass
class Step:
    """What a rank draws in one step."""

    groups: list[Group]  #: learnt from
    drawn: list[Group]  #: all, those that were drawn again included
    weights: list[float] = field(default_factory=list)  #: Eq. 5, a group each
    #: Log-probabilities by group: of the reference, and of the policy at the first iteration.
    reference: dict[int, Tensor] = field(default_factory=dict)
    old: dict[int, Tensor] = field(default_factory=dict)


class Grpo:
    """The trainer of stage 2.

    Args:
        policy: the model, its adapters attached.
        sampler: what draws responses.
        feed: makes prompts.
        samples: the questions.
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
        samples: Sequence[Sample],
        settings: Settings,
        world: World,
        resample: Resample[Group] = once,
        weight: Weight | None = None,
    ) -> None:
        self.policy, self.sampler, self.feed, self.world = policy, sampler, feed, world
        self.settings, self.resample, self.weight = settings, resample, weight
        self.order = Order(samples, settings.seed)
        self.spare = Order(samples, settings.seed + 1)  # questions that equal draws are spent on
        self.iterations = settings.grpo.iterations
        self.steps = step_count(
            settings.grpo.epochs, len(samples), settings.questions, settings.grpo.max_steps
        )

    def collect(self, step: int) -> Step:
        """Draw this rank's groups. Nothing here depends on how many ranks there are."""
        self.sampler.updated()
        if step + 1 < self.steps:
            self.feed.ahead(((self.order.at(place),), "think") for place in self._places(step + 1))
        found = Step([], [])
        for place in self._places(step):
            kept, drawn = self.resample(lambda attempt: self._draw(step, place, attempt), lambda g: g.solved)  # noqa: B023
            found.groups += [
                group for group in kept if group.solved or self.settings.rollout.unsolved != "drop"
            ]
            found.drawn += drawn
        found.weights = [self._weight(group) for group in found.groups]
        return found

    def _places(self, step: int) -> list[int]:
        """Positions in the order of questions that are this rank's in a step."""
        first = step * self.settings.questions
        return self.world.share(range(first, first + self.settings.questions))

    def _draw(self, step: int, place: int, attempt: int) -> Group:
        fresh = attempt > 0 and self.settings.rollout.resampling == "fresh"
        budget = self.settings.rollout.budget
        sample: Sample = self.spare.at(place * budget + attempt - 1) if fresh else self.order.at(place)
        prompt = self.feed.get([sample], "think")
        seeds = [
            response_seed(self.settings.seed, step, sample.id, attempt, number)
            for number in range(self.settings.rollout.group)
        ]
        with torch.no_grad():
            sight = self.policy.look(prompt)
        completions = self.sampler.sample(prompt, sight, 0, seeds)
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
        return Group(prompt, tuple(completions), earned, tuple(correct(one) for one in earned), attempt)

    def _weight(self, group: Group) -> float:
        """Eq. 5; a group that stays unsolved may be left at 1 (``neutral``)."""
        if self.weight is None or (not group.solved and self.settings.rollout.unsolved == "neutral"):
            return 1.0
        return self.weight(group.correct)

    def accumulate(self, work: Step, world: World, iteration: int) -> Tally:
        """The gradients of Eq. 3 over all ranks' groups, divided once by a number that is fixed here."""
        grpo = self.settings.grpo
        weights = self._balanced(work.weights, world)
        advantages = [
            group_advantages(group.totals, group.correct, weighted=False) * weight  # Eq. 2, Eq. 6
            for group, weight in zip(work.groups, weights, strict=True)
        ]
        # Without a spread of rewards and without the KL term there is nothing to learn from a group.
        taught = [i for i, a in enumerate(advantages) if grpo.beta > 0 or bool(a.any())]
        total = self._total(work, world)
        tally = self._tally(work, advantages) if iteration == 0 else Tally()
        tally["learning"] += len(taught)
        if iteration == 0:
            work.reference = self._references(work, taught)
        for index in taught:
            loss, found = self._loss(work, index, advantages[index], iteration, total)
            loss.backward()
            tally["loss"] += float(loss.detach())
            tally.plus(found)
        return tally

    def _loss(
        self, work: Step, index: int, advantages: Tensor, iteration: int, total: float
    ) -> tuple[Tensor, Tally]:
        grpo, group, reference = self.settings.grpo, work.groups[index], work.reference.get(index)
        logps, mask = self._log_probs(group)
        if iteration == 0 and grpo.iterations > 1:
            work.old[index] = logps.detach()
        old = work.old[index] if iteration > 0 else None
        loss = policy_loss(  # Eq. 3 and 4
            logps,
            old,
            reference,
            advantages[None].to(logps),
            mask,
            clip=grpo.clip,
            beta=grpo.beta,
            normalise=grpo.normalise,
            kl=grpo.kl,
            total=total,
        )
        found = Tally(policy_statistics(logps, old, reference, advantages[None].to(logps), mask, grpo.clip))
        if iteration == 0:
            drawn = torch.cat([one.logps for one in group.completions]).to(logps)
            found["sampler_gap"] = float((logps.detach()[mask] - drawn).abs().sum())
            found["sampled_tokens"] = len(drawn)
        return loss, found

    def _references(self, work: Step, groups: Sequence[int]) -> dict[int, Tensor]:
        """Log-probabilities of the reference for groups that are learnt from; none without the KL term."""
        if self.settings.grpo.beta == 0:
            return {}
        with self.policy.reference():
            return {index: self._log_probs(work.groups[index])[0] for index in groups}

    def _log_probs(self, group: Group) -> tuple[Tensor, Tensor]:
        """(1, G, T) log-probabilities of a group's responses and their mask, from one packed row."""
        prompt, lengths = group.prompt, [len(one.ids) for one in group.completions]
        flat, _ = self.policy.log_probs(
            prompt,
            self.policy.look(prompt),
            prompt.rows[0],
            [Suffix((), one.ids) for one in group.completions],
            contrastive=int(prompt.contrastive[0]),
            temperature=self.settings.rollout.temperature,
            suppress=True,
        )
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        mask = mask.to(flat.device)
        padded = flat.new_zeros(mask.shape).masked_scatter(mask, flat)
        return padded[None], mask[None]

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


def difficulty_functions(settings: Settings) -> tuple[Resample[Group], Weight | None]:
    """The two functions that settings hand in: how groups are drawn again, and Eq. 5."""
    budget = settings.rollout.budget
    resample: Mapping[str, Resample[Group]] = {
        "none": once,
        "same": until_solved(budget),
        "fresh": equal_draws(budget),
    }
    return resample[
        settings.rollout.resampling
    ], None if settings.grpo.weighting == "none" else difficulty_weight
