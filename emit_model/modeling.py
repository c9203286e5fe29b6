"""The EMIT model: InternVL with a soft prompt and heat-map-guided contrastive embeddings.

A prompt that compares holds ``<COMP_CONTEXT>`` placeholders after its question; they are overwritten by::

    [ soft prompt (n, d) | projector(heat map of query against reference) (m, d) ]

The language model and the vision tower are InternVL's own, under InternVL's own parameter names: everything
that EMIT adds lives under ``contrast.``, so a plain InternVL checkpoint loads as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, InternVLConfig, InternVLForConditionalGeneration
from transformers import initialization as init
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)

from emit_model.configuration import Contrast, EmitConfig
from emit_model.heat_maps import heat_map


class HeatConv(nn.Conv2d):
    """The projector's convolution; a class of its own so that its initialisation can be named."""


class ContrastHead(nn.Module):
    """Everything that EMIT adds to InternVL: soft prompt, and projector of the heat map.

    The projector is batch normalisation, a convolution from one channel to the language model's width, and a
    row-by-row flattening. Batch normalisation stays in evaluation mode, whatever ``train()`` says: the
    samples of a group share one heat map, so batch statistics would be of that map alone, and sampling and
    learning would see different normalisations. The first training stage sets its statistics itself.
    """

    def __init__(self, config: EmitConfig) -> None:
        super().__init__()
        text: Any = config.text_config
        settings, width = config.comparison, text.hidden_size
        self.norm = nn.BatchNorm2d(1)
        self.conv = HeatConv(1, width, settings.kernel, settings.stride, settings.padding)
        self.soft_prompt = nn.Parameter(torch.empty(settings.soft_prompt_length, width))

    def train(self, mode: bool = True) -> ContrastHead:
        """Set the mode as torch does, and keep the norm's statistics fixed."""
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, heat: Tensor) -> Tensor:
        """Contrastive embeddings ``(C, m, d)`` of heat maps ``(C, 1, H, W)``, row by row."""
        features: Tensor = self.conv(self.norm(heat.to(self.conv.weight.dtype)))
        return features.flatten(2).transpose(1, 2)


