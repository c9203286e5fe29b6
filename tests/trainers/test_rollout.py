"""Responses drawn on an expanded cache: what each would be alone, with the scorer's own probabilities."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from tests.trainers import small
from trainers.packing import Suffix
from trainers.policy import Policy
from trainers.prompts import PromptMaker, TrainingPrompt
from trainers.rollout import Completion, TorchSampler, _filtered, _inverse_cdf, response_seed
from trainers.settings import RolloutSettings


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, PromptMaker, small.TrainingSet]:
    data = small.training_set(tmp_path_factory.mktemp("set"))
    return *small.policy(awake=True), data


def seeds(count: int, attempt: int = 0) -> list[bytes]:
    return [response_seed(1, 2, "question", attempt, number) for number in range(count)]


def draw(policy: Policy, prompt: TrainingPrompt, count: int = 4, **settings: object) -> list[Completion]:
    chosen = RolloutSettings(**{"max_new_tokens": 12, **settings})  # type: ignore[arg-type]
    with torch.no_grad():
        sight = policy.look(prompt)
    return TorchSampler(policy, chosen).sample(prompt, sight, [0], [seeds(count)])[0]


def test_recorded_probabilities_are_the_scorers(
    scene: tuple[Policy, PromptMaker, small.TrainingSet],
) -> None:
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    drawn = draw(policy, prompt, temperature=0.7)
    with torch.no_grad():
        logps, owners = policy.log_probs(
            prompt,
            policy.look(prompt),
            prompt.rows[0],
            [Suffix((), one.ids) for one in drawn],
            contrastive=1,
            temperature=0.7,
            suppress=True,
        )
    for number, one in enumerate(drawn):
        torch.testing.assert_close(one.logps.double(), logps[owners == number], rtol=0, atol=1e-5)


def test_greedy_is_what_the_whole_row_says_token_by_token(
    scene: tuple[Policy, PromptMaker, small.TrainingSet],
) -> None:
    """top_k = 1 leaves the best token; recomputed without any cache for every length."""
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    (one, two) = draw(policy, prompt, count=2, top_k=1, max_new_tokens=6)
    assert one.ids == two.ids
    ids = list(prompt.rows[0])
    for token in one.ids:
        with torch.no_grad():
            embeds = policy._fill(torch.tensor([ids]), policy.look(prompt), 1)
            states = policy.model.model.language_model(
                inputs_embeds=embeds, use_cache=False
            ).last_hidden_state
        assert int(policy.logits(states[0, -1:]).argmax()) == token
        ids.append(token)


def test_a_response_is_a_function_of_its_seed_alone(
    scene: tuple[Policy, PromptMaker, small.TrainingSet],
) -> None:
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    four, two = draw(policy, prompt, 4), draw(policy, prompt, 2)
    assert [one.ids for one in four[:2]] == [one.ids for one in two]
    assert len({one.ids for one in four}) > 1
    assert response_seed(1, 2, "q", 0, 3) != response_seed(1, 2, "q", 1, 3)


def test_the_first_end_token_ends_and_is_kept(
    scene: tuple[Policy, PromptMaker, small.TrainingSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    free = draw(policy, prompt, 4)
    end = free[0].ids[3]
    monkeypatch.setattr(policy, "ends", policy.ends | {end})
    cut = draw(policy, prompt, 4)
    for before, after in zip(free, cut, strict=True):
        wanted = before.ids[: before.ids.index(end) + 1] if end in before.ids else before.ids
        assert after.ids == wanted  # and others, still running, are what they were
        assert after.ended == (after.ids[-1] in policy.ends)
        assert len(after.logps) == len(after.ids)


def test_special_tokens_are_never_drawn(scene: tuple[Policy, PromptMaker, small.TrainingSet]) -> None:
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    banned = set(policy.suppressed.tolist())
    assert policy.processor.image_token_id in banned
    assert not any(banned & set(one.ids) for one in draw(policy, prompt, 8, temperature=5.0))


def test_the_prompt_is_computed_once(scene: tuple[Policy, PromptMaker, small.TrainingSet]) -> None:
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    seen: list[tuple[int, int]] = []
    hook = policy.model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    drawn = draw(policy, prompt, 4, max_new_tokens=5)
    hook.remove()
    assert seen[:2] == [(1, prompt.shared), (1, len(prompt.rows[0]) - prompt.shared)]
    assert all(length == 1 for _, length in seen[2:])
    assert sum(rows for rows, _ in seen[2:]) == sum(len(one.ids) - 1 for one in drawn)


def test_questions_drawn_together_are_what_they_are_alone(
    scene: tuple[Policy, PromptMaker, small.TrainingSet],
) -> None:
    """Questions of unequal length share their prefix's cache; padding between them changes nothing."""
    policy, maker, data = scene
    prompt = small.prompt(maker, data.samples[:3])
    assert len({len(row) for row in prompt.rows}) > 1
    sampler = TorchSampler(policy, RolloutSettings(max_new_tokens=12))
    with torch.no_grad():
        sight = policy.look(prompt)
    wanted = [sampler.sample(prompt, sight, [row], [seeds(3, row)])[0] for row in range(3)]
    before = policy.counts["prefilled_tokens"]
    together = sampler.sample(prompt, sight, [0, 1, 2], [seeds(3, row) for row in range(3)])
    spent = policy.counts["prefilled_tokens"] - before
    assert spent == prompt.shared + sum(len(row) - prompt.shared for row in prompt.rows)
    for first, second in zip(together, wanted, strict=True):
        for one, other in zip(first, second, strict=True):
            assert one.ids == other.ids
            torch.testing.assert_close(one.logps, other.logps, rtol=0, atol=1e-5)


