"""From a prompt group to what the engine is sent: text and images, or embeddings of the whole prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.records import Picture, PromptGroup
from plugins.checkpoint import Chat
from plugins.engine.images import EncodedImage, FeatureCache
from plugins.engine.prompts import PromptBuilder
from plugins.engine.wirings import wire


@dataclass(frozen=True)
class Asked:
    """One prompt as the engine is given it."""

    prompt: dict[str, Any]  #: as ``LLM.generate`` takes it
    #: Token ids in place of those that vLLM would make of ``prompt``; every run of ``mark`` is an image.
    ids: tuple[int, ...] = ()
    mark: int = -1
    heat_map: bytes | None = None  #: of the group, see :class:`harness.records.GroupResult`

    @property
    def length(self) -> int:
        """Number of tokens, or 0 where the engine will tell."""
        return len(self.ids) or len(self.prompt.get("prompt_embeds", ()))

    def render(self, engine: Any) -> Any:
        """The prompt with its images processed, and their marks replaced by their tokens.

        Args:
            engine: a ``vllm.LLM``'s ``llm_engine``.
        """
        from vllm.multimodal.inputs import PlaceholderRange
        from vllm.renderers.inputs.preprocess import parse_model_prompt

        (rendered,) = engine.renderer.render_cmpl([parse_model_prompt(engine.model_config, self.prompt)])
        if self.ids:
            rendered["prompt_token_ids"] = list(self.ids)
            runs = groupby(range(len(self.ids)), lambda place: self.ids[place] == self.mark)
            images = [list(places) for is_image, places in runs if is_image]
            rendered["mm_placeholders"] = {
                "image": [PlaceholderRange(offset=places[0], length=len(places)) for places in images]
            }
        return rendered


class Inputs(Protocol):
    """Writes the prompts of a group."""

    prompts: PromptBuilder

    def write(self, group: PromptGroup, opening: str) -> list[Asked]:
        """One prompt of vLLM's for each of the group's.

        Raises:
            BadInput: a text holds one of the model's control tokens, or an image cannot be shown.
        """

    def counters(self) -> Mapping[str, int]:
        """Work that was done outside the engine."""

    def close(self) -> None:
        """Give memory back."""


class WholeInputs:
    """For a model that vLLM runs whole: the chat's token ids with a mark an image, and the images.

    They go by the digest of their content, so the engine processes and encodes each of them once. Token ids
    are made here, for vLLM's own tokenizing would put a second start token before some.

    Args:
        processor: of the model; only its chat template and tokenizer are used.
        chat: what is particular about the family's chat.
    """

    def __init__(self, processor: Any, chat: Chat) -> None:
        self.prompts = PromptBuilder(processor, keep=chat.keep)

    def write(self, group: PromptGroup, opening: str) -> list[Asked]:
        """See :class:`Inputs`."""
        self.prompts.refuse_control_tokens(group)
        media = _media(group)
        texts = [self.prompts.text(group, prompt.text, opening=opening) for prompt in group.prompts]
        return [Asked({"prompt_token_ids": self._tokens(text), **media}) for text in texts]

    def counters(self) -> Mapping[str, int]:
        """None: the engine does all the work."""
        return {}

    def close(self) -> None:
        """Nothing is held."""

    def _tokens(self, text: str) -> list[int]:
        found: list[int] = self.prompts.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


class GemmaInputs(WholeInputs):
    """For Gemma 3, whose images stand between blank lines that melt into the text's own.

    vLLM replaces marks token by token, and does not find an image again whose blank line has become one token
    with a line break behind it. So it is given the marks alone, and then the ids of the whole text.
    """

    def write(self, group: PromptGroup, opening: str) -> list[Asked]:
        """See :class:`Inputs`."""
        self.prompts.refuse_control_tokens(group)
        pictures = _pictures(group)
        if not pictures:
            return super().write(group, opening)
        processor = self.prompts.processor
        shown = {picture.digest: processor.full_image_sequence for picture in pictures}
        marks = {"prompt_token_ids": self._tokens(processor.boi_token * len(pictures)), **_media(group)}
        texts = [self.prompts.text(group, prompt.text, shown, opening) for prompt in group.prompts]
        mark = self.prompts.tokenizer.image_token_id  # the processor calls the opening mark so
        return [Asked(marks, tuple(self._tokens(text)), mark) for text in texts]


class EmbeddedInputs:
    """For a language model alone: images, heat map and soft prompt are in the prompt's embeddings.

    Args:
        model: what is left of it without its decoder, on its device.
        processor: of the model.
        images: arguments of the image processor.
        chat: what is particular about the family's chat.
        dtype: of the engine.
    """

    def __init__(
        self, model: Any, processor: Any, images: Mapping[str, Any], chat: Chat, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.cache = FeatureCache()
        self.wiring = wire(model, processor, images, self.cache)
        self.prompts = PromptBuilder(processor, self.wiring.late_token, chat.keep)

    @torch.inference_mode()
    def write(self, group: PromptGroup, opening: str) -> list[Asked]:
        """See :class:`Inputs`."""
        pictures = _pictures(group)
        compared = (*pictures, *group.references, group.query)
        images = {picture.digest: self._encode(picture, len(pictures) > 1) for picture in compared}
        texts = {digest: image.text for digest, image in images.items()}
        additions = [self.wiring.addition(prompt) for prompt in group.prompts]
        tokens = self.prompts.build(group, texts, additions, opening)
        hints = self.wiring.hints(group, images)
        shown = [images[picture.digest].features for picture in pictures]
        features = torch.cat(shown) if shown else None
        seen = hints.picture() if hints else None
        vectors = hints.vectors if hints else None
        return [
            Asked({"prompt_embeds": self._embed(row, features, vectors)}, heat_map=seen)
            for row in tokens.rows
        ]

    def counters(self) -> Mapping[str, int]:
        """Images that passed the tower."""
        return dict(self.wiring.counts)

    def close(self) -> None:
        """Forget the model and its images."""
        self.cache.clear()
        self.wiring = None  # type: ignore[assignment]

    def _encode(self, picture: Picture, beside: bool) -> EncodedImage:
        def make() -> EncodedImage:
            return self.wiring.encode(self.wiring.prepare(picture, beside))

        key = self.wiring.key(picture, beside)
        found: EncodedImage = self.cache.get(key, make, lambda image: image.tensors)
        return found

    def _embed(self, row: tuple[int, ...], features: Tensor | None, hints: Tensor | None) -> Tensor:
        """One whole prompt ``(P, d)`` on the CPU; the engine hashes it there."""
        ids = torch.tensor([row], dtype=torch.long, device=self.wiring.model.device)
        return self.wiring.embed(ids, features, hints)[0].to("cpu", self.dtype)


def _pictures(group: PromptGroup) -> list[Picture]:
    return [part for part in group.content if isinstance(part, Picture)]


def _media(group: PromptGroup) -> dict[str, Any]:
    """A group's images and their names, as vLLM takes them."""
    pictures = _pictures(group)
    if not pictures:
        return {}
    return {
        "multi_modal_data": {"image": [picture.pixels for picture in pictures]},
        "multi_modal_uuids": {"image": [picture.digest for picture in pictures]},
    }
