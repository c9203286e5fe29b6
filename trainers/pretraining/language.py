"""Phase (b): the language model learns to answer questions about scenes described in words."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from emit_model.processing import load_processor
from plugins.mini.defects import DEFECTS
from trainers.packing import PackedBatch, pack
from trainers.pretraining.architecture import IMAGE_TOKENS, model_config
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
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    logits = model.lm_head(hidden[batch.rows, batch.columns])
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


def train(
    folder: Path,
    out: Path,
    steps: int,
    rows: int,
    seed: int,
    recalls: int,
    lists: int,
    start: Path | None = None,
) -> None:
    """Train the language model alone, on recall exercises, then lists, then scenes; saves it to ``out``."""
    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    processor = load_processor(folder)
    model = new_model(processor)
    if start is not None:
        model.model.language_model.load_state_dict(load_file(start))
    speaker = Speaker(processor.tokenizer, "", IMAGE_TOKENS)
    letters = letter_ids(processor)
    parameters = [*model.model.language_model.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.05, betas=(0.9, 0.98))
    started = time.monotonic()
    kinds = list(DEFECTS.values())
    seen = {True: [0.0, 0.0], False: [0.0, 0.0]}
    for step in range(1, steps + 1):
        rate = min(1.0, step / 60) * min(1.0, 0.05 + 1.9 * (steps - step) / steps)
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * rate
        think = rng.random_sample() < (0.8 if step < steps * 0.6 else 0.5)
        batch = []
        for _ in range(rows * (4 if step <= recalls else 1)):
            if step <= recalls:
                batch.append(recall_row(speaker, rng, 10))
                continue
            if step <= recalls + lists:
                batch.append(list_row(speaker, rng, 8))
                continue
            design = random_design(rng)
            fitting = [kind for kind in kinds if kind.fits(design)]
            defect = fitting[int(rng.random_sample() * len(fitting))] if rng.random_sample() < 0.6 else None
            batch.append(described_row(speaker, design, defect, think, rng))
        packed = pack(batch, pad=0)
        loss, right, tokens = packed_loss(
            model, packed, model.get_input_embeddings()(packed.input_ids), letters
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        mean = seen[think]
        mean[0] = right if not mean[0] else 0.9 * mean[0] + 0.1 * right
        mean[1] = tokens if not mean[1] else 0.9 * mean[1] + 0.1 * tokens
        if step % 25 == 0 or step == steps:
            print(
                f"{step}/{steps} {time.monotonic() - started:.0f}s loss {loss.item():.3f} "
                f"think {seen[True][0]:.3f} tokens {seen[True][1]:.3f} direct {seen[False][0]:.3f}",
                flush=True,
            )
        if step % 200 == 0 or step == steps:
            save_file(model.model.language_model.state_dict(), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processor", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--recalls", type=int, default=500, help="first steps, of recall exercises")
    parser.add_argument("--lists", type=int, default=200, help="next steps, of plain option lists")
    parser.add_argument("--start", type=Path, help="a language model saved earlier, to go on from")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(
        options.processor,
        options.out,
        options.steps,
        options.rows,
        2,
        options.recalls,
        options.lists,
        options.start,
    )
