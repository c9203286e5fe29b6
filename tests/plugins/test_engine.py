"""Answers on the shared prefix against Hugging Face's own generate, one plain prompt at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import Any

import pytest
import torch

from emit_model import COMP_TOKEN, Contrast
from harness.errors import BadInput
from harness.records import Decoding, Picture, Prompt, PromptGroup, Response
from plugins.checkpoint import tiled
from plugins.engine.emit import EmitWiring
from plugins.engine.model import SharedPrefixModel
from tests import tiny

OPTIONS = {"A": "Yes", "B": "No", "C": "Perhaps"}
DIRECT = Decoding("direct", 12)


def picture(seed: int, width: int = 60, height: int = 60) -> Picture:
    return Picture(f"digest-{seed}", tiny.image(seed, width, height))


def prompt(name: str, text: str, contrastive: bool = False) -> Prompt:
    return Prompt(name, text, OPTIONS, contrastive)


PROMPTS = (
    prompt("a", "\n\nQuestion: Any defect?\nA. Yes\nB. No\n", contrastive=True),
    prompt("b", "\n\nQuestion: What is it?\nA. A\n"),
    prompt(
        "c",
        "\n\nQuestion: Where is the defect, in which part of the image?\nA. Left\nB. Top\n",
        contrastive=True,
    ),
    prompt("d", "\n\nQuesting for oil"),
)
REFERENCE, QUERY = picture(0), picture(1, 130, 60)
PAIR = PromptGroup(
    "You inspect.", ("Image-1: ", REFERENCE, "\nImage-2: ", QUERY, "\nAnswer."), (REFERENCE,), QUERY, PROMPTS
)
ALONE = replace(
    PAIR,
    content=("Query image: ", QUERY, "\nAnswer."),
    references=(),
    prompts=tuple(replace(p, contrastive=False) for p in PROMPTS),
)
NO_SYSTEM = replace(PAIR, system="", content=(REFERENCE, QUERY))


def build(kind: str, tiles: int = 1, share: bool = True, **options: Any) -> SharedPrefixModel:
    model, parts = (tiny.emit if kind == "emit" else tiny.internvl)(**options)
    return SharedPrefixModel(model, parts, images=tiled(tiles), share_prefix=share)


def plain_generate(
    runner: SharedPrefixModel, group: PromptGroup, index: int, tokens: int
) -> tuple[str, torch.Tensor]:
    """Text and first log-probabilities by processor and generate alone."""
    asked, model, parts = group.prompts[index], runner.model, runner.processor
    text = asked.text
    emit = isinstance(runner.wiring, EmitWiring) and asked.contrastive
    if emit:
        text += COMP_TOKEN * model.config.placeholders
    user = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in (*group.content, text)
    ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": user}]
    if group.system:
        messages.insert(0, {"role": "system", "content": group.system})
    chat = parts.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [part for part in group.content if isinstance(part, Picture)]
    tiling = runner.wiring.images
    batch = dict(parts(text=chat, images=[p.pixels for p in pictures], return_tensors="pt", **tiling))
    if emit:
        whole = [
            parts.image_processor(images=[p.pixels], return_tensors="pt", crop_to_patches=False)[
                "pixel_values"
            ]
            for p in (group.query, *group.references)
        ]
        batch["comparison_pixel_values"] = torch.cat(whole)[None]
    made = model.generate(
        **batch, max_new_tokens=tokens, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    answer = made.sequences[0, batch["input_ids"].shape[1] :]
    return parts.decode(answer, skip_special_tokens=True), made.logits[0][0].log_softmax(-1)


def same(first: list[Response], second: list[Response], within: float = 1e-5) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.text == other.text
        assert one.prompt_tokens == other.prompt_tokens
        assert one.option_logprobs is not None and other.option_logprobs is not None
        assert one.option_logprobs == pytest.approx(other.option_logprobs, rel=within, abs=within)


@pytest.mark.parametrize("kind", ["internvl", "emit"])
@pytest.mark.parametrize("tiles", [1, 4])
@pytest.mark.parametrize("group", [PAIR, ALONE, NO_SYSTEM], ids=["pair", "alone", "no-system"])
def test_shared_unshared_and_plain_generate_agree(kind: str, tiles: int, group: PromptGroup) -> None:
    shared, unshared = build(kind, tiles), build(kind, tiles, share=False)
    answers = shared.answer(group, DIRECT)
    same(answers, unshared.answer(group, DIRECT))
    letters = shared.prompts.tokenizer.convert_tokens_to_ids(list(OPTIONS))
    for index, response in enumerate(answers):
        text, scores = plain_generate(shared, group, index, DIRECT.max_new_tokens)
        assert response.text == text
        assert response.option_logprobs == pytest.approx(
            dict(zip(OPTIONS, scores[letters].tolist(), strict=True)), rel=1e-5, abs=1e-5
        )


def test_bundled_prompts_have_unequal_lengths_and_differ_in_their_answers() -> None:
    """Guards the test above against passing for want of anything to get wrong."""
    runner = build("emit")
    answers = runner.answer(PAIR, DIRECT)
    assert len({response.prompt_tokens for response in answers}) == len(PROMPTS)
    assert len({response.text for response in answers}) == len(PROMPTS)


@pytest.mark.parametrize("kind", ["internvl", "emit"])
def test_logits_mode_gives_the_best_letter_without_decoding(kind: str) -> None:
    runner = build(kind)
    direct, scored = runner.answer(PAIR, DIRECT), runner.answer(PAIR, Decoding("logits", 1))
    before = runner.counters()["decoded_tokens"]
    for one, other in zip(direct, scored, strict=True):
        assert other.option_logprobs == pytest.approx(one.option_logprobs, abs=1e-6)
        assert other.option_logprobs is not None
        assert other.option_logprobs[other.text] == max(other.option_logprobs.values())
        assert other.completion_tokens == 0
    assert before == sum(response.completion_tokens for response in direct)


def test_think_mode_records_no_option_scores() -> None:
    assert all(r.option_logprobs is None for r in build("internvl").answer(PAIR, Decoding("think", 3)))


@pytest.mark.parametrize("kind", ["internvl", "emit"])
def test_answers_do_not_depend_on_which_questions_travel_together(kind: str) -> None:
    runner = build(kind)
    together = runner.answer(PAIR, DIRECT)
    same(runner.answer(replace(PAIR, prompts=PROMPTS[::-1]), DIRECT), together[::-1])
    for index, asked in enumerate(PROMPTS):
        same(runner.answer(replace(PAIR, prompts=(asked,)), DIRECT), [together[index]])


def test_counters_are_exact() -> None:
    runner = build("emit")
    answers = runner.answer(PAIR, DIRECT)
    counts = runner.counters()
    rows = [response.prompt_tokens for response in answers]
    assert counts["images_encoded"] == 2
    assert counts["suffix_tokens"] == sum(rows) - len(rows) * counts["prefix_tokens"]
    assert counts["decoded_tokens"] == sum(response.completion_tokens for response in answers)
    # "Quest" is shared by all four questions, "ion" is not; whatever was merged, images are in the prefix.
    assert counts["prefix_tokens"] > 2 * 4 + 20
    runner.answer(PAIR, DIRECT)
    again = runner.counters()
    assert again["images_encoded"] == 2
    assert again["prefix_tokens"] == 2 * counts["prefix_tokens"]

    alone = build("emit", share=False)
    alone.answer(PAIR, DIRECT)
    assert alone.counters()["prefix_tokens"] == 0
    assert alone.counters()["suffix_tokens"] == sum(rows)


def test_a_reference_shared_by_the_next_pair_is_not_encoded_again() -> None:
    runner = build("emit")
    runner.answer(PAIR, DIRECT)
    other = picture(2)
    runner.answer(replace(PAIR, content=(REFERENCE, other), query=other), DIRECT)
    assert runner.counters()["images_encoded"] == 3


def test_the_same_image_twice_is_encoded_once() -> None:
    runner = build("internvl")
    twin = Picture(REFERENCE.digest, REFERENCE.pixels.copy())
    runner.answer(replace(PAIR, content=(REFERENCE, twin), query=twin), DIRECT)
    assert runner.counters()["images_encoded"] == 1


def free_ids(runner: SharedPrefixModel) -> list[tuple[int, ...]]:
    """Ids of all answers on PAIR, as the decoder returns them."""
    kept: list[tuple[int, ...]] = []
    decode = runner.decoder.decode

    def spy(*args: Any) -> Any:
        found = decode(*args)
        kept.extend(row.ids for rows in found for row in rows if row.ids)  # not those of the self-test
        return found

    runner.decoder.decode = spy  # type: ignore[method-assign]
    runner.answer(PAIR, DIRECT)
    return kept


def test_every_end_token_ends_an_answer_and_the_others_go_on_as_they_were() -> None:
    free = free_ids(build("internvl"))
    assert all(len(ids) == DIRECT.max_new_tokens for ids in free)
    stops = [free[0][2], free[2][7]]  # further end tokens of the generation configuration
    runner = build("internvl", eos=stops)
    answers = runner.answer(PAIR, DIRECT)
    lengths = set()
    for ids, response in zip(free, answers, strict=True):
        wanted = tuple(takewhile(lambda token: token not in stops, ids))
        assert response.text == runner.prompts.decode(wanted)
        assert response.truncated == (len(wanted) == len(ids))
        assert response.completion_tokens == len(wanted) + (not response.truncated)
        lengths.add(response.completion_tokens)
    assert len(lengths) > 2  # rows did leave at different steps


def test_sampling_repeats_with_its_seed_and_does_not_depend_on_company() -> None:
    runner = build("internvl")
    warm = Decoding("think", 12, temperature=1.0, seed=1)
    first = [r.text for r in runner.answer(PAIR, warm)]
    assert [r.text for r in runner.answer(PAIR, warm)] == first
    assert [r.text for r in runner.answer(replace(PAIR, prompts=PROMPTS[2:3]), warm)] == first[2:3]
    assert [r.text for r in runner.answer(PAIR, replace(warm, seed=2))] != first
    cold = [r.text for r in runner.answer(PAIR, replace(warm, temperature=1e-6))]
    assert cold == [r.text for r in runner.answer(PAIR, DIRECT)]


def test_sampling_follows_the_distribution() -> None:
    from plugins.engine.decode import _Row

    row = _Row(frozenset(), Decoding("think", 1, temperature=2.0), "key")
    logits = torch.tensor([0.0, 2.0, 4.0, -torch.inf])
    for _ in range(3000):
        row.ids.append(row.draw(logits))
    shares = torch.bincount(torch.tensor(row.ids), minlength=4) / len(row.ids)
    torch.testing.assert_close(shares, (logits / 2).softmax(0), atol=0.03, rtol=0)
    assert shares[3] == 0


@pytest.mark.parametrize("token", ["<IMG_CONTEXT>", "<|im_end|>", "<img>", COMP_TOKEN])
def test_control_tokens_in_a_question_are_refused(token: str) -> None:
    group = replace(PAIR, prompts=(prompt("x", f"What is {token}?"),))
    with pytest.raises(BadInput, match="control token"):
        build("emit").answer(group, DIRECT)


def test_logits_mode_refuses_options_without_a_token_of_their_own() -> None:
    group = replace(PAIR, prompts=(replace(PROMPTS[0], options={"A": "x", "AB~": "y"}),))
    with pytest.raises(BadInput, match="--mode direct"):
        build("internvl").answer(group, Decoding("logits", 1))
    assert build("internvl").answer(group, DIRECT)[0].option_logprobs is None


def test_a_closed_model_holds_no_memory() -> None:
    runner = build("internvl")
    runner.answer(PAIR, DIRECT)
    assert runner.cache.bytes > 0
    runner.close()
    assert runner.cache.bytes == 0


class TestEmit:
    def test_only_contrastive_prompts_carry_placeholders(self) -> None:
        base, emit = build("internvl"), build("emit")
        placeholders = emit.model.config.placeholders
        for plain, own, asked in zip(
            base.answer(PAIR, DIRECT), emit.answer(PAIR, DIRECT), PROMPTS, strict=True
        ):
            assert own.prompt_tokens - plain.prompt_tokens == (placeholders if asked.contrastive else 0)

    def test_the_reference_decides_contrastive_answers_only(self) -> None:
        """What is compared can differ from what is shown: then only contrastive prompts may notice."""
        runner = build("emit")
        first = runner.answer(PAIR, DIRECT)
        second = runner.answer(replace(PAIR, references=(picture(7),)), DIRECT)
        for one, other, asked in zip(first, second, PROMPTS, strict=True):
            assert (one.option_logprobs != other.option_logprobs) == asked.contrastive

    def test_rotated_views_and_several_references(self) -> None:
        contrast = Contrast(
            layers=(2, 4), window=1, soft_prompt_length=2, rotations=(0, 1, 2, 3), outside="zero"
        )
        runner = build("emit", contrast=contrast)
        other = picture(3)
        group = replace(PAIR, content=(REFERENCE, other, QUERY), references=(REFERENCE, other))
        answers = runner.answer(group, DIRECT)
        for index, response in enumerate(answers):
            text, _ = plain_generate(runner, group, index, DIRECT.max_new_tokens)
            assert response.text == text
        runner.answer(group, DIRECT)
        assert runner.counters()["images_encoded"] == 3
        assert runner.counters()["reference_views_encoded"] == 8

    def test_without_soft_prompt_and_embeddings_it_is_the_plain_model(self) -> None:
        off = Contrast(layers=(1,), use_soft_prompt=False, use_contrast=False)
        emit, base = build("emit", contrast=off), build("internvl")
        base.model.load_state_dict(emit.model.state_dict(), strict=False)
        same(emit.answer(PAIR, DIRECT), base.answer(PAIR, DIRECT))

    def test_a_contrastive_prompt_without_reference_is_refused(self) -> None:
        with pytest.raises(BadInput, match="--shots 1"):
            build("emit").answer(replace(PAIR, content=(QUERY,), references=()), DIRECT)

    def test_tokenizer_and_configuration_must_agree_on_the_placeholder(self) -> None:
        model, parts = tiny.emit()
        model.config.comparison = model.config.comparison.replaced(comp_token_id=3)
        with pytest.raises(BadInput, match="comp_token_id 3"):
            SharedPrefixModel(model, parts)


def test_decoding_keeps_tags_that_are_special_tokens() -> None:
    """Where ``<think>`` is a special token it belongs to the answer; the end of the turn never does."""
    model, parts = tiny.internvl()
    parts.tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    builder = SharedPrefixModel(model, parts).prompts
    text = "<think>It is a scratch.</think>B"
    ids = builder.tokenizer(text + "<|im_end|>", add_special_tokens=False)["input_ids"]
    assert builder.decode(ids) == text
    builder.refuse_control_tokens(
        replace(PAIR, prompts=(prompt("x", "Write within <think> </think> tags."),))
    )
