"""Phases (c) and (d): captions join the tower to the language model, then questions about pictures.

A row is one image pair (or one image) with its questions, packed on their shared prefix. Captions ride as
one more question of the row. The tower moves at a small rate.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from emit_model.processing import HINT, load_processor
from harness.protocol import IMAGE_MARK, shipped_protocols
from plugins.mini.defects import DEFECTS, Defect
from plugins.mini.questions import (
    CELLS,
    NUMBERS,
    Choice,
    anomaly_question,
    defect_choices,
    sentence,
    trim_part,
)
from plugins.mini.render import GRID
from trainers.packing import PackedBatch, Suffix, pack
from trainers.pretraining.architecture import IMAGE_TOKENS
from trainers.pretraining.exercises import (
    Speaker,
    choices_for,
    described_row,
    knowledge_lines,
    list_row,
    question_suffix,
    render_content,
)
from trainers.pretraining.language import letter_ids, new_model, packed_loss, rate_groups
from trainers.pretraining.scenes import KINDS, SIZE, Scenes
from trainers.pretraining.vision import normalise

if TYPE_CHECKING:
    from transformers import InternVLForConditionalGeneration

STEPS, ROWS = 2600, 12
TURN_END = "<|im_end|>\n<|im_start|>assistant\n"
HELD_OUT = 200  #: last scenes, never trained on


@dataclass(frozen=True, slots=True)
class Exercise:
    """One row before it is packed."""

    prefix: tuple[int, ...]
    suffixes: tuple[Suffix, ...]
    pictures: tuple[NDArray[np.uint8], ...]  #: in the order of their tokens in the row
    kinds: tuple[str, ...]  #: what each suffix asks, for the report


@dataclass(frozen=True)
class Curriculum:
    """Draws exercises from rendered scenes."""

    scenes: Sequence[Scenes]
    speaker: Speaker

    def draw(
        self, rng: np.random.RandomState, words: float = 0.08, maps: float = 0.0, held_out: bool = False
    ) -> Exercise:
        """One random exercise: mostly image pairs, some single images and spots, a share of ``words``."""
        scenes = self.scenes[int(rng.random_sample() * len(self.scenes))]
        last = len(scenes) - HELD_OUT
        scene = last + int(rng.random_sample() * HELD_OUT) if held_out else int(rng.random_sample() * last)
        think = bool(rng.random_sample() < 0.5)
        if rng.random_sample() < maps:
            return self._maps(rng, think)
        if rng.random_sample() < words and not held_out:
            if rng.random_sample() < words:  # plain lists early on only
                prefix, suffixes = list_row(self.speaker, rng, 6)
                return Exercise(prefix, tuple(suffixes), (), ("list",) * 6)
            design = scenes.design(scene)
            defect = self._defect(scenes, scene, 2)
            prefix, suffixes = described_row(self.speaker, design, defect, think, rng, lists=1)
            return Exercise(prefix, tuple(suffixes[:6]), (), ("words",) * min(6, len(suffixes)))
        kind = rng.random_sample()
        if kind < 0.08 and not held_out:
            return self._spots(rng, think)
        if kind < 0.70 and scenes.faulty[scene]:
            return self._pair(scenes, scene, 1 if rng.random_sample() < 0.3 else 2, think, rng)
        if kind < 0.25:
            return self._pair(scenes, scene, 1, think, rng)
        return self._single(scenes, scene, think, rng)

    def _defect(self, scenes: Scenes, scene: int, view: int) -> Defect | None:
        index = int(scenes.defect[scene, view])
        return None if index < 0 else DEFECTS[KINDS[index]]

    def _cells(self, scenes: Scenes, scene: int, view: int) -> list[int]:
        counts = scenes.cells[scene, view].flatten()
        return [int(cell) for cell in np.argsort(-counts, kind="stable") if counts[cell]]

    def _caption(self, scenes: Scenes, scene: int, view: int) -> Suffix:
        design, defect = scenes.design(scene), self._defect(scenes, scene, view)
        look = design.look
        lines = [
            f"product: {sentence(design.family.noun)}",
            f"{design.family.part}: {NUMBERS[look.count]}",
            f"body: {sentence(look.body)}",
            f"{trim_part(design)}: {sentence(look.trim)}",
            f"defect: {sentence(defect.name) if defect else 'Normal.'}",
        ]
        if defect is not None:
            lines.append(f"place: {CELLS[self._cells(scenes, scene, view)[0]]}")
        return self.speaker.suffix("\nDescribe the last image.", "\n".join(lines))

    def _pair(
        self, scenes: Scenes, scene: int, view: int, think: bool, rng: np.random.RandomState
    ) -> Exercise:
        design, defect = scenes.design(scene), self._defect(scenes, scene, view)
        plain = rng.random_sample() < 0.25
        protocol = shipped_protocols()[1 if plain else 0]
        texts = [] if plain else knowledge_lines(design, defect, rng)
        prefix = self.speaker.prefix(protocol.system, render_content(protocol, 1, texts, think))
        choices = choices_for(design, defect, self._cells(scenes, scene, view))
        if defect is None and not plain:
            choices = choices[:1]
        pictures = (scenes.pixels[scene, 0], scenes.pixels[scene, view])
        asked = self._asked(prefix, choices, pictures, think, rng, self._caption(scenes, scene, view))
        kind = rng.random_sample()
        if plain or kind < 0.25:
            return asked
        if kind < 0.5:
            return self._with_pointer(asked, scenes.patches[scene, view], rng)
        return self._told(prefix, pictures, think, rng)

    def _told(
        self,
        prefix: tuple[int, ...],
        pictures: tuple[NDArray[np.uint8], ...],
        think: bool,
        rng: np.random.RandomState,
    ) -> Exercise:
        """A pair with a map that has nothing to do with it and is right: hints are to be followed."""
        share, cell = random_mark(rng)
        defect = DEFECTS[KINDS[int(rng.random_sample() * len(KINDS))]]
        choices = [anomaly_question(defect if cell is not None else None)]
        if cell is not None:
            choices.append(defect_choices(defect, [cell])[1])
        choices = [replace(choice, evidence="") for choice in choices]
        protocol = shipped_protocols()[0]
        suffixes = tuple(question_suffix(self.speaker, protocol, choice, think, rng) for choice in choices)
        names = tuple(f"told {choice.raw_type}" for choice in choices)
        return self._with_pointer(Exercise(prefix, suffixes, pictures, names), share, rng)

    def _with_pointer(
        self, exercise: Exercise, share: NDArray[np.float32], rng: np.random.RandomState
    ) -> Exercise:
        """After "is there" and "where" questions a map that marks the defect, in signs or as a picture.

        Signs and pictures that point into other pictures are common in interleaved text.
        """
        signs = bool(rng.random_sample() < 0.8)
        suffixes, kinds = list(exercise.suffixes), list(exercise.kinds)
        pictures = list(exercise.pictures)
        for i, kind in enumerate(exercise.kinds):
            if "Anomaly Detection" not in kind and "Localization" not in kind:
                continue
            pointer = HINT * int(rng.random_sample() * 10) + (sign_map(rng, share) if signs else IMAGE_MARK)
            suffixes[i] = self._at_the_end(suffixes[i], pointer)
            kinds[i] = f"pointed {kind}"
            if not signs:
                pictures.append(pointer_picture(rng, share))
        return Exercise(exercise.prefix, tuple(suffixes), tuple(pictures), tuple(kinds))

    def _maps(self, rng: np.random.RandomState, think: bool) -> Exercise:
        """Maps of signs alone, no picture: what is read can come from nowhere else."""
        protocol = shipped_protocols()[0]
        prefix = self.speaker.prefix(protocol.system, protocol.instructions["think" if think else "direct"])
        suffixes, kinds = [], []
        for _ in range(6):
            share, cell = random_mark(rng)
            pointer = HINT * int(rng.random_sample() * 10) + sign_map(rng, share)
            defect = DEFECTS[KINDS[int(rng.random_sample() * len(KINDS))]]
            choice: Choice | None = None
            if rng.random_sample() < 0.15:
                choice = anomaly_question(defect if cell is not None else None)
            elif rng.random_sample() < 0.7 and cell is not None:
                choice = defect_choices(defect, [cell])[1]
            if choice is None:
                answer = "Normal." if cell is None else f"place: {CELLS[cell]}"
                suffix = self.speaker.suffix("\nDescribe the last image.", answer)
            else:
                plain = replace(choice, evidence="")
                suffix = question_suffix(self.speaker, protocol, plain, think, rng)
            suffixes.append(self._at_the_end(suffix, pointer))
            kinds.append("map" if choice is None else f"map {choice.raw_type}")
        return Exercise(prefix, tuple(suffixes), (), tuple(kinds))

    def _single(self, scenes: Scenes, scene: int, think: bool, rng: np.random.RandomState) -> Exercise:
        views = 3 if scenes.faulty[scene] or scenes.sound[scene] else 2
        view = int(rng.random_sample() * views)
        design, defect = scenes.design(scene), self._defect(scenes, scene, view)
        protocol = shipped_protocols()[0]
        choices = choices_for(design, None, [])[1:]
        if defect is not None:
            choices = choices_for(design, defect, self._cells(scenes, scene, view))[:3] + choices[:2]
        if rng.random_sample() < 0.3:
            return self._trailing(choices, scenes.pixels[scene, view], think, rng)
        prefix = self.speaker.prefix(protocol.system, render_content(protocol, 0, [], think))
        pictures = (scenes.pixels[scene, view],)
        return self._asked(prefix, choices, pictures, think, rng, self._caption(scenes, scene, view))

    def _asked(
        self,
        prefix: tuple[int, ...],
        choices: Sequence[Choice],
        pictures: tuple[NDArray[np.uint8], ...],
        think: bool,
        rng: np.random.RandomState,
        caption: Suffix,
    ) -> Exercise:
        protocol = shipped_protocols()[0]
        suffixes = [question_suffix(self.speaker, protocol, choice, think, rng) for choice in choices]
        names = [f"{'think' if think else 'direct'} {choice.raw_type}" for choice in choices]
        return Exercise(prefix, (*suffixes, caption), pictures, (*names, "caption"))

    def _trailing(
        self, choices: Sequence[Choice], picture: NDArray[np.uint8], think: bool, rng: np.random.RandomState
    ) -> Exercise:
        """The picture after the question, as interleaved text has it."""
        protocol = shipped_protocols()[0]
        instruction = protocol.instructions["think" if think else "direct"]
        prefix = self.speaker.prefix(protocol.system, instruction)
        suffixes = []
        for choice in choices[:3]:
            suffix = question_suffix(self.speaker, protocol, choice, think, rng)
            suffixes.append(self._at_the_end(suffix, IMAGE_MARK))
        return Exercise(prefix, tuple(suffixes), (picture,) * len(suffixes), ("trailing",) * len(suffixes))

    def _at_the_end(self, suffix: Suffix, addition: str) -> Suffix:
        """The suffix with something more at the end of the user's turn."""
        tail = self.speaker.ids(TURN_END)
        assert suffix.prompt[-len(tail) :] == tail
        return Suffix((*suffix.prompt[: -len(tail)], *self.speaker.ids(addition), *tail), suffix.completion)

    def _spots(self, rng: np.random.RandomState, think: bool) -> Exercise:
        """A dark picture with or without a bright spot, before or after the question."""
        there = rng.random_sample() < 0.7
        picture, cell = spot_picture(rng, there)
        yes, no = ("Yes.", "No.") if there else ("No.", "Yes.")
        seen = Choice("", "Is there a bright spot?", yes, (no,), "")
        choices = [seen]
        if cell is not None:
            wrong = tuple(place for place in CELLS if place != CELLS[cell])
            choices.append(Choice("", "Where is the bright spot?", CELLS[cell], wrong, ""))
        if rng.random_sample() < 0.7:
            return self._trailing(choices, picture, think, rng)
        protocol = shipped_protocols()[0]
        prefix = self.speaker.prefix(protocol.system, render_content(protocol, 0, [], think))
        suffixes = tuple(question_suffix(self.speaker, protocol, choice, think, rng) for choice in choices)
        return Exercise(prefix, suffixes, (picture,), ("spot",) * len(suffixes))


