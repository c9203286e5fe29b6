"""Phase (a): dense supervision of the vision tower, before it meets a word.

Every patch says which product it belongs to and which defect it shows; the pooled picture says colours and
count. On image questions alone so small a tower stays at chance for thousands of steps.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from plugins.mini.pieces import BACKDROPS
from trainers.pretraining.architecture import vision_config
from trainers.pretraining.scenes import COLOUR_NAMES, KINDS, NOUNS, Scenes

STEPS = 4000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(pixels: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W), ImageNet-normalised as the processor does."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(255)
    return ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2).contiguous()


class DenseHeads(nn.Module):
    """Linear read-outs of patch features, thrown away afterwards."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(width, len(KINDS) + 1)
        self.noun = nn.Linear(width, len(NOUNS))
        self.body = nn.Linear(width, 1)
        self.whole = nn.ModuleDict(
            {
                "noun": nn.Linear(width, len(NOUNS)),
                "body": nn.Linear(width, len(COLOUR_NAMES)),
                "trim": nn.Linear(width, len(COLOUR_NAMES)),
                "count": nn.Linear(width, 10),
                "backdrop": nn.Linear(width, len(BACKDROPS)),
            }
        )

    def forward(
        self, patches: torch.Tensor, truth: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss over (B, P, D) patch features, and accuracies."""
        kind = self.kind(patches)
        weight = torch.ones(len(KINDS) + 1)
        weight[0] = 0.06  # nineteen patches in twenty show none
        loss = 2 * F.cross_entropy(kind.flatten(0, 1), truth["kind"].flatten(), weight=weight)
        loss = loss + 0.5 * F.binary_cross_entropy_with_logits(
            self.body(patches).squeeze(-1), truth["body_map"]
        )
        inside = truth["body_map"] > 0.5
        noun_truth = truth["noun"][:, None].expand_as(inside)
        loss = loss + 0.3 * F.cross_entropy(self.noun(patches)[inside], noun_truth[inside])
        pooled = patches.mean(1)
        report = {}
        for name, head in self.whole.items():
            logits = head(pooled)
            loss = loss + 0.5 * F.cross_entropy(logits, truth[name])
            report[name] = (logits.argmax(-1) == truth[name]).float().mean().item()
        shown = truth["kind"] > 0
        report["defect_patch"] = (kind.argmax(-1) == truth["kind"])[shown].float().mean().item()
        report["clean_patch"] = (kind.argmax(-1) == truth["kind"])[~shown].float().mean().item()
        return loss, report


def batch_of(
    scenes: Scenes, chosen: np.ndarray, views: np.ndarray
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pixels and truths of (scene, view) pairs."""
    pixels = np.stack([scenes.pixels[s, v] for s, v in zip(chosen, views, strict=True)])
    share = torch.from_numpy(
        np.stack([scenes.patches[s, v] for s, v in zip(chosen, views, strict=True)])
    ).flatten(1)
    body = torch.from_numpy(
        np.stack([scenes.body[s, v] for s, v in zip(chosen, views, strict=True)])
    ).flatten(1)
    defect = torch.tensor([int(scenes.defect[s, v]) + 1 for s, v in zip(chosen, views, strict=True)])
    look = torch.from_numpy(np.stack([scenes.look[s] for s in chosen]).astype(np.int64))
    truth = {
        "kind": torch.where(share > 0.06, defect[:, None], 0),
        "body_map": body,
        "noun": look[:, 0],
        "body": look[:, 1],
        "trim": look[:, 2],
        "count": look[:, 3],
        "backdrop": look[:, 4],
    }
    return normalise(pixels), truth


def train(scenes: Scenes, out: Path, steps: int, batch: int, seed: int, start: Path | None = None) -> None:
    """Train the tower and save its state dict to ``out`` now and then."""
    from transformers import InternVLVisionModel

    torch.manual_seed(seed)
    rng = np.random.RandomState(seed)
    tower = InternVLVisionModel(vision_config())
    if start is not None:
        tower.load_state_dict(load_file(start))
    heads = DenseHeads(tower.config.hidden_size)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.5e-3, total_steps=steps, pct_start=0.06)
    faulty = np.flatnonzero(np.asarray(scenes.defect[:, 2]) >= 0)
    started = time.monotonic()
    for step in range(1, steps + 1):
        chosen = np.where(
            rng.random_sample(batch) < 0.75, rng.choice(faulty, batch), rng.randint(0, len(scenes), batch)
        )
        views = np.where(rng.random_sample(batch) < 0.9, 2, rng.randint(0, 2, batch))
        pixels, truth = batch_of(scenes, chosen, views)
        loss, report = heads(tower(pixel_values=pixels).last_hidden_state[:, 1:], truth)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            figures = " ".join(f"{name} {value:.2f}" for name, value in report.items())
            print(
                f"{step}/{steps} {time.monotonic() - started:.0f}s loss {loss.item():.3f} {figures}",
                flush=True,
            )
        if step % 500 == 0 or step == steps:
            save_file(tower.state_dict(), out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="a tower saved earlier, to go on from")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(Scenes.open(options.scenes), options.out, options.steps, options.batch, 1, options.start)
