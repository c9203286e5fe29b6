"""Every family on the shared engine: it says what the model's own ``generate`` says, however it is asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness.errors import BadInput
from harness.records import Decoding, Picture
from plugins.checkpoint import Chat
from plugins.engine.attention import Sight, Tokens
from plugins.engine.decode import Generated
from plugins.engine.model import SharedPrefixModel
from plugins.engine.plain import PlainModel
from tests import families
from tests.plugins.asking import DIRECT, GROUPS, alone, asked, pair, picture, same

NAMES = tuple(families.FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_side_by_side_on_shared_prefixes_is_what_generate_says_alone(name: str) -> None:
    model, processor = families.build(name)
    shared, plain = SharedPrefixModel(model, processor), PlainModel(model, processor)
    texts = set()
    for mode in ("direct", "logits"):
        results = shared.answer_unit(GROUPS, replace(DIRECT, mode=mode))
        for group, result in zip(GROUPS, results, strict=True):
            assert not result.reason
            same(result.responses, plain.answer(group, replace(DIRECT, mode=mode)))
            texts |= {response.text for response in result.responses}
    assert len(texts) > 6  # there was something to get wrong
    assert shared.counters()["groups_verified"] == 2
    assert shared.counters()["sharing_turned_off"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_those_of_the_processor(name: str) -> None:
    """Ids built from cached pieces are the ids that the processor makes of the whole chat and all images."""
    model, processor = families.build(name)
    engine = SharedPrefixModel(model, processor)
    for group in (pair(5), alone(6)):
        planned = engine._plan(group, DIRECT, {})
        pictures = [part.pixels for part in group.content if isinstance(part, Picture)]
        for prompt, row in zip(group.prompts, planned.tokens.rows, strict=True):
            user = [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "image": part.pixels}
                for part in (*group.content, prompt.text)
            ]
            messages = [{"role": "user", "content": user}]
            if group.system:
                messages.insert(0, {"role": "system", "content": [{"type": "text", "text": group.system}]})
            text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = processor(text=[text], images=[pictures], text_kwargs={"add_special_tokens": False})[
                "input_ids"
            ]
            assert list(row) == list(ids[0])


@pytest.mark.parametrize("name", NAMES)
def test_answers_depend_on_every_image(name: str) -> None:
    """An image that is lost, or taken for another, would leave the answers as they are."""
    engine = SharedPrefixModel(*families.build(name))
    group = pair(1)
    scores = [engine.answer(group, Decoding("logits", 1))[0].option_logprobs]
    reference, query = group.references[0], group.query
    for first, second in ((picture(50), query), (reference, picture(51, 90, 60)), (query, reference)):
        content = ("First ", first, " and second ", second, group.content[-1])
        changed = replace(group, content=content, references=(first,), query=second, id="changed")
        scores.append(engine.answer(changed, Decoding("logits", 1))[0].option_logprobs)
    for number, one in enumerate(scores):
        assert all(one != pytest.approx(other, abs=1e-4) for other in scores[number + 1 :])


def test_one_vision_leaves_images_whole_beside_others() -> None:
    engine = SharedPrefixModel(*families.build("llava_onevision"))
    (query,) = [part for part in alone(1).content if isinstance(part, Picture)]
    single = engine._encode(query, False, {}).features.shape[0]
    beside = engine._encode(query, True, {}).features.shape[0]
    assert beside < single  # tiles and the whole image, against the whole image
    assert engine.counters()["images_encoded"] == 2
    engine._encode(query, True, {})
    assert engine.counters()["images_encoded"] == 2


def test_positions_in_three_axes_follow_the_images() -> None:
    engine = SharedPrefixModel(*families.build("qwen2_5_vl"))
    planned = engine._plan(pair(1), DIRECT, {})
    ids = torch.tensor([planned.tokens.rows[0][: planned.tokens.shared]])
    rope, moved = engine.wiring.positions(ids, planned.images)
    image = (ids == engine.model.config.image_token_id)[0]
    assert rope.shape == (3, 1, ids.shape[1])
    assert not torch.equal(rope[1, 0][image], rope[2, 0][image])  # rows and columns
    assert moved < 0  # an image takes fewer positions than it has tokens
    assert int(rope.max()) + 1 == ids.shape[1] + moved


def test_gemma_reads_an_image_both_ways_and_slides() -> None:
    engine = SharedPrefixModel(*families.build("gemma3"))
    window = engine.decoder.sight.window
    assert engine.decoder.sight.mixed and window is not None
    planned = engine._plan(pair(1), DIRECT, {})
    ids = torch.tensor([planned.tokens.rows[0]])
    assert ids.shape[1] > 3 * window  # so that the window does cut
    blocks = engine.wiring.blocks(ids)
    assert blocks is not None and blocks.max() == 2  # two images
    tokens = Tokens.prefixes([ids.shape[1]], ids.device)
    masks = engine.decoder.sight.mask(tokens, tokens, torch.float32, blocks)
    full, near = masks["full_attention"][0, 0], masks["sliding_attention"][0, 0]
    first, last = (blocks == 1).nonzero()[0].item(), (blocks == 1).nonzero()[-1].item()
    other = (blocks == 2).nonzero()[0].item()
    assert full[first, last] and not full[first, other]
    assert near[first, last] and not near[-1, 0] and full[-1, 0]


def test_eager_masks_say_what_boolean_ones_say() -> None:
    model, processor = families.build("gemma3")
    wanted = SharedPrefixModel(model, processor).answer(pair(1), DIRECT)
    model.set_attn_implementation("eager")
    assert not Sight(model.model.language_model.config).boolean
    same(SharedPrefixModel(model, processor).answer(pair(1), DIRECT), wanted)


class Tight(SharedPrefixModel):
    """On a device that holds few rows at a time; what it raises is what torch raises."""

    rows = 2

    def _run(self, rows: Any, decoding: Decoding) -> Any:
        if len(rows) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super()._run(rows, decoding)


def test_a_batch_that_does_not_fit_is_split_and_counted() -> None:
    parts = families.build("qwen2_5_vl")
    wanted = SharedPrefixModel(*parts).answer_unit(GROUPS, DIRECT)
    tight = Tight(*parts)
    found = tight.answer_unit(GROUPS, DIRECT)
    for one, other in zip(found, wanted, strict=True):
        same(one.responses, other.responses)
    assert tight.counters()["batches_split"] > 2
    tight.rows = 0
    assert all("out of memory on a single prompt" in one.reason for one in tight.answer_unit(GROUPS, DIRECT))


class Broken(SharedPrefixModel):
    """Cannot compute one of its groups."""

    def _prefill(self, row: Any, shared: int) -> Any:
        if row.planned.group.id == "pair-3":
            raise RuntimeError("The expanded size of the tensor (11) must match the existing size (5)")
        return super()._prefill(row, shared)


def test_a_group_that_cannot_be_computed_fails_alone() -> None:
    parts = families.build("internvl")
    wanted = SharedPrefixModel(*parts).answer_unit(GROUPS, DIRECT)
    for found, good in zip(Broken(*parts).answer_unit(GROUPS, DIRECT), wanted, strict=True):
        if found.id == "pair-3":
            assert found.reason.startswith("RuntimeError: The expanded size")
        else:
            same(found.responses, good.responses)


def test_images_that_touch_in_a_bare_prompt_fail_alone() -> None:
    """The model's own rule of positions takes them for one image."""
    engine = SharedPrefixModel(*families.build("qwen2_5_vl"))
    first, second = picture(1), picture(2)
    touching = replace(pair(1), content=(first, second), query=second, raw=True, id="touching")
    results = engine.answer_unit((touching, pair(3)), DIRECT)
    assert results[0].reason and not results[1].reason


