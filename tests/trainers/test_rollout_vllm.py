"""vLLM beside the policy: the decoder it is given, and draws that agree with the policy's own sampler.

What needs no vLLM runs everywhere; the rest in an environment that has it, for it wants an older
transformers.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from harness.errors import BadInput
from harness.records import LoadRequest
from plugins.vllm_backend.decoder import export_decoder
from plugins.weights import resolve
from tests import tiny
from tests.trainers import small
from trainers import grpo
from trainers.adapters import attach
from trainers.distributed import World
from trainers.feed import Feed
from trainers.packing import Suffix
from trainers.policy import Policy
from trainers.prompts import PromptMaker, TrainingPrompt
from trainers.rewards import Reward
from trainers.rollout import Completion, TorchSampler, response_seed
from trainers.rollout_vllm import VllmSampler, decoder_adapters, write_adapters
from trainers.settings import RolloutSettings, Settings
from trainers.training import new_emit

ROWS = [0, 1, 2]


@pytest.fixture(scope="module", autouse=True)
def _heads_of_32() -> Iterator[None]:
    """The smallest attention heads that vLLM computes on CPU."""
    original = tiny.config

    def wide(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        text: Any = found.text_config
        text.hidden_size, text.num_attention_heads, text.num_key_value_heads = 64, 2, 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "config", wide)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> small.TrainingSet:
    """Questions whose prompts fill more than one block of vLLM's cache, which has 128 tokens on CPU."""
    lines = [{**line, "knowledge": ["It is a flat metal part. " * 8]} for line in small.rows(1)]
    return small.training_set(tmp_path_factory.mktemp("set"), 1, lines)


def seeds(count: int, attempt: int = 0) -> list[list[bytes]]:
    return [[response_seed(1, 2, f"q{row}", attempt, number) for number in range(count)] for row in ROWS]


def scored(
    policy: Policy, prompt: TrainingPrompt, row: int, drawn: Sequence[Completion], temperature: float = 1.0
) -> torch.Tensor:
    """The scorer's log-probabilities of one question's responses, from one packed row."""
    with torch.no_grad():
        logps, _ = policy.log_probs(
            prompt,
            policy.look(prompt),
            prompt.rows[row],
            [Suffix((), one.ids) for one in drawn],
            contrastive=int(prompt.contrastive[row]),
            temperature=temperature,
            suppress=True,
        )
    return logps


# What vLLM is given; read back with transformers and peft.


def same_logits(policy: Policy, prompt: TrainingPrompt, folder: Path) -> None:
    """The exported decoder with the exported adapters says what the policy says, and so without them."""
    from peft import PeftModel

    with torch.no_grad():
        embeds = policy.embed(prompt, policy.look(prompt), 0)
        learnt = policy.model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        with policy.reference():
            plain = policy.model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        wanted = [policy.logits(states[0], suppress=False) for states in (plain, learnt)]
        decoder: Any = AutoModelForCausalLM.from_pretrained(folder / "decoder", dtype=embeds.dtype)
        found = [decoder(inputs_embeds=embeds).logits[0]]
        adapted: Any = PeftModel.from_pretrained(decoder, str(folder / "v1"))
        found.append(adapted(inputs_embeds=embeds).logits[0])
    assert float((wanted[1] - wanted[0]).abs().max()) > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_decoder_and_adapters_are_the_policys(
    data: small.TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool
) -> None:
    config = tiny.config
    monkeypatch.setattr(tiny, "config", lambda vocabulary: config(vocabulary, tied=tied))
    policy, maker = small.policy(dtype=torch.float32, awake=True)
    decoder = export_decoder(policy.model, tmp_path / "decoder")
    assert (decoder / "lm_head.weight.safetensors").exists() != tied
    write_adapters(policy, decoder_adapters(policy), tmp_path / "v1")
    same_logits(policy, small.prompt(maker, data.samples[:1]), tmp_path)


def test_a_4_bit_base_is_handed_over_dequantised(data: small.TrainingSet, tmp_path: Path) -> None:
    """The policy computes with exactly these weights, so nothing is lost."""
    pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes")
    folder = tiny.save(tmp_path / "base", *tiny.internvl())
    base = resolve("base", "internvl", LoadRequest(world="mini", weights=str(folder)), {})
    chosen = Settings().replaced({"model.layers": (1, 2), "model.window": 1, "model.quantise": "nf4"})
    model, parts = new_emit(base, chosen, torch.device("cpu"), "float32")
    model.train()  # bitsandbytes repacks its weights for inference on CPU otherwise
    policy = Policy(model, parts, attach(model, chosen.model, seed=1))
    small.wake(model)
    export_decoder(policy.model, tmp_path / "decoder")
    write_adapters(policy, decoder_adapters(policy), tmp_path / "v1")
    maker = PromptMaker(parts, small.PROTOCOL, model.config.placeholders, 1)
    same_logits(policy, small.prompt(maker, data.samples[:1]), tmp_path)


