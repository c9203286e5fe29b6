"""Stage 1 and SFT: the loss of plain cross-entropy, and nothing moves that should not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from harness.errors import BadInput
from tests.trainers import small
from trainers.distributed import World
from trainers.feed import Feed
from trainers.loop import Training
from trainers.policy import Policy
from trainers.prompts import PromptMaker
from trainers.settings import SupervisedSettings
from trainers.supervised import Supervised


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> small.TrainingSet:
    return small.training_set(tmp_path_factory.mktemp("set"), pairs=3)


def contrastive(data: small.TrainingSet) -> list[list[Any]]:
    return [
        [one for one in pair if one.id.startswith(("ad", "dl"))] for pair in data.pairs() if pair[0].query
    ]


def trainer(
    policy: Policy, maker: PromptMaker, pairs: Any, world: World | None = None, **changes: Any
) -> Supervised:
    norm_learns = changes.pop("norm_learns", False)
    chosen = SupervisedSettings(**{"batch": 4, "max_steps": 3, "epochs": 9, **changes})
    feed = Feed(maker, workers=0)
    return Supervised(policy, feed, pairs, chosen, 0, world or World(), norm_learns=norm_learns)


@pytest.mark.parametrize("answers", ["letter", "think+letter"])
def test_loss_is_cross_entropy_on_answer_tokens(data: small.TrainingSet, answers: str) -> None:
    """Against separate rows through the model's own forward; the mean over the step's answer tokens."""
    policy, maker = small.policy(awake=True)
    made = trainer(policy, maker, data.pairs(), answers=answers)
    work = made.collect(0)
    tally = made.accumulate(work, World(), 0)
    losses = []
    for samples, mode in made.batches[0]:
        for sample in samples:
            prompt = small.prompt(maker, [sample], mode)
            answer = made._answers(prompt, mode)[0]
            ids = torch.tensor([[*prompt.rows[0], *answer]])
            pixels = torch.cat([image.pixels for image in prompt.images]).double()
            extra = {"comparison_pixel_values": pixels.flip(0)[None]} if prompt.contrastive[0] else {}
            with torch.no_grad():
                logits = policy.model(input_ids=ids, pixel_values=pixels, **extra).logits[0]
            wanted = F.cross_entropy(
                logits[len(prompt.rows[0]) - 1 : -1], torch.tensor(answer), reduction="none"
            )
            losses.append(wanted)
    assert made.report(tally)["loss"] == pytest.approx(float(torch.cat(losses).mean()), abs=1e-6)
    assert tally["tokens"] == sum(map(len, losses))


def test_prompt_tokens_are_not_learnt(data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head sees the states before answer tokens and no others, so no prompt token is predicted."""
    policy, maker = small.policy(awake=True)
    made = trainer(policy, maker, data.pairs())
    scored: list[int] = []
    logits = policy.logits

    def counted(states: torch.Tensor, **options: Any) -> torch.Tensor:
        scored.append(len(states))
        return logits(states, **options)

    monkeypatch.setattr(policy, "logits", counted)
    with torch.no_grad():
        for prompt, mode in made.collect(0):
            made._score(prompt, policy.look(prompt), made._answers(prompt, mode))
    answers = [len(ids) for prompt, mode in made.collect(0) for ids in made._answers(prompt, mode)]
    assert sum(scored) == sum(answers) > 0


def digests(model: Any) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
        for name, value in model.state_dict().items()
    }


def test_stage_one_moves_the_contrast_head_only(data: small.TrainingSet, tmp_path: Path) -> None:
    policy, maker = small.policy(adapters=False)
    before = digests(policy.model)
    settings = SupervisedSettings(batch=4, max_steps=3, learning_rate=1e-2)
    made = trainer(policy, maker, contrastive(data), norm_learns=True)
    Training(policy, made, settings, tmp_path, World(), {}).run("stage 1")
    after = digests(policy.model)
    moved = {name for name in after if after[name] != before[name]}
    assert moved == {name for name in after if name.startswith("contrast.")}
    assert all(
        p.grad is None for name, p in policy.model.named_parameters() if not name.startswith("contrast")
    )


