"""Every family that vLLM runs on a CPU answers there as it does with transformers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

import plugins.vllm_backend
from harness.errors import BadInput
from harness.records import Decoding
from plugins.checkpoint import Chat, pixels, tiled
from plugins.families.glm4_1v import MODEL as GLM
from plugins.families.kimi_vl import MODEL as KIMI
from tests.plugins.vllm import scene
from tests.plugins.vllm.scene import DIRECT, LOGITS, alone, answers, group, same, text_only

pytest.importorskip("vllm", reason="vLLM is not installed; it needs an environment of its own")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

#: Families that run here -> their resolution: one that is not the processor's own, where there is a choice.
RUN_HERE: dict[str, dict[str, Any]] = {
    "internvl": tiled(4),
    "emit": tiled(4),
    "qwen2_5_vl": pixels(4 * 28 * 28, 9 * 28 * 28),
    "glm4v": {},
    "llava_onevision": {},
    "llava_interleave": {},
    "pixtral": {},
}
#: Families that do not -> the reason. A test below fails when the reason is gone.
NOT_HERE = {
    "gemma3": "tokens of an image see each other, and vLLM's attention on CPUs does not let them",
    "kimi_vl": "tokenizer and processor are code of its repository, so no checkpoint can be made offline",
}
#: Saved here without what processes videos, as all are where there is no torchvision.
WITHOUT_FILMS = {"internvl", "glm4v"}


@dataclass
class Pair:
    name: str
    folder: Path
    vllm: Any
    transformers: Any


@pytest.fixture(scope="module", params=RUN_HERE)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One checkpoint on both backends."""
    name = request.param
    folder = scene.save(tmp_path_factory.mktemp(name), name)
    if name in WITHOUT_FILMS:
        (folder / "video_preprocessor_config.json").unlink()
    chat = replace(GLM.chat, room={"direct": 12}) if name == "glm4v" else Chat()
    declared = scene.checkpoint(folder, RUN_HERE[name], chat)
    with scene.loaded(declared, "vllm") as ours, scene.loaded(declared, "transformers") as theirs:
        yield Pair(name, folder, ours, theirs)


@pytest.mark.parametrize("decoding", [DIRECT, LOGITS, Decoding("think", 16)], ids=lambda one: one.mode)
def test_answers_are_those_of_transformers(pair: Pair, decoding: Decoding) -> None:
    units = [[group(0), group(1)], [group(2), alone(3)], [replace(group(4), raw=True), text_only(5)]]
    found, expected = answers(pair.vllm, units, decoding), answers(pair.transformers, units, decoding)
    assert found.keys() == expected.keys() and len(found) == 6
    for name, result in expected.items():
        same(result, found[name])
    told = {response.text for result in found.values() for response in result.responses}
    assert len(told) > 1  # else nothing could be got wrong
    scored = [response.option_logprobs for result in found.values() for response in result.responses]
    assert all((scores is None) == (decoding.mode == "think") for scores in scored)


def test_pictures_decide_answers(pair: Pair) -> None:
    """Media ids are the pictures' own: another picture under the same questions is another answer."""
    first, other = group(1), replace(group(4), id="other", prompts=group(1).prompts)
    found = answers(pair.vllm, [[first], [other]], LOGITS)
    assert found["group-1"].responses[0].option_logprobs != pytest.approx(
        found["other"].responses[0].option_logprobs, abs=1e-3
    )


def test_images_are_encoded_once(pair: Pair) -> None:
    """Asked again with other questions, a group finds its prefix in the cache, images and all."""
    asked = group(7)
    answers(pair.vllm, [[asked]], LOGITS)
    again = tuple(replace(prompt, text=prompt.text + "?") for prompt in asked.prompts)
    before = dict(pair.vllm.counters())
    answers(pair.vllm, [[replace(asked, prompts=again)]], LOGITS)
    worked = {name: count - before[name] for name, count in pair.vllm.counters().items()}
    assert worked["cached_tokens"] >= 4 * 128
    assert worked.get("images_encoded", 0) == 0


def test_every_family_is_spoken_for() -> None:
    known = {"emit", "kimi_vl", *scene.families.FAMILIES}
    assert RUN_HERE.keys() | NOT_HERE.keys() == known
    assert not RUN_HERE.keys() & NOT_HERE.keys()


def test_gemma_is_refused_on_a_cpu_for_good_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let in all the same, it answers as if its image tokens saw only what is before them."""
    from plugins.engine.wiring import Wiring
    from plugins.engine.wirings import GemmaWiring

    declared = scene.checkpoint(scene.save(tmp_path, "gemma3"))
    with pytest.raises(BadInput, match=NOT_HERE["gemma3"]), scene.loaded(declared, "vllm"):
        pass
    monkeypatch.setattr(plugins.vllm_backend, "NEEDS_GPU", {})
    with scene.loaded(declared, "vllm") as model:
        found = answers(model, [[group(1)]], LOGITS)["group-1"]
    with scene.loaded(declared, "transformers") as model:
        right = answers(model, [[group(1)]], LOGITS)["group-1"]
    with pytest.raises(AssertionError):
        same(right, found)
    monkeypatch.setattr(GemmaWiring, "blocks", Wiring.blocks)
    with scene.loaded(declared, "transformers") as model:
        same(answers(model, [[group(1)]], LOGITS)["group-1"], found)


def test_kimi_needs_its_own_code(tmp_path: Path) -> None:
    assert "kimi_vl" not in CONFIG_MAPPING_NAMES
    (tmp_path / "config.json").write_text('{"model_type": "kimi_vl"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    declared = replace(KIMI, weights={"mini": str(tmp_path)})
    told = pytest.raises(BadInput, match=r"'kimi-vl' .* pass --trust-remote-code .* or --backend server")
    with told, scene.loaded(declared, "vllm"):
        pass
