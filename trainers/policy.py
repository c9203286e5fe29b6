"""The model under training, through three verbs: look at a prompt, embed it, score what follows it.

Pixels stop here: sampler and losses see input embeddings and log-probabilities only. An image is encoded once
for every prompt of its step, and once for the whole training where the tower does not learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from plugins.engine.images import CACHE_BYTES, EncodedImage, FeatureCache
from plugins.engine.model import end_ids
from plugins.engine.prompts import PromptBuilder
from trainers.packing import Attention, Branch, Suffix, completion_states, pack, require_plain_positions
from trainers.prompts import Image, TrainingPrompt

#: Rows of the head that are computed at once; recomputed in the backward pass, so logits never pile up.
HEAD_ROWS = 512


@dataclass(frozen=True, slots=True)
class Sight:
    """What the vision side gives for one prompt."""

    features: Tensor | None  #: (tiles, n, d), None for a prompt without images
    heat: Tensor | None  #: (1, 1, H, W) of query against references, None where nothing is compared


class Policy:
    """An EMIT model that learns, with its reference inside it.

    The reference of the KL divergence is the same network with adapters off: what it was when stage 2 began,
    projector and soft prompt included.

    Args:
        model: an ``EmitForConditionalGeneration``; adapters may already be injected.
        processor: its processor.
        adapters: the peft wrapper around ``model``, or None where nothing but the contrast head learns.
        cache_bytes: most memory for image features that do not change.
        attention: what computes packed rows.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        adapters: Any = None,
        *,
        cache_bytes: int = CACHE_BYTES,
        attention: Attention = "sdpa",
    ) -> None:
        require_plain_positions(model.model.language_model)
        _require_no_dropout(model)
        self.model = model
        self.processor = processor
        self.adapters = adapters
        self.attention = attention
        self._refers = False
        self.ends = end_ids(model, processor)
        self.pad = int(processor.tokenizer.pad_token_id)
        self.suppressed = self._suppressed()
        self.cache = FeatureCache(cache_bytes)
        self.counts: Counter[str] = Counter()
        self._head: Tensor | None = None

    # What learns.

    def learners(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name, in a fixed order."""
        found = self.model.named_parameters()
        return {name: parameter for name, parameter in found if parameter.requires_grad}

    @property
    def tower_learns(self) -> bool:
        """Whether image features change as training goes on, so that they cannot be kept."""
        seeing = (self.model.model.vision_tower, self.model.model.multi_modal_projector)
        return any(parameter.requires_grad for part in seeing for parameter in part.parameters())

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return cast(torch.device, self.model.device)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within, the model is what it was before its adapters learnt; no gradients."""
        off = self.adapters.disable_adapter() if self.adapters is not None else nullcontext()
        self._refers = True
        try:
            with torch.no_grad(), off:
                yield
        finally:
            self._refers = False

    @contextmanager
    def caching(self) -> Iterator[None]:
        """Within, layers keep key-value caches: under gradient checkpointing they would drop them.

        The mode stays what it is; no layer but these depends on it, and 4-bit layers on a CPU would repack
        their weights at every change.
        """
        layers = [
            module for module in self.model.modules() if getattr(module, "gradient_checkpointing", False)
        ]
        for layer in layers:
            layer.gradient_checkpointing = False
        try:
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = True

    # Look.

    def look(self, prompt: TrainingPrompt) -> Sight:
        """Image features and heat map of a prompt; with gradients where the tower learns and they are on."""
        images = [self._encode(image) for image in prompt.images]
        features = torch.cat([image.features for image in images]) if images else None
        settings = self.model.config.comparison
        if not (any(prompt.contrastive) and settings.use_contrast):
            return Sight(features, None)
        query = images[-1]
        views = [
            self._views(shown, image)
            for shown, image in zip(prompt.images[: prompt.references], images, strict=False)
        ]
        with torch.no_grad():  # no gradient through the comparison, as in the released training
            heat = self.model.compare(
                [layer[None].detach() for layer in query.patches],
                [torch.cat(layers)[None].detach() for layers in zip(*views, strict=True)],
            )
        return Sight(features, heat)

    def _encode(self, image: Image) -> EncodedImage:
        def make() -> EncodedImage:
            self.counts["images_encoded"] += 1
            self.counts["tiles_encoded"] += len(image.pixels)
            pixels = image.pixels.to(self.device)
            features, patches = self.model.encode_images(pixels)
            # Copies of one tile, not views that hold all of them.
            whole = tuple(layer[-1].clone() for layer in patches)
            return EncodedImage(features, pixels[-1].clone(), whole)

        if self.tower_learns and not self._refers:
            return make()
        with torch.no_grad():
            found: EncodedImage = self.cache.get(image.digest, make, lambda encoded: encoded.tensors)
        return found

    def _views(self, shown: Image, image: EncodedImage) -> Sequence[Tensor]:
        """Patches of every rotation of a reference, a layer each (views, H, W, D)."""
        settings = self.model.config.comparison
        if settings.rotations == (0,):
            return [layer[None] for layer in image.patches]

        def make() -> Sequence[Tensor]:
            assert image.whole is not None
            views = self.model.reference_views(image.whole[None])
            self.counts["reference_views_encoded"] += len(views)
            return list(self.model.patch_features(views))

        with torch.no_grad():
            if self.tower_learns and not self._refers:
                return make()
            found: Sequence[Tensor] = self.cache.get(f"{shown.digest}/views", make, tuple)
        return found

    # Embed and score.

    def embed(self, prompt: TrainingPrompt, sight: Sight, row: int = 0) -> Tensor:
        """Input embeddings of one question's whole prompt, (1, P, d)."""
        ids = torch.tensor([prompt.rows[row]], device=self.device)
        return self._fill(ids, sight, int(prompt.contrastive[row]))

    def embed_shared(self, prompt: TrainingPrompt, sight: Sight) -> Tensor:
        """Input embeddings of what all its questions share, images included, (1, P, d)."""
        ids = torch.tensor([prompt.rows[0][: prompt.shared]], device=self.device)
        return self._fill(ids, sight, 0)

    def embed_question(self, prompt: TrainingPrompt, sight: Sight, row: int) -> Tensor:
        """Input embeddings of one question behind what is shared, hints included, (S, d)."""
        ids = torch.tensor([prompt.rows[row][prompt.shared :]], device=self.device)
        return self._fill(ids, Sight(None, sight.heat), int(prompt.contrastive[row]))[0]

    def log_probs(
        self,
        prompt: TrainingPrompt,
        sight: Sight,
        prefix: Sequence[int],
        suffixes: Sequence[Suffix | Branch],
        *,
        contrastive: int,
        temperature: float = 1.0,
        suppress: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of every completion token of one packed row, in float32 at least.

        Args:
            prompt: whose images and hints stand in the row.
            sight: what :meth:`look` gave for it.
            prefix: token ids that all suffixes share.
            suffixes: what follows it: questions with their answers or responses.
            contrastive: how many times the row holds the placeholders of a contrastive prompt.
            temperature: logits are divided by it.
            suppress: whether tokens that the sampler never draws have no probability.

        Returns:
            (N,) log-probabilities and (N,) the number of the response that each belongs to, in order.
        """
        batch = pack([(prefix, suffixes)], self.pad).to(self.device)
        self.counts["scored_tokens"] += batch.input_ids.numel()
        embeds = self._fill(batch.input_ids, sight, contrastive)
        states = completion_states(self.model.model.language_model, batch, embeds, self.attention)
        found = [
            self._chunk(
                states[at : at + HEAD_ROWS], batch.targets[at : at + HEAD_ROWS], temperature, suppress
            )
            for at in range(0, len(states), HEAD_ROWS)
        ]
        return torch.cat(found) if found else states.new_zeros(0), batch.owners

    def logits(self, states: Tensor, *, suppress: bool = True) -> Tensor:
        """Scores (N, V) of hidden states (N, d), in float32 at least; sampler and scorer both come here."""
        kind = torch.promote_types(states.dtype, torch.float32)
        if self._head is None or self._head.dtype != kind:
            weight = self.model.lm_head.weight.detach()
            self._head = weight if weight.dtype == kind else weight.to(kind)
        scores = F.linear(states.to(kind), self._head)
        if suppress:
            scores = scores.index_fill(-1, self.suppressed, -torch.inf)
        return scores

    def _chunk(self, states: Tensor, targets: Tensor, temperature: float, suppress: bool) -> Tensor:
        def score(states: Tensor) -> Tensor:
            logits = self.logits(states, suppress=suppress) / temperature
            return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]

        if not torch.is_grad_enabled():
            return score(states)
        return cast(Tensor, checkpoint(score, states, use_reentrant=False))

    def _fill(self, ids: Tensor, sight: Sight, contrastive: int) -> Tensor:
        hints = None
        if contrastive:
            heat = sight.heat if sight.heat is not None else ids.new_zeros((1, 1, 1, 1), dtype=torch.float32)
            hints = self.model.hints(heat).repeat(contrastive, 1, 1)
        return cast(Tensor, self.model.embed_prompt(ids, sight.features, hints))

    def _suppressed(self) -> Tensor:
        """Ids that are never drawn: images, placeholders, turns, and rows that no token has."""
        control = PromptBuilder(self.processor).control_ids - self.ends
        rows, known = self.model.lm_head.weight.shape[0], len(self.processor.tokenizer)
        ids = {token for token in control if token < rows} | set(range(known, rows))
        return torch.tensor(sorted(ids), dtype=torch.long, device=self.device)


def _require_no_dropout(model: nn.Module) -> None:
    """Sampling and learning must see one network; raises ValueError naming the first active dropout."""
    for name, module in model.named_modules():
        share = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if isinstance(share, float) and share > 0:
            raise ValueError(
                f"{name} drops out with p = {share}; set it to 0 in the checkpoint's config.json"
            )