def test_batch_norm_moves_as_torchs_own_over_the_whole_step(data: small.TrainingSet) -> None:
    policy, maker = small.policy(adapters=False)
    made = trainer(policy, maker, contrastive(data), norm_learns=True, batch=6)
    work = made.collect(0)
    heats = torch.cat([policy.look(prompt).heat for prompt, _ in work])  # type: ignore[arg-type]
    assert len(heats) > 1
    own = torch.nn.BatchNorm2d(1).double()
    normalised = own.train()(heats)
    seen: list[torch.Tensor] = []
    hook = policy.model.contrast.norm.register_forward_hook(lambda module, given, out: seen.append(out))
    made.accumulate(work, World(), 0)
    hook.remove()
    torch.testing.assert_close(torch.cat(seen[-len(work) :]), normalised, rtol=0, atol=1e-9)
    norm = policy.model.contrast.norm
    torch.testing.assert_close(norm.running_mean, own.running_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.running_var, own.running_var, rtol=0, atol=1e-9)
    assert int(norm.num_batches_tracked) == 1


def test_sft_leaves_the_statistics_alone(data: small.TrainingSet) -> None:
    policy, maker = small.policy(awake=True)
    head = policy.model.contrast.modules_to_save["default"]
    made = trainer(policy, maker, data.pairs())
    policy.model.train()
    made.accumulate(made.collect(0), World(), 0)
    assert head.norm.running_mean.item() == 0 and int(head.norm.num_batches_tracked) == 0


def test_two_shares_add_up_to_the_whole(data: small.TrainingSet) -> None:
    def gradients(world: World) -> dict[str, torch.Tensor]:
        policy, maker = small.policy(adapters=False)
        made = trainer(policy, maker, contrastive(data), world, norm_learns=True, batch=6)
        made.accumulate(made.collect(0), world, 0)
        return {name: p.grad for name, p in policy.learners().items() if p.grad is not None}

    whole_policy, maker = small.policy(adapters=False)
    whole = trainer(whole_policy, maker, contrastive(data), norm_learns=True, batch=6)
    sums: list[Any] = []

    class Watched(World):
        def add(self, tally: Any, device: Any) -> Any:
            sums.append(tally)
            return tally

    whole.accumulate(whole.collect(0), Watched(), 0)

    class Part(World):
        def add(self, tally: Any, device: Any) -> Any:
            return sums[0] if "n" not in tally else sums[1]

    wanted = {name: p.grad for name, p in whole_policy.learners().items() if p.grad is not None}
    one, two = gradients(Part(0, 2)), gradients(Part(1, 2))
    for name, value in wanted.items():
        torch.testing.assert_close(one[name] + two[name], value, rtol=1e-6, atol=1e-9)


def test_eight_samples_are_learnt_by_heart(data: small.TrainingSet) -> None:
    policy, maker = small.policy(dtype=torch.float32, lora_scope="language")
    made = trainer(policy, maker, data.pairs()[:3], batch=8, epochs=60, max_steps=60)
    optimiser = torch.optim.AdamW(policy.learners().values(), lr=0.02, weight_decay=0.0)
    for step in range(made.steps):
        optimiser.zero_grad()
        loss = made.accumulate(made.collect(step), World(), 0)["loss"]
        optimiser.step()
        if loss < 0.05:
            break
    assert loss < 0.05


def test_thoughts_need_rationales(tmp_path: Path) -> None:
    lines = small.rows(1)
    lines[1]["rationale"] = ""
    data = small.training_set(tmp_path, 1, lines)
    policy, maker = small.policy(adapters=False)
    with pytest.raises(BadInput, match="dl0 has no rationale"):
        trainer(policy, maker, data.pairs(), answers="think+letter")


def test_both_forms_are_learnt(data: small.TrainingSet) -> None:
    policy, maker = small.policy(adapters=False)
    made = trainer(policy, maker, data.pairs(), answers="both", epochs=1, max_steps=0)
    seen = [(sample.id, mode) for batch in made.batches for samples, mode in batch for sample in samples]
    assert set(seen) == {(one.id, mode) for one in data.samples for mode in ("direct", "think")}


def test_a_batch_holds_whole_pairs(data: small.TrainingSet) -> None:
    policy, maker = small.policy(adapters=False)
    made = trainer(policy, maker, data.pairs(), batch=4, max_steps=0, epochs=1)
    sizes = [sum(len(samples) for samples, _ in batch) for batch in made.batches]
    assert all(4 <= size <= 6 for size in sizes)
