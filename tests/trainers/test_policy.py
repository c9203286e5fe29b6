"""The policy's three verbs against plain forwards of the same network: exact, shared prefix or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emit_model import Contrast
from tests import tiny
from tests.trainers import small
from trainers.packing import Suffix
from trainers.policy import Policy
from trainers.prompts import Image, TrainingPrompt


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> small.TrainingSet:
    return small.training_set(tmp_path_factory.mktemp("set"))


def completions(*lengths: int, seed: int = 3) -> list[Suffix]:
    generator = torch.Generator().manual_seed(seed)
    return [Suffix((), tuple(torch.randint(20, 300, (n,), generator=generator).tolist())) for n in lengths]


def packed(policy: Policy, prompt: TrainingPrompt, responses: list[Suffix]) -> list[torch.Tensor]:
    """Log-probabilities by response, from one packed row."""
    logps, owners = policy.log_probs(
        prompt, policy.look(prompt), prompt.rows[0], responses, contrastive=int(prompt.contrastive[0])
    )
    return [logps[owners == i] for i in range(len(responses))]


def alone(policy: Policy, prompt: TrainingPrompt, response: Suffix) -> torch.Tensor:
    """The same from the model's own forward on one whole row, pixels and all."""
    ids = torch.tensor([[*prompt.rows[0], *response.completion]])
    pixels = torch.cat([image.pixels for image in prompt.images]).to(policy.model.dtype)
    extra = {"comparison_pixel_values": pixels.flip(0)[None]} if prompt.contrastive[0] else {}
    logits = policy.model(input_ids=ids, pixel_values=pixels, **extra).logits[0]
    first = len(prompt.rows[0]) - 1
    logps = logits[first:-1].log_softmax(-1)
    return logps.gather(-1, torch.tensor(response.completion)[:, None])[:, 0]