def test_groups_without_names_keep_their_own_answers() -> None:
    engine = SharedPrefixModel(*families.build("internvl"))
    wanted = [engine.answer(group, DIRECT) for group in (pair(1), pair(3))]
    nameless = [replace(group, id="", prompts=asked("same")) for group in (pair(1), pair(3))]
    for found, good in zip(engine.answer_unit(nameless, DIRECT), wanted, strict=True):
        same(found.responses, good)


class Full(SharedPrefixModel):
    """Its tower runs out of memory while features are kept."""

    def _encode(self, *args: Any) -> Any:
        encode = self.wiring.encode

        def fails(prepared: Any) -> Any:
            if self.cache.bytes:
                raise RuntimeError("CUDA error: out of memory")
            return encode(prepared)

        self.wiring.encode = fails  # type: ignore[method-assign]
        try:
            return super()._encode(*args)
        finally:
            self.wiring.encode = encode  # type: ignore[method-assign]


def test_features_make_room_for_an_image() -> None:
    parts = families.build("internvl")
    same(Full(*parts).answer(pair(1), DIRECT), SharedPrefixModel(*parts).answer(pair(1), DIRECT))


class Mixing(SharedPrefixModel):
    """Prefills one prefix for all groups of a unit: a cache that takes different images for the same."""

    def _prefill(self, row: Any, shared: int) -> Any:
        if not row.shared:
            return super()._prefill(row, shared)
        self.kept = getattr(self, "kept", None) or super()._prefill(row, shared)
        return self.kept


