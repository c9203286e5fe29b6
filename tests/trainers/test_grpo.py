"""The trainer of stage 2 on a tiny model: what it draws, what it divides by, and that it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainers import small
from trainers import grpo
from trainers.advantage import difficulty_weight
from trainers.distributed import World
from trainers.feed import Feed
from trainers.groups import until_solved
from trainers.grpo import Grpo, Step, difficulty_functions
from trainers.packing import Suffix
from trainers.policy import Policy
from trainers.rewards import Reward
from trainers.rollout import TorchSampler
from trainers.settings import Settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> small.TrainingSet:
    return small.training_set(tmp_path_factory.mktemp("set"), pairs=3)


def settings(**changes: Any) -> Settings:
    plain = {"rollout.max_new_tokens": 5, "rollout.group": 4, "grpo.batch": 16, "grpo.max_steps": 3}
    return Settings().replaced({**plain, **{key.replace("__", "."): value for key, value in changes.items()}})


def trainer(
    data: small.TrainingSet,
    chosen: Settings,
    world: World | None = None,
    *,
    awake: bool = True,
    scope: str = "language",
    **parts: Any,
) -> Grpo:
    policy, maker = small.policy(awake=awake, lora_scope=scope)
    sampler = TorchSampler(policy, chosen.rollout)
    return Grpo(policy, sampler, Feed(maker, workers=0), data.pairs(), chosen, world or World(), **parts)


def gradients(made: Grpo, work: Step) -> dict[str, torch.Tensor]:
    made.policy.model.zero_grad()
    made.accumulate(work, World(), 0)
    return {name: p.grad.clone() for name, p in made.policy.learners().items() if p.grad is not None}


def coin(text: str, answer: str, options: Any, tokens: int, preset: str, *, max_tokens: int) -> Reward:
    """Rewards that differ within every group: by the text's letters, as good as random."""
    right = sum(map(ord, text)) % 3 == 0
    return Reward(1.0, float(right), tokens / 10, 0.0, 3.0 * right + 1.0 + sum(map(ord, text)) % 7 / 10)


@pytest.fixture(autouse=True)
def _coin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpo, "reward", coin)


def test_questions_of_a_pair_are_drawn_and_learnt_in_one_row(data: small.TrainingSet) -> None:
    made = trainer(data, settings())
    work = made.collect(0)
    assert sum(len(samples) for samples, _ in made.batches[0]) == len(work.groups) >= 4
    rows = len({id(group.prompt) for group in work.groups})
    assert rows < len(work.groups)
    made.policy.counts.clear()
    made.accumulate(work, World(), 0)
    wanted = 0
    for prompt in {id(group.prompt): group.prompt for group in work.groups}.values():
        groups = [group for group in work.groups if group.prompt is prompt]
        wanted += prompt.shared
        for group in groups:
            wanted += len(prompt.rows[group.row]) - prompt.shared
            wanted += sum(len(one.ids) for one in group.completions)
    assert made.policy.counts["scored_tokens"] == 2 * wanted  # the reference's pass and the policy's
    assert made.policy.counts["images_encoded"] == 0  # collected already