@pytest.mark.parametrize("scope", ["all", "language"])
@pytest.mark.parametrize("sample", [0, 2], ids=["contrastive", "plain"])
def test_one_packed_row_equals_separate_rows(data: small.TrainingSet, scope: str, sample: int) -> None:
    """Log-probabilities and gradients; responses of one token and of none among them.

    In double precision, but for the decoder's norms: they round to single, so gradients agree to 1e-4 of the
    largest, as a whole and not element by element.
    """
    policy, maker = small.policy(lora_scope=scope, awake=True)
    prompt = small.prompt(maker, [data.samples[sample]])
    responses = completions(5, 1, 0, 7)
    together = packed(policy, prompt, responses)
    separate = [alone(policy, prompt, response) for response in responses if response.completion]
    torch.testing.assert_close(torch.cat(together), torch.cat(separate), rtol=0, atol=1e-6)

    weights = torch.randn(13, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    learners = list(policy.learners().values())
    ours = torch.autograd.grad((torch.cat(together) * weights).sum(), learners, allow_unused=True)
    theirs = torch.autograd.grad((torch.cat(separate) * weights).sum(), learners, allow_unused=True)
    assert any(grad is not None and bool(grad.any()) for grad in theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert float((mine - other).norm()) <= 1e-4 * float(other.norm()) + 1e-12


def test_single_precision_keeps_the_promised_tolerance(data: small.TrainingSet) -> None:
    policy, maker = small.policy(dtype=torch.float32, awake=True)
    prompt = small.prompt(maker, [data.samples[0]])
    responses = completions(6, 4)
    separate = torch.cat([alone(policy, prompt, response) for response in responses])
    torch.testing.assert_close(torch.cat(packed(policy, prompt, responses)), separate, rtol=0, atol=1e-5)


def test_responses_do_not_see_each_other(data: small.TrainingSet) -> None:
    policy, maker = small.policy()
    prompt = small.prompt(maker, [data.samples[0]])
    first, second, other = *completions(5, 6), completions(6, seed=8)[0]
    with torch.no_grad():
        before, after = packed(policy, prompt, [first, second]), packed(policy, prompt, [first, other])
        swapped = packed(policy, prompt, [second, first])
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    torch.testing.assert_close(swapped, before[::-1], rtol=0, atol=1e-6)


def test_the_head_in_chunks_is_the_head_at_once(
    data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, maker = small.policy(awake=True)
    prompt = small.prompt(maker, [data.samples[0]])
    learners = list(policy.learners().values())
    whole = torch.cat(packed(policy, prompt, completions(5, 6)))
    wanted = torch.autograd.grad(whole.sum(), learners, allow_unused=True)
    monkeypatch.setattr("trainers.policy.HEAD_ROWS", 3)
    parts = torch.cat(packed(policy, prompt, completions(5, 6)))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-13)
    found = torch.autograd.grad(parts.sum(), learners, allow_unused=True)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-14)


def test_checkpointing_changes_no_gradient(data: small.TrainingSet) -> None:
    grads = []
    for on in (False, True):
        policy, maker = small.policy(awake=True, checkpointing=on)
        policy.model.train()
        prompt = small.prompt(maker, [data.samples[0]])
        policy.model.zero_grad()
        torch.cat(packed(policy, prompt, completions(5, 6))).sum().backward()
        grads.append({name: p.grad for name, p in policy.learners().items()})
    assert any(grad is not None for grad in grads[0].values())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


def test_adapters_off_is_the_model_before_them(data: small.TrainingSet) -> None:
    """Projector and soft prompt included: they are copies that learn, beside the originals."""
    plain, maker = small.policy(adapters=False)
    policy, _ = small.policy(awake=True)
    with torch.no_grad():
        policy.model.contrast.soft_prompt.add_(0.5)
        policy.model.contrast.conv.weight.mul_(1.5)
    prompt = small.prompt(maker, [data.samples[0]])
    responses = completions(5, 6)
    with torch.no_grad():
        wanted, learnt = packed(plain, prompt, responses), packed(policy, prompt, responses)
    with policy.reference():
        reference = packed(policy, prompt, responses)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(reference, wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(learnt[0], wanted[0], atol=1e-3)
    with torch.no_grad():
        again = packed(policy, prompt, responses)
    torch.testing.assert_close(again, learnt, rtol=0, atol=0)


def test_fresh_adapters_change_nothing(data: small.TrainingSet) -> None:
    policy, maker = small.policy()
    prompt = small.prompt(maker, [data.samples[0]])
    with torch.no_grad():
        on = packed(policy, prompt, completions(4))
    with policy.reference():
        off = packed(policy, prompt, completions(4))
    assert torch.equal(on[0], off[0])


def test_images_are_encoded_once_where_the_tower_is_frozen(data: small.TrainingSet) -> None:
    policy, maker = small.policy(lora_scope="language", awake=True)
    prompt = small.prompt(maker, [data.samples[0]])
    for _ in range(3):
        packed(policy, prompt, completions(4))
        with policy.reference():
            packed(policy, prompt, completions(4))
    assert policy.counts["images_encoded"] == 2 == len(prompt.images)


def test_a_tower_that_learns_is_asked_anew_and_its_reference_once(data: small.TrainingSet) -> None:
    policy, maker = small.policy(lora_scope="all", awake=True)
    prompt = small.prompt(maker, [data.samples[0]])
    for _ in range(3):
        packed(policy, prompt, completions(4))
        with policy.reference():
            packed(policy, prompt, completions(4))
    assert policy.counts["images_encoded"] == 3 * 2 + 2
    assert any("vision_tower" in name for name in policy.learners())


def test_what_is_kept_of_an_image_is_no_view_of_more(data: small.TrainingSet) -> None:
    """A view of the last tile would hold the hidden states of all tiles, on the GPU, uncounted."""
    policy, maker = small.policy(adapters=False)
    image = small.prompt(maker, [data.samples[0]]).images[0]
    tiles = Image("tiles", image.pixels.double().repeat(3, 1, 1, 1))
    encoded = policy._encode(tiles)
    held = sum(tensor.untyped_storage().nbytes() for tensor in encoded.tensors)
    assert held == sum(tensor.numel() * tensor.element_size() for tensor in encoded.tensors)
    assert policy.cache.bytes >= held


def test_rotated_references_take_part(data: small.TrainingSet) -> None:
    turned = Contrast(layers=(1, 2), window=1, soft_prompt_length=3, rotations=(0, 1, 2, 3))
    policy, maker = small.policy(adapters=False, contrast=turned)
    prompt = small.prompt(maker, [data.samples[0]])
    responses = completions(4)
    separate = alone(policy, prompt, responses[0])
    torch.testing.assert_close(packed(policy, prompt, responses)[0], separate, rtol=0, atol=1e-6)
    packed(policy, prompt, responses)
    assert policy.counts["reference_views_encoded"] == 4  # kept, like the images


def test_special_tokens_have_no_probability(data: small.TrainingSet) -> None:
    policy, _ = small.policy()
    logits = policy.logits(torch.randn(2, 48, dtype=torch.float64))
    image = policy.processor.image_token_id
    assert bool((logits[:, image] == -torch.inf).all())
    assert bool((logits[:, sorted(policy.ends)] > -torch.inf).all())
    free = policy.logits(torch.randn(2, 48, dtype=torch.float64), suppress=False)
    assert bool(free.isfinite().all())


def test_three_dimensional_positions_are_refused() -> None:
    model, parts = tiny.emit()
    model.model.language_model.config.rope_parameters["mrope_section"] = [2, 3, 3]
    with pytest.raises(ValueError, match="three-dimensional rotary positions"):
        Policy(model, parts)


def test_active_dropout_is_refused() -> None:
    model, parts = tiny.emit()
    model.model.vision_tower.extra = torch.nn.Dropout(0.1)
    with pytest.raises(ValueError, match=r"vision_tower\.extra drops out with p = 0\.1"):
        Policy(model, parts)


def test_text_only_samples_take_the_same_road(data: small.TrainingSet) -> None:
    policy, maker = small.policy(awake=True)
    prompt = small.prompt(maker, [data.samples[-1]])
    assert (len(prompt.images), prompt.contrastive) == (1, (False,))
    responses = completions(5)
    separate = alone(policy, prompt, responses[0])
    torch.testing.assert_close(packed(policy, prompt, responses)[0], separate, rtol=0, atol=1e-6)


def test_prompts_are_those_of_the_evaluation(data: small.TrainingSet, tmp_path: Path) -> None:
    """The ids of the trained prompt are the ids that the engine would ask."""
    from harness.records import Decoding, Item, Question
    from plugins.engine.model import SharedPrefixModel

    policy, maker = small.policy(adapters=False, dtype=torch.float32)
    asked: list[tuple[int, ...]] = []
    engine = SharedPrefixModel(policy.model, policy.processor)
    build = engine.prompts.build
    engine.prompts.build = lambda *given: asked.extend((tokens := build(*given)).rows) or tokens  # type: ignore[method-assign,func-returns-value]
    sample = data.samples[0]
    question = Question(0, sample.question, sample.options, sample.answer, sample.task, sample.task)
    assert sample.query is not None
    item = Item("x", "Parts", "part", sample.query, (), sample.references, (), (question,))
    (group,) = small.PROTOCOL.plan(item, {"Parts": {"part": {"good": "It is flat."}}})
    engine.answer(group.load(), Decoding("think", 1))
    assert tuple(asked) == small.prompt(maker, [sample]).rows


def test_several_questions_share_one_row(data: small.TrainingSet) -> None:
    """Supervised rows: questions behind a shared prefix, each with its own placeholders."""
    policy, maker = small.policy(awake=True)
    pair = [one for one in data.samples[:3]]
    prompt = small.prompt(maker, pair)
    answers = [maker.answer_ids(text) for text in ("A", "B", "A")]
    suffixes = [
        Suffix(tuple(row[prompt.shared :]), tuple(ids)) for row, ids in zip(prompt.rows, answers, strict=True)
    ]
    logps, owners = policy.log_probs(
        prompt, policy.look(prompt), prompt.rows[0][: prompt.shared], suffixes, contrastive=2
    )
    for number, sample in enumerate(pair):
        single = small.prompt(maker, [sample])
        separate = alone(policy, single, Suffix((), answers[number]))
        torch.testing.assert_close(logps[owners == number], separate, rtol=0, atol=1e-6)
