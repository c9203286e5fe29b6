"""Make the mini EMIT: stage 1 on the mini base, with image pairs of the training world's families."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from emit_model.configuration import PRESETS
from emit_model.modeling import EmitForConditionalGeneration
from emit_model.processing import HINT, add_comp_token, load_processor
from harness.protocol import shipped_protocols
from plugins.mini.defects import DEFECTS
from plugins.mini.questions import anomaly_question, defect_choices
from trainers.alignment import AlignmentSettings, ComparedPair, align, with_placeholders
from trainers.pretraining.architecture import IMAGE_TOKENS
from trainers.pretraining.exercises import TURN_END, Speaker, knowledge_lines, question_suffix, render_content
from trainers.pretraining.pointers import SIGNS
from trainers.pretraining.scenes import KINDS, Scenes
from trainers.pretraining.vision import normalise

SETTINGS = AlignmentSettings(steps=160, pairs=10, learning_rate=2e-3)
#: Where the mini tower tells a defect from a pose: its last two blocks. Poses differ little here, so a window
#: of one patch of twelve suffices (the 8B model's is 6 of 32).
LAYERS, WINDOW = (3, 4), 1


def new_emit(base: Path, preset: str, window: int = WINDOW) -> EmitForConditionalGeneration:
    """The mini base with an untrained soft prompt and projector."""
    processor = load_processor(base)
    comp = add_comp_token(processor.tokenizer)
    contrast = PRESETS[preset].replaced(layers=LAYERS, window=window, comp_token_id=comp)
    model = EmitForConditionalGeneration.from_internvl(base, contrast)
    model.init_soft_prompt(processor.tokenizer(HINT).input_ids)
    start_from_signs(model, *(processor.tokenizer(sign).input_ids[0] for sign in (SIGNS[0], SIGNS[-1])))
    return model


@torch.no_grad()
def start_from_signs(model: EmitForConditionalGeneration, low: int, high: int, gain: float = 0.5) -> None:
    """Start the projector, like the soft prompt, from word embeddings: cool says ``low``, hot says ``high``.

    A window's middle in units of the batch norm moves the embedding from the one to the other, beginning one
    standard deviation above the mean; so alignment starts in a language that the frozen base reads.
    """
    table = cast(torch.Tensor, model.get_input_embeddings().weight)
    conv = model.contrast.conv
    way, middle = table[high] - table[low], conv.kernel_size[0] // 2
    assert conv.bias is not None
    conv.weight.zero_()
    conv.weight[:, 0, middle - 1 : middle + 1, middle - 1 : middle + 1] = gain / 4 * way[:, None, None]
    conv.bias.copy_(table[low] - gain * way)


class Pairs:
    """Draws image pairs with their Anomaly Discrimination and Defect Localization questions."""

    def __init__(
        self, folders: Sequence[Path], model: EmitForConditionalGeneration, base: Path, seed: int
    ) -> None:
        self.scenes = [Scenes.open(folder) for folder in folders]
        self.faulty = [np.flatnonzero(scenes.faulty) for scenes in self.scenes]
        self.speaker = Speaker(load_processor(base).tokenizer, IMAGE_TOKENS)
        self.tail = self.speaker.ids(TURN_END)
        self.settings = model.config.comparison
        self.count = model.config.placeholders
        self.rng = np.random.RandomState(seed)

    def __call__(self) -> ComparedPair:
        """The next pair: normal or defective with equal chances."""
        rng, protocol = self.rng, shipped_protocols()[0]
        which = int(rng.random_sample() * len(self.scenes))
        scenes, faulty = self.scenes[which], self.faulty[which]
        scene = int(faulty[int(rng.random_sample() * len(faulty))])
        view = 1 if rng.random_sample() < 0.5 else 2
        index = int(scenes.defect[scene, view])
        design, defect = scenes.design(scene), None if index < 0 else DEFECTS[KINDS[index]]
        think = bool(rng.random_sample() < 0.5)
        content = render_content(protocol, 1, knowledge_lines(design, defect, rng), think)
        choices = [anomaly_question(defect)]
        if defect is not None:
            counts = scenes.cells[scene, view].flatten()
            cells = [int(cell) for cell in np.argsort(-counts, kind="stable") if counts[cell]]
            choices += [c for c in defect_choices(defect, cells) if c.raw_type == "Defect Localization"]
        suffixes = (question_suffix(self.speaker, protocol, choice, think, rng) for choice in choices)
        return ComparedPair(
            self.speaker.prefix(protocol.system, content),
            tuple(with_placeholders(s, self.tail, self.settings.comp_token_id, self.count) for s in suffixes),
            normalise(np.stack([scenes.pixels[scene, 0], scenes.pixels[scene, view]])),
        )


def make_emit(
    base: Path,
    folders: Sequence[Path],
    out: Path,
    settings: AlignmentSettings,
    seed: int,
    preset: str = "paper",
    window: int = WINDOW,
) -> None:
    """Align a new EMIT on the base with image pairs of ``folders``, and save it to ``out``."""
    torch.manual_seed(seed)
    emit = new_emit(base, preset, window)
    align(emit, Pairs(folders, emit, base, seed), settings, lambda line: print(line, flush=True), pad=0)
    emit.save_pretrained(out)
    processor = load_processor(base)
    add_comp_token(processor.tokenizer)
    processor.save_pretrained(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=Path, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--pairs", type=int, default=SETTINGS.pairs)
    parser.add_argument("--learning-rate", type=float, default=SETTINGS.learning_rate)
    parser.add_argument("--preset", default="paper", choices=tuple(PRESETS))
    parser.add_argument("--window", type=int, default=WINDOW, help="patches on each side")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = AlignmentSettings(options.steps, options.pairs, options.learning_rate)
    make_emit(options.base, options.scenes, options.out, chosen, 4, options.preset, options.window)
