"""The model that the runner talks to: image features, shared prefix, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.errors import BadInput
from harness.records import Decoding, Model, Picture, Prompt, PromptGroup, Response
from plugins.engine_decode import Decoder, Generated
from plugins.engine_images import EncodedImage, FeatureCache, tile_pixels
from plugins.engine_prompts import PromptBuilder


class SharedPrefixModel(Model):
    """An InternVL model that answers all questions of an image pair on one prefilled prefix.

    Args:
        model: ``InternVLForConditionalGeneration`` or a subclass, on its device.
        processor: its processor.
        tiles: most tiles that an image is cut into.
        share_prefix: when False, every question runs alone; answers are the same, to rounding.
    """

    late_token: int | None = None

    def __init__(self, model: Any, processor: Any, *, tiles: int = 1, share_prefix: bool = True) -> None:
        self.model = model.eval()
        self.processor = processor
        self.tiles = tiles
        self.share_prefix = share_prefix
        self.prompts = PromptBuilder(processor, self.late_token)
        self.decoder = Decoder(model, end_ids(model, processor))
        self.cache = FeatureCache()
        self._counts = dict.fromkeys(
            ("images_encoded", "prefix_tokens", "suffix_tokens", "decoded_tokens"), 0
        )

    @torch.inference_mode()
    def answer(self, group: PromptGroup, decoding: Decoding) -> list[Response]:
        """One response a prompt, in order; see :class:`harness.records.Model`."""
        pictures = [part for part in group.content if isinstance(part, Picture)]
        images = {picture.digest: self.encode(picture) for picture in pictures}
        tiles = {digest: len(image.features) for digest, image in images.items()}
        tokens = self.prompts.build(group, tiles, [self.addition(prompt) for prompt in group.prompts])
        features = [images[picture.digest].features for picture in pictures]
        vectors = torch.cat(features) if features else None
        hints = self.hints(group)

        generated: list[Generated] = []
        runs = [range(len(tokens.rows))] if self.share_prefix else [[i] for i in range(len(tokens.rows))]
        for run in runs:
            shared = tokens.shared if self.share_prefix else 0
            prefix, suffixes = self._embed([tokens.rows[i] for i in run], shared, vectors, hints)
            cache = self.decoder.prefill(prefix)
            generated += self.decoder.decode(cache, suffixes, decoding, [group.prompts[i].id for i in run])
            self._counts["prefix_tokens"] += shared
            self._counts["suffix_tokens"] += sum(len(suffix) for suffix in suffixes)
        self._counts["decoded_tokens"] += sum(row.tokens for row in generated)
        return [
            self._response(prompt, len(row), result, decoding)
            for prompt, row, result in zip(group.prompts, tokens.rows, generated, strict=True)
        ]

    def counters(self) -> Mapping[str, int]:
        """Exact work so far; tokens include images and placeholders, decoded ones the end token."""
        return dict(self._counts)

    def close(self) -> None:
        """Forget image features and give the accelerator's memory back."""
        self.cache.clear()
        self.model = self.decoder = None  # type: ignore[assignment]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # What a subclass may change: EMIT adds its placeholders here.

    def addition(self, prompt: Prompt) -> str:
        """Text behind a prompt's question; none for a plain model."""
        return ""

    def hints(self, group: PromptGroup) -> Tensor | None:
        """Vectors ``(1, m, d)`` for the placeholders of one prompt of the group, if any has some."""
        return None

    def merge(self, ids: Tensor, images: Tensor | None, hints: Tensor | None) -> Tensor:
        """Input embeddings ``(1, T, d)`` of ids ``(1, T)`` with image features in their places."""
        embeds: Tensor = self.model.get_input_embeddings()(ids)
        if images is None:
            return embeds
        places = (ids == self.model.config.image_token_id).unsqueeze(-1)
        return embeds.masked_scatter(places, images.to(embeds.dtype))

    def encode(self, picture: Picture) -> EncodedImage:
        """An image's features, from the cache if they are there."""

        def make() -> EncodedImage:
            self._counts["images_encoded"] += 1
            # Alone, never batched with others: its features then do not depend on what it is shown with.
            return self.encode_pixels(tile_pixels(self.processor, picture, self.tiles).to(self.model.device))

        found: EncodedImage = self.cache.get(picture.digest, make, lambda image: image.tensors)
        return found

    def encode_pixels(self, pixels: Tensor) -> EncodedImage:
        """Features of one image's tiles ``(T, 3, S, S)``."""
        features = self.model.get_image_features(pixel_values=pixels).pooler_output
        return EncodedImage(features, pixels[-1].clone())

    def _embed(
        self, rows: Sequence[Sequence[int]], shared: int, images: Tensor | None, hints: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """The shared prefix ``(1, P, d)`` and every row's suffix ``(S_i, d)``.

        Images lie all in the prefix or, where nothing is shared, all in the suffix.
        """
        ids = torch.tensor([rows[0][:shared]], dtype=torch.long, device=self.model.device)
        prefix = self.merge(ids, images if shared else None, None)
        suffixes = []
        for row in rows:
            ids = torch.tensor([row[shared:]], dtype=torch.long, device=self.model.device)
            own = hints if self.late_token is not None and self.late_token in row else None
            suffixes.append(self.merge(ids, None if shared else images, own)[0])
        return prefix, suffixes

    def _response(self, prompt: Prompt, length: int, result: Generated, decoding: Decoding) -> Response:
        scores = self._option_scores(prompt, result) if decoding.mode != "think" else None
        if decoding.mode == "logits":
            if scores is None:
                raise BadInput(
                    f"mode logits needs every option letter as one token, and this tokenizer splits one of "
                    f"{', '.join(prompt.options)}; use --mode direct"
                )
            best = max(scores, key=lambda letter: scores[letter])
            return Response(best, length, 0, scores)
        text = self.prompts.decode(result.ids)
        return Response(text, length, result.tokens, scores, truncated=not result.ended)

    def _option_scores(self, prompt: Prompt, result: Generated) -> dict[str, float] | None:
        ids = {letter: self.prompts.letter_id(letter) for letter in prompt.options}
        if None in ids.values() or len(set(ids.values())) < len(ids):
            return None
        return {letter: float(result.first[token]) for letter, token in ids.items()}


def end_ids(model: Any, processor: Any) -> frozenset[int]:
    """Every id that ends an answer: all of the generation configuration, else the tokenizer's own."""
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = processor.tokenizer.eos_token_id
    if found is None:
        raise BadInput("the checkpoint names no end token; add eos_token_id to its generation_config.json")
    return frozenset([found] if isinstance(found, int) else found)