class EmitForConditionalGeneration(InternVLForConditionalGeneration):
    """InternVL that can be shown how a query image differs from its references.

    Besides InternVL's arguments, :meth:`forward` and ``generate`` take what the placeholders are filled from,
    for the C rows that hold placeholders, in their order:

    - ``comparison_pixel_values`` ``(C, 1 + R, 3, S, S)``: the whole query image, then its R references; or
    - ``heat_maps`` ``(C, 1, H, W)``: already computed by :meth:`compare`.
    """

    config: EmitConfig
    config_class = EmitConfig
    _keep_in_fp32_modules_strict = {"contrast"}  # noqa: RUF012 - Hugging Face's own attribute and type

    def __init__(self, config: EmitConfig) -> None:
        super().__init__(config)
        self.contrast = ContrastHead(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def from_internvl(
        cls, folder: str | PathLike[str], contrast: Contrast, **kwargs: Any
    ) -> EmitForConditionalGeneration:
        """An untrained EMIT around a plain InternVL checkpoint; ``kwargs`` go to ``from_pretrained``.

        Raises:
            ValueError: the checkpoint lacks parameters of InternVL; Hugging Face would draw them at random.
        """
        config = EmitConfig.from_internvl(InternVLConfig.from_pretrained(folder), contrast)
        wants_report = kwargs.pop("output_loading_info", False)
        loaded: Any = cls.from_pretrained(folder, config=config, output_loading_info=True, **kwargs)
        model, report = loaded
        missing = sorted(key for key in report["missing_keys"] if not key.startswith("contrast."))
        if missing:
            raise ValueError(
                f"{folder}: the checkpoint lacks {len(missing)} parameter(s), such as {missing[0]}"
            )
        return cast(EmitForConditionalGeneration, loaded if wants_report else model)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, HeatConv):
            init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")
            assert module.bias is not None
            init.zeros_(module.bias)
        elif isinstance(module, ContrastHead):
            text: Any = self.config.text_config
            init.normal_(module.soft_prompt, std=text.initializer_range)
        else:
            super()._init_weights(module)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def init_soft_prompt(self, hint_ids: Sequence[int]) -> None:
        """Start the soft prompt from the word embeddings of a hint's tokens.

        Args:
            hint_ids: token ids of the hint. A longer hint is cut; a shorter one is repeated.
        """
        if not hint_ids:
            raise ValueError("the hint of the soft prompt has no tokens")
        length = len(self.contrast.soft_prompt)
        ids = [hint_ids[i % len(hint_ids)] for i in range(length)]
        table = cast(Tensor, self.get_input_embeddings().weight)
        self.contrast.soft_prompt.copy_(table[torch.tensor(ids, device=table.device)])

    @torch.no_grad()
    def init_projector(self, low: int, high: int, gain: float = 0.5) -> None:
        """Start the projector, like the soft prompt, from word embeddings: cool is ``low``, hot is ``high``.

        The middle of a convolution's window, in units of the batch norm, moves the embedding from the one to
        the other, beginning one standard deviation above the mean. So alignment starts in a language that a
        small frozen model reads; a large one learns from the random start of the released code.

        Args:
            low: token id of what a cool place says.
            high: token id of what a hot place says.
            gain: how far one standard deviation moves, 1 being all the way.
        """
        table = cast(Tensor, self.get_input_embeddings().weight)
        conv = self.contrast.conv
        way, middle = table[high] - table[low], conv.kernel_size[0] // 2
        assert conv.bias is not None
        conv.weight.zero_()
        conv.weight[:, 0, middle - 1 : middle + 1, middle - 1 : middle + 1] = gain / 4 * way[:, None, None]
        conv.bias.copy_(table[low] - gain * way)

    def encode_images(self, pixel_values: Tensor) -> tuple[Tensor, list[Tensor]]:
        """One pass of the vision tower for both its uses.

        Args:
            pixel_values: ``(N, 3, S, S)``.

        Returns:
            Image features for the language model, ``(N, n, d)``, and what :meth:`compare` takes: one tensor
            ``(N, H, W, D)`` for each of the configured layers.
        """
        outputs = self.get_image_features(pixel_values=pixel_values, output_hidden_states=True)
        return outputs.pooler_output, self._patches(outputs.hidden_states)

    def patch_features(self, pixel_values: Tensor) -> list[Tensor]:
        """Patch features of the configured layers, ``(N, H, W, D)`` each, of images ``(N, 3, S, S)``."""
        tower = self.model.vision_tower
        outputs = tower(pixel_values=pixel_values.to(self.dtype), output_hidden_states=True)
        return self._patches(outputs.hidden_states)

    def _patches(self, hidden_states: Sequence[Tensor]) -> list[Tensor]:
        """Drop the class token and lay the patches out as an image."""
        grid = self.config.grid
        chosen = [hidden_states[layer][:, 1:] for layer in self.config.comparison.layers]
        return [layer.reshape(len(layer), *grid, -1) for layer in chosen]

    def reference_views(self, pixel_values: Tensor) -> Tensor:
        """The configured rotations of every reference: ``(R, 3, S, S)`` to ``(R * rotations, 3, S, S)``."""
        turns = self.config.comparison.rotations
        return torch.stack([torch.rot90(pixel_values, turn, (-2, -1)) for turn in turns], dim=1).flatten(0, 1)

    def compare(self, query: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Heat maps ``(C, 1, H, W)`` by Eq. 1.

        Args:
            query: ``(C, H, W, D)`` a layer, as :meth:`encode_images` and :meth:`patch_features` return them.
            reference: ``(C, R, H, W, D)`` a layer: R views of each reference.
        """
        settings = self.config.comparison
        return heat_map(
            query, reference, window=settings.window, outside=settings.outside, fuse=settings.fuse
        )

    @torch.no_grad()
    def compare_pixels(self, pixel_values: Tensor) -> Tensor:
        """Heat maps ``(C, 1, H, W)`` of images ``(C, 1 + R, 3, S, S)``: the query, then its references.

        No gradient flows to the vision tower, as in the released training.
        """
        count = len(pixel_values)
        query = self.patch_features(pixel_values[:, 0])
        views = torch.cat([self.reference_views(references) for references in pixel_values[:, 1:]])
        reference = [layer.reshape(count, -1, *layer.shape[1:]) for layer in self.patch_features(views)]
        return self.compare(query, reference)

    def hints(self, heat_maps: Tensor) -> Tensor:
        """What the placeholders become: ``(C, 1, H, W)`` to ``(C, placeholders, d)``, soft prompt first."""
        settings, parts = self.config.comparison, []
        if settings.use_soft_prompt:
            parts.append(self.contrast.soft_prompt.expand(len(heat_maps), -1, -1))
        if settings.use_contrast:
            parts.append(self.contrast(heat_maps))
        return torch.cat(parts, dim=1)

    def embed_prompt(
        self, input_ids: Tensor, image_features: Tensor | None = None, hints: Tensor | None = None
    ) -> Tensor:
        """Input embeddings ``(B, T, d)`` with image features and hints in their places.

        Args:
            input_ids: ``(B, T)``.
            image_features: ``(N, n, d)``: the tiles of all images, in the order of their tokens.
            hints: ``(C, placeholders, d)``: one for each row that holds placeholders.

        Raises:
            ValueError: the ids hold more or fewer places than there are vectors.
        """
        comp = input_ids == self.config.comparison.comp_token_id
        # The placeholder's id may lie beyond the embedding matrix: any id serves until it is overwritten.
        embeds: Tensor = self.get_input_embeddings()(input_ids.masked_fill(comp, 0))
        embeds = _fill(embeds, input_ids == self.config.image_token_id, image_features, "image")
        return _fill(embeds, comp, hints, "<COMP_CONTEXT>")

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        comparison_pixel_values: Tensor | None = None,
        heat_maps: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """InternVL's forward; see the class for the two arguments that EMIT adds.

        Raises:
            ValueError: placeholders without a comparison, the reverse, or both kinds of comparison.
        """
        if heat_maps is not None and comparison_pixel_values is not None:
            raise ValueError("give heat_maps or comparison_pixel_values, not both")
        if comparison_pixel_values is not None:
            heat_maps = self.compare_pixels(comparison_pixel_values)
        if input_ids is None and heat_maps is not None:
            raise ValueError("inputs_embeds already hold their hints; make them with embed_prompt")
        if input_ids is not None and inputs_embeds is None:
            images = (mm_encoder_outputs or {}).get("image")
            if images is None and pixel_values is not None:
                images = self.get_image_features(pixel_values=pixel_values, return_dict=True)
            inputs_embeds = self.embed_prompt(
                input_ids,
                None if images is None else images.pooler_output,
                None if heat_maps is None else self.hints(heat_maps),
            )
        return super().forward(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *args: Any, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> Any:
        """As InternVL's, with the comparison in the prompt's pass only."""
        if not is_first_iteration and kwargs.get("use_cache", True):
            kwargs.pop("comparison_pixel_values", None)
            kwargs.pop("heat_maps", None)
        parent: Any = super()
        return parent.prepare_inputs_for_generation(
            input_ids, *args, is_first_iteration=is_first_iteration, **kwargs
        )


def _fill(embeds: Tensor, places: Tensor, vectors: Tensor | None, what: str) -> Tensor:
    """Overwrite ``places`` ``(B, T)`` of ``embeds`` with ``vectors`` ``(..., d)`` in order."""
    found, given = int(places.sum()), 0 if vectors is None else vectors.shape[:-1].numel()
    if found != given:
        raise ValueError(f"the prompt holds {found} {what} tokens, but {given} vectors are given for them")
    if vectors is None or found == 0:
        return embeds
    return embeds.masked_scatter(places.unsqueeze(-1), vectors.to(embeds.device, embeds.dtype))


AutoModelForImageTextToText.register(EmitConfig, EmitForConditionalGeneration, exist_ok=True)
# On disk parameters have InternVL's names (``language_model.lm_head``), also when EMIT wrote them.
register_checkpoint_conversion_mapping(
    EmitConfig.model_type, get_checkpoint_conversion_mapping(InternVLConfig.model_type), overwrite=True
)
