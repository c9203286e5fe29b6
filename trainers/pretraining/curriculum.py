"""What one row of the joint phase asks: pairs, single pictures, pictures after the question, maps, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emit_model.processing import HINT
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
from trainers.packing import Suffix
from trainers.pretraining.exercises import (
    TURN_END,
    Speaker,
    choices_for,
    described_row,
    knowledge_lines,
    list_row,
    question_suffix,
    render_content,
)
from trainers.pretraining.pointers import pointer_picture, random_mark, sign_map, spot_picture
from trainers.pretraining.scenes import KINDS, Scenes

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