def test_adapters_of_the_tower_stay_here() -> None:
    policy, _ = small.policy(dtype=torch.float32, lora_scope="all")
    assert len(decoder_adapters(policy)) == 2 * 2 * 7
    plain, _ = small.policy(dtype=torch.float32, adapters=False)
    assert decoder_adapters(plain) == {}


def test_missing_vllm_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    policy, _ = small.policy(dtype=torch.float32)
    with pytest.raises(BadInput, match=r"cannot be imported \(.*\); install it with .*emit-bench\[vllm\]"):
        VllmSampler(policy, RolloutSettings())


# What vLLM draws.


@dataclass
class Scene:
    policy: Policy
    prompt: TrainingPrompt
    sampler: VllmSampler
    maker: PromptMaker

    def draw(self, parts: Sequence[Sequence[bytes]], rows: Sequence[int] = ROWS) -> list[list[Completion]]:
        return self.sampler.sample(self.prompt, self.policy.look(self.prompt), rows, parts)


@pytest.fixture(scope="module")
def engine(data: small.TrainingSet) -> Scene:
    pytest.importorskip("vllm", reason="vLLM is not installed; it needs an environment of its own")
    policy, maker = small.policy(dtype=torch.float32, awake=True)
    sampler = VllmSampler(policy, RolloutSettings(), cache_bytes=64 << 20)
    return Scene(policy, small.prompt(maker, data.samples[:3]), sampler, maker)