def random_mark(rng: np.random.RandomState) -> tuple[NDArray[np.float32], int | None]:
    """Shares of a mark somewhere, (GRID, GRID), and the cell of the 3x3 grid that holds most of it."""
    share = np.zeros((GRID, GRID), np.float32)
    if rng.random_sample() < 0.25:
        return share, None
    y, x = rng.randint(0, GRID - 1, 2)
    high, wide = rng.randint(1, 5, 2)
    share[y : y + high, x : x + wide] = 0.3 + 0.7 * rng.random_sample(share[y : y + high, x : x + wide].shape)
    third = GRID // 3
    return share, int(share.reshape(3, third, 3, third).sum((1, 3)).argmax())


SIGNS = "-=#"  #: nothing, something, much; one token each


def sign_map(rng: np.random.RandomState, share: NDArray[np.float32]) -> str:
    """A map of 6 x 6 signs, row by row, of what is marked in ``share`` (GRID, GRID), with some noise."""
    side = GRID // 2
    level = share.reshape(side, 2, side, 2).max((1, 3)) * (0.3 + 1.5 * rng.random_sample((side, side)))
    noise = 0.3 * rng.random_sample() * rng.random_sample((side, side)) ** 2
    return "".join(SIGNS[int(value > 0.12) + int(value > 0.3)] for value in np.maximum(level, noise).flat)