def test_sharing_that_goes_wrong_is_noticed_and_turned_off(capsys: pytest.CaptureFixture[str]) -> None:
    parts = families.build("internvl")
    groups = (pair(1), pair(3))
    wanted = SharedPrefixModel(*parts, share_prefix=False).answer_unit(groups, DIRECT)
    mixing = Mixing(*parts)
    for one, other in zip(mixing.answer_unit(groups, DIRECT), wanted, strict=True):
        same(one.responses, other.responses)
    assert "sharing is off now" in capsys.readouterr().err
    assert mixing.counters()["sharing_turned_off"] == 1 and not mixing.share_prefix
    before = mixing.counters()["prefix_tokens"]
    mixing.answer_unit(groups, DIRECT)
    assert mixing.counters()["prefix_tokens"] == before  # it stays off


def test_every_group_can_be_verified() -> None:
    engine = SharedPrefixModel(*families.build("internvl"), verify=True)
    engine.answer_unit(GROUPS, DIRECT)
    engine.answer_unit(GROUPS, DIRECT)
    assert engine.counters()["groups_verified"] == 8
    plain = SharedPrefixModel(*families.build("internvl"))
    plain.answer_unit(GROUPS, DIRECT)
    plain.answer_unit(GROUPS, DIRECT)
    names = ("prefix_tokens", "suffix_tokens", "decoded_tokens", "images_encoded")
    assert all(engine.counters()[name] == plain.counters()[name] for name in names)  # the check counts apart


def test_scores_that_are_no_numbers_count_as_a_difference() -> None:
    from plugins.engine.verify import Verifier

    good = Generated((), 0, True, torch.tensor([0.5, 0.5]).log())
    bad = Generated((), 0, True, torch.tensor([float("nan"), 0.0]))
    flat = Generated((), 0, True, torch.full((200_000,), -12.2))  # of a large vocabulary, none likely
    assert all(Verifier(torch.float32).agrees({"a": one}, {"a": one}) for one in (good, bad, flat))
    assert not Verifier(torch.float32).agrees({"a": bad}, {"a": good})


def test_scores_that_are_no_numbers_are_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    model, processor = families.build("gemma3")
    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("inf"))  # half precision overflows like this
    result, *_ = SharedPrefixModel(model, processor).answer_unit(GROUPS, DIRECT)
    assert {response.reason for response in result.responses} == {
        "its scores are no numbers; try --dtype bfloat16"
    }
    assert "sharing is off" not in capsys.readouterr().err


def test_a_unit_whose_group_cannot_be_asked_answers_the_others() -> None:
    engine = SharedPrefixModel(*families.build("pixtral"))
    bad = replace(pair(1), prompts=asked("bad", ("What is [IMG]?",)), id="bad")
    results = engine.answer_unit((pair(1), bad, pair(3)), DIRECT)
    assert [bool(result.reason) for result in results] == [False, True, False]
    assert "control token '[IMG]'" in results[1].reason


def test_what_a_thinking_model_needs() -> None:
    """Room for its thought, an opening behind which a letter comes, and the box around its answer."""
    model, processor = families.build("glm4v")
    chat = Chat(("<|begin_of_box|>",), {"logits": "<think></think><answer>"}, {"direct": 14})
    engine, plain = (kind(model, processor, chat=chat) for kind in (SharedPrefixModel, PlainModel))
    same(engine.answer(pair(1), DIRECT), plain.answer(pair(1), DIRECT))
    assert max(response.completion_tokens for response in engine.answer(pair(1), DIRECT)) == 14
    scored, bare = (
        one.answer(pair(1), Decoding("logits", 1)) for one in (engine, SharedPrefixModel(model, processor))
    )
    same(scored, plain.answer(pair(1), Decoding("logits", 1)))
    assert scored[0].prompt_tokens > bare[0].prompt_tokens
    processor.tokenizer.add_tokens(["<|begin_of_box|>", "<|end_of_box|>"], special_tokens=True)
    prompts = SharedPrefixModel(model, processor, chat=chat).prompts
    ids = prompts.tokenizer("<|begin_of_box|>B", add_special_tokens=False)["input_ids"]
    assert prompts.decode(ids) == "<|begin_of_box|>B"


def test_a_processor_that_cannot_spell_its_images_is_refused() -> None:
    model, processor = families.build("internvl")
    engine = SharedPrefixModel(model, processor)
    engine._encode(picture(1), False, {})
    engine.wiring._own.processor.tokenizer.decode = lambda ids, **_: "something else"
    with pytest.raises(BadInput, match="does not spell an image's tokens"):
        engine._encode(picture(2), False, {})
