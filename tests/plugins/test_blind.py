"""Every way to run a model copes with a prompt that shows no image (``--audit blind``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.mmad import read_mmad
from harness.protocol import Protocol, shipped_protocols
from harness.records import PromptGroup, blank
from plugins.checkpoint import Chat
from plugins.engine.model import SharedPrefixModel
from plugins.engine.plain import PlainModel
from plugins.server.chat import messages, picture_urls
from plugins.server.settings import Images
from plugins.vllm_backend.inputs import EmbeddedInputs, GemmaInputs, WholeInputs
from tests import families
from tests.plugins.asking import DIRECT, asked, pair, same

BLIND = PromptGroup(
    "You inspect.", ("First  and second  some knowledge.",), (), blank(), asked("blind"), id="blind"
)


def hidden(name: str) -> Protocol:
    (protocol,) = (one for one in shipped_protocols() if one.name == name)
    return replace(protocol, images="hidden")


@pytest.mark.parametrize("name", ["emit", "mmad", "anomalyr1"])
def test_a_protocol_hides_images_and_keeps_its_words(mmad_folder: Path, name: str) -> None:
    benchmark = read_mmad(mmad_folder)
    (shown,) = (one for one in shipped_protocols() if one.name == name)
    for item in benchmark.items[:2]:
        groups = shown.plan(item, benchmark.knowledge), hidden(name).plan(item, benchmark.knowledge)
        for one, other in zip(*groups, strict=True):
            (text,) = other.content
            assert text == "".join(part for part in one.content if isinstance(part, str))
            assert [prompt.text for prompt in one.prompts] == [prompt.text for prompt in other.prompts]
            assert not other.references and not any(prompt.contrastive for prompt in other.prompts)
            assert one.shows_query and not other.shows_query
            item.image.unlink(missing_ok=True)
            assert other.load().query == blank()  # the image is not even opened
    assert hidden(name).digest != shown.digest
    assert not any(hidden(name).shows_reference(one) for one in benchmark.items[0].questions)


@pytest.mark.parametrize("name", list(families.FAMILIES))
def test_every_family_reads_texts_alone_as_its_generate_does(name: str) -> None:
    model, processor = families.build(name)
    engine, plain = SharedPrefixModel(model, processor), PlainModel(model, processor)
    for mode in ("direct", "logits"):
        decoding = replace(DIRECT, mode=mode)
        found, beside = engine.answer_unit((BLIND, pair(3)), decoding)
        same(found.responses, plain.answer(BLIND, decoding))
        same(beside.responses, plain.answer(pair(3), decoding))  # in one batch with images
    assert engine.counters()["images_encoded"] == 2  # those of the pair: the blank is not looked at
    assert engine.counters()["sharing_turned_off"] == 0


@pytest.mark.parametrize("name", list(families.FAMILIES))
def test_vllm_is_sent_the_same_tokens_and_no_image(name: str) -> None:
    model, processor = families.build(name)
    planned = SharedPrefixModel(model, processor)._plan(BLIND, DIRECT, {})
    kind = GemmaInputs if name == "gemma3" else WholeInputs
    for prompt, row in zip(kind(processor, Chat()).write(BLIND, ""), planned.tokens.rows, strict=True):
        assert prompt.prompt == {"prompt_token_ids": list(row)}


def test_vllm_is_sent_embeddings_of_the_texts() -> None:
    model, processor = families.build("internvl")
    rows = SharedPrefixModel(model, processor)._plan(BLIND, DIRECT, {}).tokens.rows
    for prompt, row in zip(
        EmbeddedInputs(model, processor, {}, Chat(), torch.float32).write(BLIND, ""), rows, strict=True
    ):
        wanted = model.get_input_embeddings()(torch.tensor([row]))[0]
        assert torch.equal(prompt.prompt["prompt_embeds"], wanted)


def test_a_server_is_sent_texts_alone() -> None:
    urls = picture_urls(BLIND, Images())
    system, user = messages(BLIND, BLIND.prompts[0], urls, Images())
    assert not urls and system["role"] == "system"
    text = f"{BLIND.content[0]}{BLIND.prompts[0].text}"
    assert user["content"] == [{"type": "text", "text": text}]