@pytest.mark.parametrize("scope", ["language", "all"])
def test_images_of_a_step_are_encoded_once_for_each_state_of_the_tower(
    data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """Frozen: once. Learning: once to draw, however often; once to learn; once as reference."""
    monkeypatch.setattr(grpo, "reward", never)
    made = trainer(
        data,
        settings(rollout__resampling="same", rollout__unsolved="keep"),
        resample=until_solved(3),
        scope=scope,
    )
    work = made.collect(0)
    made.accumulate(work, World(), 0)
    prompts = {id(group.prompt): group.prompt for group in work.drawn}.values()
    distinct = len({image.digest for prompt in prompts for image in prompt.images})
    shown = sum(len(prompt.images) for prompt in prompts)
    assert len(work.drawn) == 4 * len(work.groups)
    assert made.policy.counts["images_encoded"] == (distinct if scope == "language" else 2 * shown + distinct)


def test_the_sampler_and_the_scorer_agree(data: small.TrainingSet) -> None:
    made = trainer(data, settings(rollout__temperature=0.8))
    tally = made.accumulate(made.collect(0), World(), 0)
    assert made.report(tally)["sampler_gap"] < 1e-5


def test_fresh_adapters_have_no_divergence_and_learn(data: small.TrainingSet) -> None:
    """B = 0: KL and its gradient are 0; after one step there is a divergence."""
    made = trainer(data, settings(), awake=False)
    work = made.collect(0)
    tally = made.accumulate(work, World(), 0)
    assert made.report(tally)["kl"] == 0.0
    learners = made.policy.learners()
    optimiser = torch.optim.AdamW(learners.values(), lr=0.02)
    optimiser.step()
    made.policy.model.zero_grad()
    again = made.accumulate(Step(work.groups, work.drawn), World(), 0)
    assert made.report(again)["kl"] > 1e-6


def test_ratio_one_is_reinforce(data: small.TrainingSet) -> None:
    """Without the KL term the gradient is that of ``-advantage * logp``, group by group (Eq. 3)."""
    made = trainer(data, settings(grpo__beta=0.0))
    work = made.collect(0)
    found = gradients(made, work)
    made.policy.model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for group in work.groups:
        advantages = grpo.group_advantages(group.totals, group.correct, weighted=False)
        logps, owners = made.policy.log_probs(
            group.prompt,
            made.policy.look(group.prompt),
            group.prompt.rows[group.row],
            [Suffix((), one.ids) for one in group.completions],
            contrastive=int(group.prompt.contrastive[group.row]),
            suppress=True,
        )
        loss = loss - (advantages[owners] * logps).sum() / len(logps)
    (loss / len(work.groups)).backward()
    for name, parameter in made.policy.learners().items():
        if name in found:
            assert parameter.grad is not None
            assert float((found[name] - parameter.grad).norm()) <= 1e-4 * float(parameter.grad.norm()) + 1e-12


def test_difficulty_aware_without_its_two_functions_is_plain_grpo_bit_for_bit(
    data: small.TrainingSet,
) -> None:
    plain = trainer(data, settings())
    other = trainer(data, settings(), resample=until_solved(0), weight=lambda correct: 1.0)
    first, second = plain.collect(0), other.collect(0)
    assert [[one.ids for one in group.completions] for group in first.groups] == [
        [one.ids for one in group.completions] for group in second.groups
    ]
    one, two = gradients(plain, first), gradients(other, second)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_constant_weight_scales_the_policy_gradient(data: small.TrainingSet) -> None:
    base = trainer(data, settings(grpo__beta=0.0))
    work = base.collect(0)
    once = gradients(base, work)
    base.weight = lambda correct: 4.0  # a power of two: exact, whatever is rounded on the way
    fourfold = gradients(base, work)
    assert any(bool(value.any()) for value in once.values())
    assert all(torch.equal(fourfold[name], 4 * value) for name, value in once.items())


def test_the_constant_arm_has_the_mean_weight(data: small.TrainingSet) -> None:
    made = trainer(data, settings(grpo__weighting="constant"), weight=difficulty_weight)
    work = made.collect(0)
    weights = [difficulty_weight(group.correct) for group in work.groups]
    assert len(set(weights)) > 1
    balanced = made._balanced(weights, World())
    assert len(set(balanced)) == 1 and balanced[0] == pytest.approx(sum(weights) / len(weights))


def test_constant_rewards_teach_nothing_without_the_kl_term(
    data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpo, "reward", lambda *given, **named: Reward(1, 1, 1, 0, 5.0))
    made = trainer(data, settings(grpo__beta=0.0))
    work = made.collect(0)
    made.policy.counts.clear()
    tally = made.accumulate(work, World(), 0)
    assert tally["learning"] == 0
    assert made.policy.counts["scored_tokens"] == 0
    assert all(p.grad is None for p in made.policy.learners().values())


def never(*given: Any, **named: Any) -> Reward:
    return Reward(0, 0, 0, 0, float(sum(map(ord, given[0])) % 5))


def test_unsolved_questions_are_drawn_again_and_solved_ones_never(data: small.TrainingSet) -> None:
    chosen = settings(rollout__resampling="same", rollout__budget=2)
    resample, _ = difficulty_functions(chosen)
    made = trainer(data, chosen, resample=resample)
    work = made.collect(0)
    by_question: dict[str, list[grpo.Group]] = {}
    for group in work.drawn:
        by_question.setdefault(group.sample.id, []).append(group)
    for groups in by_question.values():
        assert [group.attempt for group in groups] == list(range(len(groups)))
        assert not any(group.solved for group in groups[:-1])
        assert groups[-1].solved or len(groups) == 3
    assert any(len(groups) > 1 for groups in by_question.values())


@pytest.mark.parametrize(("policy", "kept"), [("drop", 0), ("neutral", 1), ("keep", 1)])
def test_what_becomes_of_unsolved_groups(
    data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch, policy: str, kept: int
) -> None:
    monkeypatch.setattr(grpo, "reward", never)
    made = trainer(data, settings(rollout__unsolved=policy), weight=difficulty_weight)
    work = made.collect(0)
    assert len(work.groups) == kept * len(work.drawn)
    weights = {made._weight(group) for group in work.groups}
    assert weights == {"drop": set(), "neutral": {1.0}, "keep": {2.0}}[policy]
    tally = made.accumulate(work, World(), 0)
    assert (tally["learning"] > 0) == bool(kept)


def test_equal_draws_learn_from_every_group(data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpo, "reward", never)
    chosen = settings(rollout__resampling="all", rollout__budget=2)
    resample, weight = difficulty_functions(chosen)
    made = trainer(data, chosen, resample=resample, weight=weight)
    work = made.collect(0)
    first = [group for group in work.drawn if group.attempt == 0]
    assert weight is None and len(work.groups) == len(work.drawn) == 3 * len(first)
    one, two = (
        [group for group in work.drawn if group.sample is first[0].sample and group.attempt == attempt]
        for attempt in (0, 1)
    )
    assert [c.ids for c in one[0].completions] != [c.ids for c in two[0].completions]


def test_long_rows_are_split_and_teach_the_same(data: small.TrainingSet) -> None:
    whole, split = trainer(data, settings()), trainer(data, settings(model__row_tokens=1))
    work = whole.collect(0)
    wanted, found = gradients(whole, work), gradients(split, work)
    rows = grpo._rows(work.groups, range(len(work.groups)), 1)
    assert [len(row) for row in rows] == [1] * len(work.groups)
    for name, value in wanted.items():
        assert float((found[name] - value).norm()) <= 1e-4 * float(value.norm()) + 1e-12


def test_several_iterations_clip_against_the_policy_that_drew(data: small.TrainingSet) -> None:
    made = trainer(data, settings(grpo__iterations=2))
    work = made.collect(0)
    made.accumulate(work, World(), 0)
    with torch.no_grad():
        for parameter in made.policy.learners().values():
            parameter.add_(0.05 * torch.sign(parameter))
    made.policy.model.zero_grad()
    report = made.report(made.accumulate(work, World(), 1))
    assert report["clipped_low"] + report["clipped_high"] > 0


def test_ranks_draw_and_add_up_to_what_one_draws(data: small.TrainingSet) -> None:
    """Two ranks without a network: shares of the groups, and gradients that add up."""
    chosen = settings()
    whole = trainer(data, chosen)
    work = whole.collect(0)
    wanted = gradients(whole, work)

    class Part(World):
        def add(self, tally: Any, device: Any) -> Any:
            counts = {"group": len(work.groups), "batch": 0, "sequence": 0}
            return {**tally, **counts} if "group" in tally else tally

    sums: dict[str, torch.Tensor] = {}
    drawn: dict[str, list[tuple[int, ...]]] = {}
    for rank in range(2):
        part = trainer(data, chosen, Part(rank, 2))
        share = part.collect(0)
        drawn |= {group.sample.id: [one.ids for one in group.completions] for group in share.groups}
        part.policy.model.zero_grad()
        part.accumulate(share, part.world, 0)
        for name, parameter in part.policy.learners().items():
            if parameter.grad is not None:
                sums[name] = sums.get(name, torch.zeros_like(parameter.grad)) + parameter.grad
    assert drawn == {group.sample.id: [one.ids for one in group.completions] for group in work.groups}
    for name, value in wanted.items():
        torch.testing.assert_close(sums[name], value, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grpo__weighting": "difficulty", "rollout__resampling": "same", "rollout__unsolved": "drop"},
        {"grpo__normalise": "batch", "grpo__kl": "k2"},
        {"grpo__normalise": "sequence", "grpo__iterations": 2},
    ],
    ids=["plain", "difficulty", "batch", "sequence"],
)
def test_one_question_is_learnt(
    data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """The reward is the third likeliest first token; in some steps it has nearly all probability."""
    chosen = settings(
        grpo__batch=8,
        rollout__group=8,
        rollout__max_new_tokens=1,
        grpo__beta=0.001,
        grpo__max_steps=60,
        **changes,
    )
    sample = data.samples[0]
    policy, maker = small.policy(dtype=torch.float32, lora_scope="language")
    prompt = small.prompt(maker, [sample])
    wanted, before = _likely(policy, prompt, 2)
    assert before < 0.5
    token = maker.builder.decode([wanted])

    def emits(text: str, *given: Any, **named: Any) -> Reward:
        return Reward(0, float(text == token), 0, 0, float(text == token))

    monkeypatch.setattr(grpo, "reward", emits)
    resample, weight = difficulty_functions(chosen)
    feed = Feed(maker, workers=0)
    made = Grpo(
        policy, TorchSampler(policy, chosen.rollout), feed, [[sample]], chosen, World(), resample, weight
    )
    made.batches = made.batches * 60
    optimiser = torch.optim.AdamW(policy.learners().values(), lr=0.02, weight_decay=0.0)
    for step in range(60):
        work = made.collect(step)
        for iteration in range(made.iterations):
            optimiser.zero_grad()
            if made.accumulate(work, World(), iteration)["learning"]:
                optimiser.step()
        if (now := _probability(policy, prompt, wanted)) > 0.95:
            break
    assert now > 0.95


def _first(policy: Policy, prompt: Any) -> torch.Tensor:
    with torch.no_grad():
        embeds = policy.embed(prompt, policy.look(prompt))
        states = policy.model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return policy.logits(states[:, -1]).softmax(-1)[0]


def _likely(policy: Policy, prompt: Any, rank: int) -> tuple[int, float]:
    shares = _first(policy, prompt)
    token = int(shares.argsort(descending=True)[rank])
    return token, float(shares[token])


def _probability(policy: Policy, prompt: Any, token: int) -> float:
    return float(_first(policy, prompt)[token])
