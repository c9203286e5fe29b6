"""Answers drawn at random, with images on which questions stand and fall together, and a known truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from harness.records import Answer, Outcome
from harness.subtasks import (
    ANOMALY_DISCRIMINATION,
    DEFECT_CLASSIFICATION,
    DEFECT_LOCALIZATION,
    OBJECT_ANALYSIS,
    RAW_TYPES,
)

_RAW = {subtask: raw for raw, subtask in RAW_TYPES.items()}
ASKED = {
    True: (ANOMALY_DISCRIMINATION, OBJECT_ANALYSIS, OBJECT_ANALYSIS, OBJECT_ANALYSIS),
    False: (ANOMALY_DISCRIMINATION, DEFECT_CLASSIFICATION, DEFECT_LOCALIZATION, OBJECT_ANALYSIS),
}
Questions = Sequence[tuple[str, int, str]]


def questions(
    images: int, datasets: Sequence[str] = ("D", "E"), objects: int = 5
) -> list[tuple[str, int, str]]:
    """Key, number and subtask; half of each dataset's images are normal."""
    found = []
    for dataset in datasets:
        for i in range(images):
            normal = i % 2 == 0
            key = f"{dataset}/o{i // 2 % objects}/test/{'good' if normal else 'bad'}/{i:04}.png"
            found += [(key, number, subtask) for number, subtask in enumerate(ASKED[normal])]
    return found


def answer(key: str, number: int, subtask: str, letter: str | None, model: str = "m") -> Answer:
    """One answer; A is right."""
    outcome = Outcome.ANSWERED if letter else Outcome.UNPARSED
    options = {"A": "Yes.", "B": "No."}
    return Answer(model, key, number, subtask, _RAW[subtask], "What?", options, "A", letter, outcome)


def answers(
    asked: Questions, right: Sequence[bool], silent: Callable[[int], bool] = lambda place: False
) -> list[Answer]:
    """Right and wrong answers as told; without a letter where ``silent``."""
    return [
        answer(*question, None if silent(place) else "A" if good else "B")
        for place, (question, good) in enumerate(zip(asked, right, strict=True))
    ]


def clustered(asked: Questions, share: float, within: float, rng: np.random.Generator) -> np.ndarray:
    """Whether each question is right: with probability ``share``, correlated ``within`` images.

    With probability ``within``'s square root a question copies its image's own draw.
    """
    keys = {key: place for place, key in enumerate(dict.fromkeys(key for key, *_ in asked))}
    of_image = rng.random(len(keys)) < share
    copies = rng.random(len(asked)) < np.sqrt(within)
    own = rng.random(len(asked)) < share
    return np.where(copies, of_image[[keys[key] for key, *_ in asked]], own)
