"""What the tests of the vLLM backend share: questions on image pairs, a tiny checkpoint on either backend."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.records import Decoding, GroupResult, LoadRequest, Model, Picture, Prompt, PromptGroup, Response
from plugins.checkpoint import Chat, Checkpoint, load
from tests import families, tiny

OPTIONS = {"A": "Yes", "B": "No", "C": "Perhaps"}
DIRECT, LOGITS = Decoding("direct", 8), Decoding("logits", 1)
#: Long enough that what a group's prompts share fills a block of vLLM's cache, which has 128 tokens on a CPU.
LECTURE = "\nAnswer with the letter of the correct option." * 8
ASKED = ("Any defect?", "What is it?", "Where is the defect, in which part?", "Questing for oil")


def picture(seed: int, width: int = 60, height: int = 60) -> Picture:
    return Picture(f"digest-{seed}-{width}-{height}", tiny.image(seed, width, height))


def group(number: int, **changes: Any) -> PromptGroup:
    """Four questions on a pair of images of different shapes, two of them contrastive."""
    reference, query = picture(100), picture(number, 60 + 35 * (number % 3), 60)
    prompts = tuple(
        Prompt(f"{number}-{index}", f"\n\nQuestion: {text}\nA. Yes\nB. No\n", OPTIONS, index % 2 == 0)
        for index, text in enumerate(ASKED)
    )
    content = ("Image-1: ", reference, "\nImage-2: ", query, LECTURE)
    made = PromptGroup("You inspect.", content, (reference,), query, prompts, id=f"group-{number}")
    return replace(made, **changes)


def alone(number: int) -> PromptGroup:
    """The query image only, and no system message."""
    made = group(number)
    plain = tuple(replace(prompt, contrastive=False) for prompt in made.prompts)
    return replace(made, system="", content=("Query: ", made.query, LECTURE), references=(), prompts=plain)


def text_only(number: int) -> PromptGroup:
    made = alone(number)
    return replace(made, content=("No image at all.",))


def save(folder: Path, name: str) -> Path:
    """A tiny checkpoint of a family, or of EMIT."""
    if name != "emit":
        return families.save(folder, name)
    original = tiny.config

    def wide(*args: Any, **kwargs: Any) -> Any:
        """With the smallest attention heads that vLLM computes on a CPU."""
        found = original(*args, **kwargs)
        text: Any = found.text_config
        text.hidden_size, text.num_attention_heads, text.num_key_value_heads = 64, 2, 1
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "config", wide)
        return tiny.save(folder, *tiny.emit())


def checkpoint(folder: Path, images: Mapping[str, Any] | None = None, chat: Chat | None = None) -> Checkpoint:
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    return Checkpoint(
        id="tiny",
        title="Tiny",
        family="tiny",
        summary="",
        model_type=kind,
        weights={"mini": str(folder)},
        images={"mini": images or {}},
        chat=chat or Chat(),
    )


@contextmanager
def loaded(declared: Checkpoint, backend: str, **fields: Any) -> Iterator[Any]:
    """A model on a backend, closed at the end."""
    resources = {"kv_cache_memory_bytes": 64 << 20} if backend == "vllm" else {}
    resources |= fields.pop("resources", {})
    request = LoadRequest(world="mini", backend=backend, device="cpu", resources=resources, **fields)
    model = load(declared, request)
    try:
        yield model
    finally:
        model.close()


def answers(
    model: Model, units: Iterable[Sequence[PromptGroup]], decoding: Decoding
) -> dict[str, GroupResult]:
    """Results by the group's id; each comes once."""
    found: dict[str, GroupResult] = {}
    for results in model.stream(units, decoding):
        for result in results:
            assert result.id not in found
            found[result.id] = result
    return found


def same(one: GroupResult, other: GroupResult, within: float = 1e-3) -> None:
    """Both groups were answered, with the same tokens and the same scores to rounding."""
    assert not one.reason and not other.reason
    for first, second in zip(one.responses, other.responses, strict=True):
        assert _told(first) == _told(second)
        if first.option_logprobs is not None:
            assert second.option_logprobs == pytest.approx(first.option_logprobs, abs=within)


def _told(response: Response) -> tuple[Any, ...]:
    scored = None if response.option_logprobs is None else sorted(response.option_logprobs)
    return response.text, response.prompt_tokens, response.completion_tokens, response.truncated, scored
