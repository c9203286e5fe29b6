"""Stage 1 (paper, "Training Strategy"): soft prompt and projector learn to speak to a frozen InternVL.

Supervised on Anomaly Discrimination and Defect Localization rows only. Nothing of the language model or the
vision tower moves; the batch norm's statistics move here, and are frozen ever after.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.packing import PackedBatch, Suffix, completion_states, pack

if TYPE_CHECKING:
    from emit_model.modeling import EmitForConditionalGeneration


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """One image pair with its questions, ready for the model."""

    prefix: tuple[int, ...]
    suffixes: tuple[Suffix, ...]  #: each holds the model's placeholders once
    pixel_values: Tensor  #: (R + 1, 3, S, S): the references in the order shown, then the query


@dataclass(frozen=True, slots=True)
class AlignmentSettings:
    """Stage 1's optimiser; the paper's values are for the 8B model."""

    steps: int
    pairs: int = 16  #: image pairs a step
    learning_rate: float = 1e-5
    warmup: float = 0.03  #: share of the steps
    report_every: int = 20


def with_placeholders(suffix: Suffix, tail: Sequence[int], comp: int, count: int) -> Suffix:
    """The suffix with ``count`` placeholders at the end of the user's turn, before ``tail``.

    Raises:
        ValueError: the suffix does not end with ``tail``.
    """
    if suffix.prompt[-len(tail) :] != tuple(tail):
        raise ValueError("the prompt does not end where the user's turn ends")
    return Suffix((*suffix.prompt[: -len(tail)], *(comp,) * count, *tail), suffix.completion)


def aligned_logits(
    model: EmitForConditionalGeneration, pairs: Sequence[ComparedPair], pad: int
) -> tuple[Tensor, PackedBatch]:
    """Logits at every completion token of packed pairs, (N, V), and the batch.

    Images are encoded once a pair. All pairs have the same number of references.
    """
    batch = pack([(pair.prefix, pair.suffixes) for pair in pairs], pad)
    pixels = torch.stack([pair.pixel_values for pair in pairs])
    with torch.no_grad():
        features, layers = model.encode_images(pixels.flatten(0, 1))
        if model.config.comparison.rotations == (0,):  # the very passes that the language model needs
            seen = [layer.unflatten(0, pixels.shape[:2]) for layer in layers]
            heat = model.compare([layer[:, -1] for layer in seen], [layer[:, :-1] for layer in seen])
        else:
            heat = model.compare_pixels(pixels.roll(1, dims=1))
    asked = torch.tensor([len(pair.suffixes) for pair in pairs])
    hints = model.hints(heat).repeat_interleave(asked, dim=0)
    embeds = model.embed_prompt(batch.input_ids, features, hints)
    states = completion_states(model.model.language_model, batch, embeds)
    return model.lm_head(states), batch


def align(
    model: EmitForConditionalGeneration,
    draw: Callable[[], ComparedPair],
    settings: AlignmentSettings,
    report: Callable[[str], None],
    pad: int,
) -> None:
    """Train ``model.contrast`` in place.

    Args:
        model: an EMIT whose language model and tower are to stay as they are.
        draw: the next image pair.
        settings: the optimiser.
        report: takes a line of progress now and then.
        pad: the padding token.
    """
    model.requires_grad_(False)
    head = model.contrast
    head.requires_grad_(True)
    head.norm_learns = True
    model.train(False)
    head.train()
    parameters = list(head.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    started = time.monotonic()
    warm = max(1, int(settings.steps * settings.warmup))
    for step in range(1, settings.steps + 1):
        factor = min(step / warm, 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * factor
        logits, batch = aligned_logits(model, [draw() for _ in range(settings.pairs)], pad)
        loss = F.cross_entropy(logits.float(), batch.targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % settings.report_every == 0 or step == settings.steps:
            right = (logits.argmax(-1) == batch.targets).float().mean().item()
            report(
                f"{step}/{settings.steps} {time.monotonic() - started:.0f}s "
                f"loss {loss.item():.4f} tokens {right:.3f}"
            )
    head.norm_learns = False
    model.train(False)