def pointer_picture(rng: np.random.RandomState, share: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A dim picture of 12 x 12 squares, brighter the more of a square is marked in ``share``."""
    noise = rng.random_sample((GRID, GRID)) * (0.1 + 0.35 * rng.random_sample())
    marked = np.minimum(1, 2.5 * share) * (0.45 + 0.55 * rng.random_sample((GRID, GRID)))
    levels = (20 + 200 * np.maximum(noise, marked)).repeat(SIZE // GRID, 0).repeat(SIZE // GRID, 1)
    tint = 0.75 + rng.random_sample(3) * 0.25
    picture: NDArray[np.uint8] = np.clip(levels[..., None] * tint, 0, 255).astype(np.uint8)
    return picture


def spot_picture(rng: np.random.RandomState, there: bool) -> tuple[NDArray[np.uint8], int | None]:
    """A generic scene: a dim ground, and perhaps a bright spot in one cell of the 3x3 grid."""
    axis = (np.arange(SIZE) + 0.5) / SIZE
    ground = (
        rng.random_sample() * 60
        + rng.random_sample((12, 12)).repeat(SIZE // 12, 0).repeat(SIZE // 12, 1) * 40
    )
    cell = None
    if there:
        y, x = 0.06 + rng.random_sample(2) * 0.88
        width = 0.03 + rng.random_sample() * 0.07
        gap = (axis[:, None] - y) ** 2 + (axis[None, :] - x) ** 2
        ground = ground + (110 + rng.random_sample() * 90) * np.exp(-gap / width**2)
        cell = int(y * 3) * 3 + int(x * 3)
    tint = 0.75 + rng.random_sample(3) * 0.25
    return np.clip(ground[..., None] * tint, 0, 255).astype(np.uint8), cell


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
        hidden = model.model.language_model(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        hits = model.lm_head(hidden[batch.rows, batch.columns]).argmax(-1) == batch.targets
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
    curriculum = Curriculum([Scenes.open(f) for f in folders], Speaker(processor.tokenizer, "", IMAGE_TOKENS))
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
