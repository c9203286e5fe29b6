"""Subjects to draw pages of: models that answer questions on a benchmark of MMAD's shape, of any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.records import Answer, Outcome
from harness.sources import Source
from harness.subtasks import RAW_TYPES, SUBTASK_KEYS
from reports.subject import Entry, Subject

DATASETS = {
    "DS-MVTec": ("image", 15),
    "MVTec-LOCO": ("test", 5),
    "VisA": ("test", 12),
    "GoodsAD": ("test", 6),
}
KINDS = {
    "DS-MVTec": ("crack", "scratch", "hole", "bent_wire", "contamination"),
    "MVTec-LOCO": ("logical_anomalies", "structural_anomalies"),
    "VisA": ("bad",),
    "GoodsAD": ("opened", "deformation", "surface_damage"),
}
_RAW = {subtask: raw for raw, subtask in RAW_TYPES.items()}
_VOCABULARY = [
    f"{a}{b}{c}" for a in "bdfglmnprst" for b in ("a", "ei", "o", "u") for c in ("n", "ll", "ck", "rd", "st")
]
#: Endless talk to cut responses from: no response is like another, so that they compress as real ones do.
TALK = [_VOCABULARY[i] for i in np.random.default_rng(0).integers(0, len(_VOCABULARY), 60_000)]


def questions(images: int) -> list[tuple[str, int, str]]:
    """Key, number and subtask of about 4.7 questions an image, as in MMAD."""
    found = []
    products = [
        (dataset, f"product_{place:02}", middle)
        for dataset, (middle, n) in DATASETS.items()
        for place in range(n)
    ]
    for i in range(images):
        dataset, product, middle = products[i % len(products)]
        round_, normal = i // len(products), i % 5 < 2
        kinds = KINDS[dataset]
        kind = "good" if normal else kinds[round_ % len(kinds)]
        key = f"{dataset}/{product}/{middle}/{kind}/{round_:03}.png"
        asked = [SUBTASK_KEYS[0], *(SUBTASK_KEYS[5:] if normal else SUBTASK_KEYS[1:5]), SUBTASK_KEYS[6]]
        asked = asked[: 5 if i % 4 else 6]
        found += [(key, number, subtask) for number, subtask in enumerate(asked)]
    return found


def answers_of(
    model: str,
    asked: Sequence[tuple[str, int, str]],
    share: float,
    seed: int,
    *,
    words: int = 8,
    logprobs: bool = False,
) -> tuple[Answer, ...]:
    """One model's answers, right with a probability, now and then without a letter or failed."""
    rng = np.random.default_rng(seed)
    draws = rng.random((len(asked), 3))
    given = []
    for (key, number, subtask), (good, fate, pick) in zip(asked, draws.tolist(), strict=True):
        letters = "AB" if subtask == SUBTASK_KEYS[0] else "ABCD"
        correct = letters[(len(key) + int(key[-7:-4]) + number) % len(letters)]
        wrong = letters.replace(correct, "")
        letter: str | None = correct if good < share else wrong[int(pick * len(wrong))]
        outcome = Outcome.ANSWERED
        if fate < 0.01:
            letter, outcome = None, Outcome.FAILED if fate < 0.002 else Outcome.UNPARSED
        start = int(pick * (len(TALK) - words))
        said = " ".join(TALK[start : start + words])
        logs = (
            {x: math.log(0.7 if x == letter else 0.3 / (len(letters) - 1)) for x in letters}
            if logprobs
            else None
        )
        given.append(
            Answer(
                model=model,
                key=key,
                number=number,
                subtask=subtask,
                raw_type=_RAW[subtask],
                question=f"What about {subtask.replace('_', ' ')} of {key.split('/')[1]}, view {number}?",
                options={letter: f"Option {letter} of {len(letters)}" for letter in letters},
                correct=correct,
                letter=letter,
                outcome=outcome,
                text=f"<think>{said}</think><answer>{letter or '?'}</answer>",
                reason="OutOfMemoryError: no room" if outcome == Outcome.FAILED else "",
                option_logprobs=logs,
                completion_tokens=words,
            )
        )
    return tuple(given)


def manifest(world: str = "mini", **changes: Any) -> dict[str, Any]:
    """As much of a run's manifest as a page reads."""
    return {
        "status": "finished",
        "seed": 0,
        "benchmark": {"name": "mini", "world": world, "digest": "b" * 64, **changes},
        "protocol": {
            "name": "emit", "mode": "think", "shots": 1, "digest": "c" * 64, "reference": "similar",
            "object_images": "query",
        },
        "models": {},
    }  # fmt: skip


def subject_of(
    answers: Sequence[Sequence[Answer]],
    told: dict[str, Any] | None = None,
    path: Path = Path("run"),
    resamples: int = 200,
    titles: Sequence[str] | None = None,
) -> Subject:
    """A subject of models' answers; without a manifest unless ``told``."""
    source = Source(path, {given[0].model: given for given in answers}, told)
    entries = [
        Entry(
            given[0].model,
            given[0].model,
            titles[i] if titles else given[0].model.title(),
            "8B",
            given,
            source,
        )
        for i, given in enumerate(answers)
    ]
    return Subject(tuple(entries), (source,), resamples=resamples)


def synthetic(images: int = 76, models: int = 3, *, resamples: int = 200, **options: Any) -> Subject:
    """Some models of decreasing skill on a benchmark of some images."""
    asked = questions(images)
    names = [f"model-{chr(ord('a') + i)}" for i in range(models)]
    answers = [answers_of(name, asked, 0.82 - 0.035 * i, i, **options) for i, name in enumerate(names)]
    return subject_of(answers, manifest(), resamples=resamples)