@pytest.fixture
def scene(engine: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One engine for all tests; every one begins with the same adapters, and settings of its own."""
    small.wake(engine.policy.model)
    engine.sampler.updated()
    monkeypatch.setattr(engine.sampler, "settings", RolloutSettings(max_new_tokens=12))
    monkeypatch.setattr(engine.policy, "counts", Counter())
    return engine


def change(scene: Scene, **settings: Any) -> None:
    scene.sampler.settings = replace(scene.sampler.settings, **settings)


pytestmark = pytest.mark.timeout(600)
slow = pytest.mark.slow


@slow
def test_greedy_tokens_are_the_torch_samplers_before_and_after_an_update(scene: Scene) -> None:
    change(scene, top_k=1)
    ours = TorchSampler(scene.policy, scene.sampler.settings)

    def both() -> list[list[tuple[int, ...]]]:
        found = []
        for drawn in (
            scene.draw(seeds(2)),
            ours.sample(scene.prompt, scene.policy.look(scene.prompt), ROWS, seeds(2)),
        ):
            found.append([one.ids for part in drawn for one in part])
        return found

    vllms, torchs = both()
    assert vllms == torchs
    small.wake(scene.policy.model, 0.2)
    scene.sampler.updated()
    later, wanted = both()
    assert later == wanted
    assert later != vllms


@slow
def test_adapters_are_handed_over_only_when_they_have_changed(scene: Scene) -> None:
    version, folder = scene.sampler.version, scene.sampler.folder
    scene.sampler.updated()
    assert scene.sampler.version == version
    with torch.no_grad():
        scene.policy.model.contrast.modules_to_save["default"].soft_prompt.add_(0.0)
        for name, parameter in scene.policy.model.named_parameters():
            if "vision_tower" in name and "lora_B" in name:
                parameter.add_(0.01)  # seen in the embeddings
    scene.sampler.updated()
    assert scene.sampler.version == version
    small.wake(scene.policy.model, 0.1)
    scene.sampler.updated()
    assert scene.sampler.version == version + 1
    assert [path.name for path in folder.iterdir()] == [f"v{version + 1}"]
    assert scene.sampler.engine.llm_engine.list_loras() == {version + 1}


@slow
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_probabilities_are_the_scorers(scene: Scene, temperature: float) -> None:
    change(scene, temperature=temperature)
    for row, drawn in enumerate(scene.draw(seeds(4))):
        recorded = torch.cat([one.logps for one in drawn])
        wanted = scored(scene.policy, scene.prompt, row, drawn, temperature)
        assert recorded.dtype == torch.float32
        torch.testing.assert_close(recorded, wanted, rtol=0, atol=1e-3)


@slow
def test_first_tokens_are_distributed_as_the_scorer_says(scene: Scene) -> None:
    """Frequencies of 600 draws within five standard errors, so seeds do not draw alike."""
    change(scene, max_new_tokens=1)
    count = 600
    numbered = [[response_seed(3, 0, "one", 0, number) for number in range(count)]]
    found = Counter(one.ids[0] for one in scene.draw(numbered, rows=[0])[0])
    with torch.no_grad():
        embeds = scene.policy.embed(scene.prompt, scene.policy.look(scene.prompt), 0)
        states = scene.policy.model.model.language_model(inputs_embeds=embeds).last_hidden_state
        shares = scene.policy.logits(states[0, -1:])[0].double().softmax(-1)
    drawn = torch.tensor([found[token] for token in range(len(shares))]) / count
    error = (shares * (1 - shares) / count).sqrt()
    assert bool(((drawn - shares).abs() <= 5 * error + 1 / count).all())


@slow
def test_a_response_is_a_function_of_its_seed_alone(scene: Scene) -> None:
    four, again, two = scene.draw(seeds(4)), scene.draw(seeds(4)), scene.draw(seeds(2))
    for part, same, fewer in zip(four, again, two, strict=True):
        ids = [one.ids for one in part]
        assert len(set(ids)) == 4
        assert [one.ids for one in same] == ids
        assert [one.ids for one in fewer] == ids[:2]
    alone = scene.draw(seeds(4)[1:2], rows=[1])[0]
    assert [one.ids for one in alone] == [one.ids for one in four[1]]
    other = scene.draw(seeds(4, attempt=1))
    assert not {one.ids for part in other for one in part} & {one.ids for part in four for one in part}


@slow
def test_the_first_end_token_ends_and_is_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    free = scene.draw(seeds(4))
    end = free[0][0].ids[3]
    monkeypatch.setattr(scene.policy, "ends", scene.policy.ends | {end})
    for before, after in zip(chain(*free), chain(*scene.draw(seeds(4))), strict=True):
        wanted = before.ids[: before.ids.index(end) + 1] if end in before.ids else before.ids
        assert after.ids == wanted
        assert after.ended == (end in before.ids or before.ended)
        torch.testing.assert_close(after.logps, before.logps[: len(wanted)], rtol=0, atol=1e-4)


@slow
def test_special_tokens_are_never_drawn(scene: Scene) -> None:
    """As hot as vLLM allows: without suppression more than one draw in a hundred would be special."""
    change(scene, temperature=2.0, max_new_tokens=64)
    banned = set(scene.policy.suppressed.tolist())
    assert scene.policy.processor.image_token_id in banned
    drawn = {token for part in scene.draw(seeds(8)) for one in part for token in one.ids}
    assert len(drawn) > 200
    assert not banned & drawn


@slow
def test_full_blocks_of_a_prompt_are_computed_once_by_each_adapter(scene: Scene) -> None:
    """Blocks of 128 tokens: the questions share their first, and no prompt fills a second."""
    for scale in (0.06, 0.07):
        small.wake(scene.policy.model, scale)
        scene.sampler.updated()
        scene.policy.counts.clear()
        drawn = scene.draw(seeds(8))
        lengths = [len(row) for row in scene.prompt.rows]
        assert scene.prompt.shared >= 128 and max(lengths) < 256
        assert scene.policy.counts["prefilled_tokens"] == 128 + 8 * sum(length - 128 for length in lengths)
        assert scene.policy.counts["decoded_tokens"] == sum(len(one.ids) for part in drawn for one in part)


@slow
def test_a_prompt_that_does_not_fit_is_one_sentence(scene: Scene) -> None:
    change(scene, max_new_tokens=4096)
    with pytest.raises(BadInput, match=r"prompt of ad0 has \d+ tokens; .* room for \(\d+\)"):
        scene.draw(seeds(1))


@slow
def test_grpo_learns_from_what_the_policy_of_every_step_draws(
    scene: Scene, data: small.TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps large enough that yesterday's adapters would give other probabilities."""

    def by_length(text: str, answer: str, *args: Any, **kwargs: Any) -> Reward:
        return Reward(1.0, 0.0, len(text) / 10, 0.0, float(len(text)))

    monkeypatch.setattr(grpo, "reward", by_length)
    plain = {"rollout.max_new_tokens": 12, "rollout.group": 4, "grpo.batch": 8, "grpo.epochs": 4}
    made = grpo.Grpo(
        scene.policy,
        scene.sampler,
        Feed(scene.maker, workers=0),
        data.pairs(),
        Settings().replaced(plain),
        World(),
    )
    optimiser = torch.optim.SGD(scene.policy.learners().values(), lr=0.5)
    version = scene.sampler.version
    for step in range(3):
        optimiser.zero_grad()
        report = made.report(made.accumulate(made.collect(step), World(), 0))
        assert report["sampler_gap"] < 1e-4
        optimiser.step()
    assert scene.sampler.version == version + 2
