"""Phase (b): the language model learns to answer questions about scenes described in words."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from emit_model.processing import load_processor
from plugins.mini.defects import DEFECTS
from trainers.packing import PackedBatch, Suffix, completion_states, pack
from trainers.pretraining.architecture import IMAGE_TOKENS, model_config, put_induction_within_reach
from trainers.pretraining.exercises import Speaker, described_row, list_row, recall_row
from trainers.pretraining.scenes import random_design

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration


def new_model(processor: Any) -> InternVLForConditionalGeneration:
    """The mini InternVL with random weights."""
    from transformers import InternVLForConditionalGeneration

    tokenizer = processor.tokenizer
    image, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<IMG_CONTEXT>", "<|endoftext|>"))
    model = InternVLForConditionalGeneration(model_config(len(tokenizer), image, pad, tokenizer.eos_token_id))
    put_induction_within_reach(model.model.language_model)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = pad
    return model


def packed_loss(
    model: InternVLForConditionalGeneration, batch: PackedBatch, embeds: torch.Tensor, letters: torch.Tensor
) -> tuple[torch.Tensor, float, float]:
    """Mean cross-entropy over completion tokens, accuracy over option letters, and over all of them.

    Args:
        model: the mini model.
        batch: packed rows.
        embeds: (B, T, D) input embeddings, image features already in place.
        letters: (5,) ids of the tokens A to E.
    """
    states = completion_states(model.model.language_model, batch, embeds)
    logits = model.lm_head(states)
    right = logits.argmax(-1) == batch.targets
    is_letter = torch.isin(batch.targets, letters)
    weight = torch.where(is_letter, 2.0, 1.0)
    loss = (F.cross_entropy(logits, batch.targets, reduction="none") * weight).sum() / weight.sum()
    return loss, right[is_letter].float().mean().item(), right.float().mean().item()


def letter_ids(processor: Any) -> torch.Tensor:
    """Token ids of the letters as an answer and as the end of a thought, (10,)."""
    tokenizer = processor.tokenizer
    return torch.tensor(
        [tokenizer(form).input_ids[-1] for letter in "ABCDE" for form in (letter, f" {letter}.")]
    )


def language_state(model: Any) -> dict[str, torch.Tensor]:
    """The language model and its head, under the whole model's names."""
    return {k: v for k, v in model.state_dict().items() if "language_model" in k or k.startswith("lm_head")}


def rate_groups(model: Any, peak: float) -> list[dict[str, Any]]:
    """Optimiser groups: word embeddings move ten times slower, or rare words never hold still to be bound."""
    language_model = model.model.language_model
    slow = list(language_model.embed_tokens.parameters())
    known = {id(parameter) for parameter in slow}
    both = [*language_model.parameters(), *model.lm_head.parameters()]
    rest = [parameter for parameter in both if id(parameter) not in known]
    return [
        {"params": rest, "peak": peak, "lr": peak, "weight_decay": 0.05},
        {"params": slow, "peak": peak / 10, "lr": peak / 10, "weight_decay": 0.0},
    ]


STAGES = ("recall", "list", "scene")


@dataclass(frozen=True, slots=True)
class Settings:
    """How long the language model trains, and how fast."""

    steps: int = 400  #: of described scenes, after the warm-up exercises
    rows: int = 12
    learning_rate: float = 1e-3
    patience: int = 800  #: most steps of each warm-up exercise
    mastered: float = 0.97  #: letter accuracy at which the next exercise begins


def draw_rows(
    stage: str, speaker: Speaker, think: bool, rng: np.random.RandomState, rows: int
) -> list[tuple[tuple[int, ...], list[Suffix]]]:
    """Rows of one exercise: ``recall``, ``list`` or ``scene``."""
    if stage == "recall":
        return [recall_row(speaker, rng, 16) for _ in range(rows)]
    if stage == "list":
        return [list_row(speaker, rng, 8) for _ in range(rows)]
    batch = []
    for _ in range(rows):
        design = random_design(rng)
        fitting = [kind for kind in DEFECTS.values() if kind.fits(design)]
        defect = fitting[int(rng.random_sample() * len(fitting))] if rng.random_sample() < 0.6 else None
        batch.append(described_row(speaker, design, defect, think, rng))
    return batch


def train(
    folder: Path,
    out: Path,
    settings: Settings,
    seed: int,
    start: Path | None = None,
    stages: Sequence[str] = STAGES,
) -> None:
    """Train the language model alone on one exercise after the other; saves it to ``out``."""
    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    processor = load_processor(folder)
    model = new_model(processor)
    if start is not None:
        model.load_state_dict(load_file(start), strict=False)
    speaker, letters = Speaker(processor.tokenizer, IMAGE_TOKENS), letter_ids(processor)
    groups = rate_groups(model, settings.learning_rate)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    started, total = time.monotonic(), 0
    for stage in stages:
        last = settings.steps if stage == "scene" else settings.patience
        mean = 0.0
        for step in range(1, last + 1):
            total += 1
            decay = min(1.0, 0.05 + 1.6 * (last - step) / last) if stage == "scene" else 1.0
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * min(1.0, total / 60) * decay
            packed = pack(
                draw_rows(stage, speaker, bool(rng.random_sample() < 0.6), rng, settings.rows), pad=0
            )
            embeds = model.get_input_embeddings()(packed.input_ids)
            loss, right, tokens = packed_loss(model, packed, embeds, letters)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            mean = 0.95 * mean + 0.05 * right
            if step % 50 == 0 or step == last:
                print(
                    f"{stage} {step}/{last} {time.monotonic() - started:.0f}s loss {loss.item():.3f} "
                    f"letters {mean:.3f} tokens {tokens:.3f}",
                    flush=True,
                )
            if step % 200 == 0 or step == last:
                save_file(language_state(model), out)
            if stage != "scene" and mean > settings.mastered:
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processor", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400, help="of described scenes")
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--start", type=Path, help="a language model saved earlier, to go on from")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = Settings(options.steps, options.rows, options.learning_rate)
    train(options.processor, options.out, chosen, 2, options.start, options.stages.split(","))
