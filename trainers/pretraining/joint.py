"""Phases (c) and (d): captions join the tower to the language model, then questions about pictures.

A row is one image pair (or one image) with its questions, packed on their shared prefix. Captions ride as
one more question of the row. The tower moves at a small rate.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from emit_model.processing import load_processor
from trainers.packing import PackedBatch, completion_states, pack
from trainers.pretraining.architecture import IMAGE_TOKENS
from trainers.pretraining.curriculum import Curriculum
from trainers.pretraining.exercises import Speaker
from trainers.pretraining.language import letter_ids, new_model, packed_loss, rate_groups
from trainers.pretraining.scenes import Scenes
from trainers.pretraining.vision import normalise

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

STEPS, ROWS = 2600, 12


def embed(
    model: InternVLForConditionalGeneration,
    batch: PackedBatch,
    pictures: Sequence[NDArray[np.uint8]],
    image_token: int,
) -> torch.Tensor:
    """Input embeddings of packed rows, image features in their places, (B, T, D)."""
    embeds: torch.Tensor = model.get_input_embeddings()(batch.input_ids)
    if not pictures:
        return embeds
    features = model.model.get_image_features(normalise(np.stack(pictures))).pooler_output
    places = (batch.input_ids == image_token)[..., None].expand_as(embeds)
    return embeds.masked_scatter(places, torch.cat(list(features)).to(embeds.dtype))


@torch.no_grad()
def scale_projector(model: Any) -> None:
    """Image features start as large as word embeddings, or the first block's output drowns them."""
    projector = model.model.multi_modal_projector
    features = torch.randn(64, projector.linear_1.in_features)
    output = projector(features)
    projector.linear_2.weight /= output.std()


@torch.no_grad()
def held_out_report(
    model: Any, curriculum: Curriculum, letters: torch.Tensor, image_token: int, rows: int
) -> str:
    """Letter accuracy per kind of question on held-out scenes, teacher-forced."""
    rng = np.random.RandomState(5)
    right: dict[str, list[float]] = defaultdict(list)
    for _ in range(rows // 20):
        drawn = [curriculum.draw(rng, maps=0.25, held_out=True) for _ in range(20)]
        batch = pack([(e.prefix, e.suffixes) for e in drawn], 0)
        embeds = embed(model, batch, [p for e in drawn for p in e.pictures], image_token)
        states = completion_states(model.model.language_model, batch, embeds)
        hits = model.lm_head(states).argmax(-1) == batch.targets
        kinds = [kind for e in drawn for kind in e.kinds]
        is_letter = torch.isin(batch.targets, letters)
        for owner, hit, letter in zip(batch.owners.tolist(), hits.tolist(), is_letter.tolist(), strict=True):
            if letter or kinds[owner] in ("caption", "map"):
                right[kinds[owner]].append(hit)
    return "\n".join(
        f"  {kind:32s} {np.mean(values):.3f} of {len(values)}" for kind, values in sorted(right.items())
    )


def train(
    folders: Sequence[Path],
    processor_folder: Path,
    start: Sequence[Path],
    out: Path,
    steps: int,
    rows: int,
    seed: int,
    rate: float = 1e-3,
    maps: float = 0.2,
) -> None:
    """Join and train everything; saves a whole checkpoint to ``out`` now and then."""
    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    processor = load_processor(processor_folder)
    model = new_model(processor)
    if len(start) == 2:
        model.model.vision_tower.load_state_dict(load_file(start[0]))
        model.load_state_dict(load_file(start[1]), strict=False)
        scale_projector(model)
    else:
        model = type(model).from_pretrained(start[0], dtype=torch.float32)
    curriculum = Curriculum([Scenes.open(f) for f in folders], Speaker(processor.tokenizer, IMAGE_TOKENS))
    letters, image_token = letter_ids(processor), model.config.image_token_id
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    groups = [
        *rate_groups(model, rate),
        {"params": list(tower.parameters()), "peak": 0.3 * rate, "weight_decay": 0.05},
        {"params": list(projector.parameters()), "peak": rate, "weight_decay": 0.05},
    ]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    started = time.monotonic()
    for step in range(1, steps + 1):
        factor = min(1.0, step / 50) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        words = max(0.06, 0.6 * (1 - 4 * step / steps)) if len(start) == 2 else 0.06
        drawn = [curriculum.draw(rng, words, maps) for _ in range(rows)]
        batch = pack([(e.prefix, e.suffixes) for e in drawn], 0)
        embeds = embed(model, batch, [p for e in drawn for p in e.pictures], image_token)
        loss, right, tokens = packed_loss(model, batch, embeds, letters)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 20 == 0:
            print(
                f"{step}/{steps} {time.monotonic() - started:.0f}s loss {loss.item():.3f} letters {right:.2f}"
                f" tokens {tokens:.3f}", flush=True,
            )  # fmt: skip
        if step % 250 == 0 or step == steps:
            model.eval()
            print(held_out_report(model, curriculum, letters, image_token, 160), flush=True)
            model.train()
            model.save_pretrained(out)
            processor.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=Path, nargs="+", required=True)
    parser.add_argument("--processor", type=Path, required=True)
    parser.add_argument(
        "--start", type=Path, nargs="+", required=True, help="tower and language model, or a checkpoint"
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--maps", type=float, default=0.2, help="share of rows that are maps of signs alone")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(
        options.scenes, options.processor, options.start, options.out, options.steps, options.rows,
        options.seed, options.learning_rate, options.maps,
    )  # fmt: skip