def test_inverse_cdf_by_hand() -> None:
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log().expand(4, 3)
    drawn = _inverse_cdf(logits, torch.tensor([0.0, 0.21, 0.5001, 0.9999999], dtype=torch.float64))
    assert drawn.tolist() == [0, 1, 2, 2]


def test_a_draw_never_falls_on_a_token_without_probability() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, -torch.inf]])
    for uniform in (0.0, 1.0 - 2**-53):
        assert _inverse_cdf(logits, torch.tensor([uniform], dtype=torch.float64)).item() == 1


def test_draws_follow_the_distribution() -> None:
    shares = torch.tensor([0.1, 0.6, 0.3])
    uniform = torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = _inverse_cdf(shares.log().expand(20_000, 3), uniform)
    found = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(found, shares, rtol=0, atol=0.012)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, {0, 3}),
        ({"top_p": 0.5}, {3}),
        ({"top_p": 0.65}, {0, 3}),
        ({"top_p": 1.0}, {0, 1, 2, 3}),
    ],
)
def test_filters_by_hand(settings: dict[str, float], kept: set[int]) -> None:
    logits = torch.tensor([[0.3, 0.08, 0.02, 0.6]]).log()
    left = _filtered(logits, RolloutSettings(**settings))  # type: ignore[arg-type]
    assert set(torch.nonzero(left[0] > -torch.inf)[:, 0].tolist()) == kept


def test_checkpointing_changes_no_response_and_keeps_its_mode(
    scene: tuple[Policy, PromptMaker, small.TrainingSet],
) -> None:
    """Layers under gradient checkpointing drop their caches in training mode."""
    policy, maker, data = scene
    prompt = small.prompt(maker, [data.samples[0]])
    wanted = [one.ids for one in draw(policy, prompt)]
    other, _ = small.policy(awake=True, checkpointing=True)
    other.model.train()
    assert [one.ids for one in draw(other, prompt)] == wanted
    assert other.model.training


def test_the_cache_is_repeated_row_by_row() -> None:
    """What the sampler relies on in transformers."""
    cache = DynamicCache()
    cache.update(torch.arange(4.0).view(1, 1, 2, 2), torch.arange(4.0).view(1, 1, 2, 2), 0)
    cache.batch_repeat_interleave(3)
    keys = cache.layers[0].keys
    assert keys.shape == (3, 1, 2, 2) and torch.equal(keys[0], keys[2])
