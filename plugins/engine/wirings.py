"""Families whose wiring differs from the plain one, and which model gets which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.records import Picture
from plugins.engine.emit import EmitWiring
from plugins.engine.images import EncodedImage, FeatureCache, PreparedImage
from plugins.engine.prompts import placeholder_of
from plugins.engine.wiring import Wiring


class MultiAxisWiring(Wiring):
    """Qwen2.5-VL and GLM-4V: image tokens have positions in three axes; text goes on behind the largest."""

    def positions(self, ids: Tensor, images: Sequence[EncodedImage]) -> tuple[Tensor, int]:
        """See :meth:`Wiring.positions`; the model's own rule."""
        grids = [image.grid for image in images if image.grid is not None]
        if not grids:
            rope, moved = super().positions(ids, images)
            return rope.expand(3, 1, -1), moved
        kinds = (ids == self.model.config.image_token_id).int()
        found, delta = self.model.model.get_rope_index(ids, kinds, image_grid_thw=torch.cat(grids))
        return found, int(delta)


class GemmaWiring(Wiring):
    """Gemma 3: the tokens of an image see each other."""

    def blocks(self, ids: Tensor) -> Tensor | None:
        """See :meth:`Wiring.blocks`."""
        image = ids[0] == self.model.config.image_token_id
        starts = image & ~torch.nn.functional.pad(image, (1, 0))[:-1]
        return torch.where(image, starts.int().cumsum(0), -1)


class OneVisionWiring(Wiring):
    """LLaVA-OneVision: an image is cut into tiles where it is alone, and left whole beside others."""

    crowded = True

    def prepare(self, picture: Picture, beside: bool) -> PreparedImage:
        """See :meth:`Wiring.prepare`."""
        if not beside:
            return super().prepare(picture, beside)
        # The processor tells by the number of images; twice the same, and the first of them is taken.
        inputs = self._process(2 * placeholder_of(self.processor), [picture, picture])
        ids = inputs["input_ids"][0]
        tensors = self._tensors(inputs)
        tensors |= {name: tensors[name][:1] for name in ("pixel_values", "image_sizes")}
        return PreparedImage(self._spell(ids[: len(ids) // 2]), tensors)


#: ``model_type`` of a configuration -> its wiring; others are plain.
WIRINGS: Mapping[str, type[Wiring]] = {
    "qwen2_5_vl": MultiAxisWiring,
    "glm4v": MultiAxisWiring,
    "gemma3": GemmaWiring,
    "emit": EmitWiring,
    "llava_onevision": OneVisionWiring,
}


def wire(model: Any, processor: Any, images: Mapping[str, Any], cache: FeatureCache) -> Wiring:
    """The wiring of a model's class."""
    return WIRINGS.get(model.config.model_type, Wiring)(model, processor, images, cache)
