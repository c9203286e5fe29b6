"""What differs between model classes once the prompt is text: images, positions, who sees whom.

The plain case is a tower whose features replace tokens of a causal language model with positions 0, 1, 2, …:
InternVL, LLaVA, Pixtral. The others change one thing each.
"""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from harness.errors import BadInput
from harness.records import Picture, Prompt, PromptGroup
from plugins.engine.images import EncodedImage, FeatureCache, PreparedImage
from plugins.engine.prompts import placeholder_of

#: Of what a processor returns, that which is not for ``get_image_features``.
_TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "num_crops"})


@dataclass(frozen=True)
class Hints:
    """What stands in the placeholders of a group's prompts, and the heat map that it was made from."""

    vectors: Tensor  #: ``(1, m, d)``
    heat: Tensor  #: ``(1, 1, H, W)`` cosine distances, by patch

    def picture(self) -> bytes:
        """The heat map as a PNG, see :class:`harness.records.GroupResult`."""
        grey = (self.heat[0, 0].float().nan_to_num(0.0).clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grey.numpy()).save(buffer, "PNG")
        return buffer.getvalue()


class Wiring:
    """How one model takes its images.

    Args:
        model: on its device.
        processor: of the model.
        images: arguments of the image processor.
        cache: of encoded images.
    """

    late_token: int | None = None  #: a token that may only stand behind a shared prefix
    crowded = False  #: whether an image beside others is cut differently than alone

    def __init__(self, model: Any, processor: Any, images: Mapping[str, Any], cache: FeatureCache) -> None:
        self.model = model
        self.processor = processor
        self.images = dict(images)
        self.cache = cache
        self.counts = {"images_encoded": 0, "image_values": 0}
        self._own = threading.local()  # tokenizers are not for several threads

    def key(self, picture: Picture, beside: bool) -> str:
        """Name of an image's features in the cache."""
        return f"{picture.digest}/beside" if beside and self.crowded else picture.digest

    def prepare(self, picture: Picture, beside: bool) -> PreparedImage:
        """Pixels to what the tower takes; safe in several threads.

        Args:
            picture: the image.
            beside: whether the prompt shows other images too.
        """
        mark = placeholder_of(self.processor)
        inputs = self._process(mark, [picture])
        return PreparedImage(self._spell(inputs["input_ids"][0]), self._tensors(inputs))

    def encode(self, prepared: PreparedImage) -> EncodedImage:
        """Features of one image, alone: they do not depend on what it is shown with."""
        device = self.model.device
        inputs = {name: value.to(device) for name, value in prepared.inputs.items()}
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        self.count(inputs)
        features = self.features(inputs)
        return EncodedImage(features, text=prepared.text, grid=inputs.get("image_grid_thw"))

    def count(self, inputs: Mapping[str, Tensor]) -> None:
        """Count an image: the numbers in its pixels tell its resolution."""
        self.counts["images_encoded"] += 1
        self.counts["image_values"] += inputs["pixel_values"].numel()

    def features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The language model's tokens ``(n, d)`` of one image."""
        found = self.model.get_image_features(**inputs).pooler_output
        parts = [found] if isinstance(found, Tensor) else list(found)
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])

    def addition(self, prompt: Prompt) -> str:
        """Text behind a prompt's question."""
        return ""

    def hints(self, group: PromptGroup, images: Mapping[str, EncodedImage]) -> Hints | None:
        """What goes into the placeholders of the group's prompts, if any has some."""
        return None

    def embed(self, ids: Tensor, images: Tensor | None, hints: Tensor | None) -> Tensor:
        """Input embeddings ``(1, T, d)`` of ids ``(1, T)`` with image features ``(n, d)`` in their places."""
        token = self.model.config.image_token_id
        places = ids == token
        embed = self.model.get_input_embeddings()
        # A placeholder may lie behind the end of the vocabulary (Gemma).
        embeds: Tensor = embed(ids.masked_fill(places, 0) if token >= embed.num_embeddings else ids)
        if images is None:
            return embeds
        return embeds.masked_scatter(places.unsqueeze(-1), images.to(embeds.device, embeds.dtype))

    def positions(self, ids: Tensor, images: Sequence[EncodedImage]) -> tuple[Tensor, int]:
        """Rotary positions of a prefix ``(1, P)`` or ``(3, 1, P)``, and what later indexes are moved by."""
        return torch.arange(ids.shape[1], device=ids.device)[None], 0

    def blocks(self, ids: Tensor) -> Tensor | None:
        """Which tokens of a prefix see each other, whatever their order.

        Returns:
            ``(P,)``: the number of the image that a token is of, -1 for text; tokens of one image see each
            other. None where attention is causal throughout.
        """
        return None

    def _process(self, text: str, pictures: Sequence[Picture]) -> Any:
        if not hasattr(self._own, "processor"):
            self._own.processor = copy.deepcopy(self.processor)
        return self._own.processor(
            text=[text],
            images=[[picture.pixels for picture in pictures]],
            return_tensors="pt",
            text_kwargs={"add_special_tokens": False},
            images_kwargs=dict(self.images),
        )

    def _spell(self, ids: Tensor) -> str:
        """The text of an image's tokens, which must give the same tokens again."""
        tokenizer = self._own.processor.tokenizer
        text = str(tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))
        again = tokenizer(text, add_special_tokens=False)["input_ids"]
        if again != ids.tolist():
            raise BadInput(
                "the tokenizer does not spell an image's tokens as it reads them; use a fast tokenizer "
                "(tokenizer.json)"
            )
        return text

    def _tensors(self, inputs: Any) -> dict[str, Tensor]:
        return {name: torch.as_tensor(value) for name, value in inputs.items() if name not in _TEXT_INPUTS}
