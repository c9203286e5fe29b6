"""Requests on their way: no barrier, no mixing, failures that stay where they are, exact counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from harness.records import UNITS_AHEAD, Decoding, PromptGroup
from tests.plugins.vllm import scene
from tests.plugins.vllm.scene import DIRECT, LOGITS, alone, answers, group, same

pytest.importorskip("vllm", reason="vLLM is not installed; it needs an environment of its own")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene.save(tmp_path_factory.mktemp("internvl"), "internvl")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Any]:
    with scene.loaded(scene.checkpoint(folder), "vllm") as found:
        yield found


def worked(model: Any, before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in model.counters().items()}


@pytest.mark.parametrize("decoding", [DIRECT, LOGITS], ids=["direct", "logits"])
def test_an_answer_does_not_depend_on_what_else_is_asked(model: Any, decoding: Decoding) -> None:
    groups = [group(number) for number in range(6)]
    together = answers(model, [groups], decoding)
    for units in ([[one] for one in groups], [groups[::-1][:2], groups[::-1][2:]]):
        for name, result in answers(model, units, decoding).items():
            same(together[name], result)
    for one in groups:
        single = replace(one, prompts=one.prompts[1:2])
        (found,) = model.answer(single, decoding)
        expected = together[one.id].responses[1]
        assert found.text == expected.text
        assert found.option_logprobs == pytest.approx(expected.option_logprobs, abs=1e-3)


def test_groups_come_as_they_are_ready_and_units_are_taken_one_by_one(model: Any) -> None:
    taken: list[int] = []

    def units() -> Iterator[Sequence[PromptGroup]]:
        for number in range(3 * UNITS_AHEAD):
            taken.append(number)
            yield [group(2 * number), group(2 * number + 1)]

    open_units, done = 0, 0
    for results in model.stream(units(), DIRECT):
        assert len(results) == 1  # each is stored by itself
        done += 1
        open_units = max(open_units, len(taken) - (done - 1) // 2)
    assert done == 6 * UNITS_AHEAD
    assert (
        2 <= open_units <= UNITS_AHEAD + 1
    )  # no barrier, and no more than is allowed (the last may be done)


def test_a_group_that_cannot_be_asked_fails_alone(model: Any) -> None:
    longest = model.engine.llm_engine.model_config.max_model_len
    control = replace(group(1), id="control", content=("<IMG_CONTEXT>", group(1).query))
    late = (*group(2).prompts[:3], replace(group(2).prompts[3], text="metal " * longest))
    long = replace(group(2), id="long", prompts=late)  # three of its prompts are on their way by then
    found = answers(model, [[control, group(0), long], [group(3)]], DIRECT)
    assert "control token '<IMG_CONTEXT>'" in found["control"].reason
    assert "maximum context length" in found["long"].reason and not found["long"].responses
    for number in (0, 3):
        same(answers(model, [[group(number)]], DIRECT)[f"group-{number}"], found[f"group-{number}"])
    assert not model.engine.llm_engine.has_unfinished_requests()


def test_letters_of_several_tokens_fail_in_logits_mode_and_are_not_scored_otherwise(model: Any) -> None:
    odd = tuple(replace(prompt, options={"A": "Yes", "AAB": "No"}) for prompt in group(0).prompts)
    asked = replace(group(0), prompts=odd)
    assert "every option letter as one token" in answers(model, [[asked]], LOGITS)["group-0"].reason
    found = answers(model, [[asked]], DIRECT)["group-0"]
    assert not found.reason and all(response.option_logprobs is None for response in found.responses)


def test_cancelling_leaves_nothing_behind(model: Any) -> None:
    long = Decoding("direct", 200)
    stream = model.stream([[group(number)] for number in range(4)], long)
    next(stream)
    stream.close()
    assert not model.engine.llm_engine.has_unfinished_requests()
    same(answers(model, [[group(5)]], DIRECT)["group-5"], answers(model, [[group(5)]], DIRECT)["group-5"])


def test_an_engine_that_fails_ends_the_run_with_one_sentence(
    folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("CUDA out of memory\nand much more")

    with monkeypatch.context() as patch:
        patch.setattr(model.engine.llm_engine, "step", broken)
        with pytest.raises(BadInput, match=r"has failed \(RuntimeError: CUDA out of memory\); .* is kept"):
            answers(model, [[group(0)]], DIRECT)
    assert not model.engine.llm_engine.has_unfinished_requests()


def test_seeds_are_of_the_prompt_and_the_run(model: Any) -> None:
    hot = Decoding("direct", 12, temperature=1.5, seed=1)

    def texts(decoding: Decoding, *groups: PromptGroup) -> list[str]:
        found = answers(model, [groups], decoding)
        return [response.text for response in found[groups[0].id].responses]

    first = texts(hot, group(0))
    assert texts(hot, group(0), group(1), alone(2)) == first
    assert texts(replace(hot, seed=2), group(0)) != first
    twins = tuple(replace(prompt, text="Any defect?") for prompt in group(0).prompts)
    assert len(set(texts(hot, replace(group(0), prompts=twins)))) > 1  # the same question under other names


def test_an_end_token_ends_an_answer(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    single = replace(group(0), prompts=group(0).prompts[:1])
    drawn: list[tuple[int, ...]] = []
    decode = model.prompts.decode
    monkeypatch.setattr(model.prompts, "decode", lambda ids: drawn.append(ids) or decode(ids))
    (long,) = model.answer(single, DIRECT)
    assert long.truncated and long.completion_tokens == DIRECT.max_new_tokens == len(drawn[0])
    monkeypatch.setattr(model, "ends", frozenset({*model.ends, drawn[0][5]}))
    (short,) = model.answer(single, DIRECT)
    first = drawn[0].index(drawn[0][5])
    assert not short.truncated and short.completion_tokens == first + 1
    assert drawn[1] == drawn[0][:first]  # the end itself is no part of the text


def test_work_is_counted_exactly(model: Any) -> None:
    """Blocks of the cache have 128 tokens on a CPU; what was sent before is in it, so the images are new."""
    before = dict(model.counters())
    asked = [replace(group(number), query=scene.picture(70 + number)) for number in range(2)]
    asked = [
        replace(one, content=("New: ", one.query, *one.content[2:3], scene.picture(80), scene.LECTURE))
        for one in asked
    ]
    found = answers(model, [asked], DIRECT)
    responses = [response for result in found.values() for response in result.responses]
    shared = [128 * (min(one.prompt_tokens for one in result.responses) // 128) for result in found.values()]
    assert shared == [128, 128]
    assert worked(model, before) == {
        "prompt_tokens": sum(one.prompt_tokens for one in responses),
        "cached_tokens": 2 * 3 * 128,  # the first prompt of each pair computes, the others find
        "decoded_tokens": sum(one.completion_tokens for one in responses),
        "images_sent": 4,
    }
    before = dict(model.counters())
    answers(model, [asked], LOGITS)
    again = worked(model, before)
    assert again["decoded_tokens"] == 0 and again["cached_tokens"] == 2 * 4 * 128


def test_without_sharing_nothing_is_cached_and_answers_are_the_same(folder: Path, model: Any) -> None:
    units = [[group(0), group(1)]]
    expected = answers(model, units, DIRECT)
    with scene.loaded(scene.checkpoint(folder), "vllm", share_prefix=False) as unshared:
        found = answers(unshared, units, DIRECT)
        assert unshared.counters()["cached_tokens"] == 0
    for name, result in expected.items():
        same(result, found[name])
