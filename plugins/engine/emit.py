"""EMIT on the shared prefix: its placeholders follow the question, so they never break what prompts share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from emit_model import COMP_TOKEN
from harness.errors import BadInput
from harness.records import Prompt, PromptGroup
from plugins.engine.images import EncodedImage, FeatureCache, PreparedImage
from plugins.engine.wiring import Hints, Wiring


class EmitWiring(Wiring):
    """A model whose contrastive prompts carry a soft prompt and the heat map of query against references.

    The heat map is made from the hidden states of the same tower passes that encode the images; only further
    rotations of a reference, where the checkpoint asks for them, cost passes of their own. Takes what
    :class:`Wiring` takes, with an ``EmitForConditionalGeneration``.
    """

    def __init__(self, model: Any, processor: Any, images: Mapping[str, Any], cache: FeatureCache) -> None:
        settings = model.config.comparison
        token = processor.tokenizer.convert_tokens_to_ids(COMP_TOKEN)
        if token != settings.comp_token_id:
            raise BadInput(
                f"the checkpoint's tokenizer has {COMP_TOKEN} under id {token}, but its config.json says "
                f"contrast.comp_token_id {settings.comp_token_id}; save both from the same training"
            )
        super().__init__(model, processor, images, cache)
        self.late_token = settings.comp_token_id
        self.turned = settings.use_contrast and set(settings.rotations) != {0}
        self.counts["reference_views_encoded"] = 0

    def addition(self, prompt: Prompt) -> str:
        """The placeholders, where the protocol grants them."""
        return COMP_TOKEN * self.model.config.placeholders if prompt.contrastive else ""

    def hints(self, group: PromptGroup, images: Mapping[str, EncodedImage]) -> Hints | None:
        """Soft prompt and contrastive embeddings; computed once for the group."""
        if not self.model.config.placeholders or not any(prompt.contrastive for prompt in group.prompts):
            return None
        if not group.references:
            raise BadInput(
                "a contrastive prompt needs a reference image; use a protocol with --shots 1 or more"
            )
        query = [layer[None] for layer in images[group.query.digest].patches]
        views = [self._views(picture.digest, images[picture.digest]) for picture in group.references]
        references = [torch.cat(layers)[None] for layers in zip(*views, strict=True)]
        heat = self.model.compare(query, references)
        return Hints(self.model.hints(heat), heat)

    def embed(self, ids: Tensor, images: Tensor | None, hints: Tensor | None) -> Tensor:
        """As the base class, with hints in the placeholders."""
        own = hints if self.late_token in ids.flatten().tolist() else None
        embeds: Tensor = self.model.embed_prompt(ids, images, own)
        return embeds

    def encode(self, prepared: PreparedImage) -> EncodedImage:
        """Features of one image's tiles, and the patches of the whole image that are compared."""
        pixels = prepared.inputs["pixel_values"].to(self.model.device)
        self.count(prepared.inputs)
        features, patches = self.model.encode_images(pixels)
        compared = tuple(layer[-1].clone() for layer in patches)
        return EncodedImage(features.flatten(0, -2), pixels[-1].clone(), compared, prepared.text)

    def _views(self, digest: str, reference: EncodedImage) -> tuple[Tensor, ...]:
        """Patches of every view of a reference, a layer each ``(views, H, W, D)``."""
        if not self.turned:
            return tuple(layer[None] for layer in reference.patches)

        def make() -> tuple[Tensor, ...]:
            # Rotations of one image: few, always the same batch, so batched.
            assert reference.whole is not None
            views = self.model.reference_views(reference.whole[None])
            self.counts["reference_views_encoded"] += len(views)
            return tuple(self.model.patch_features(views))

        found: tuple[Tensor, ...] = self.cache.get(f"{digest}/views", make, lambda layers: layers)
        return found
