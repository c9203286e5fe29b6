"""Official answer files of the EMIT family with known strengths, and no images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.answers import write_answers
from tests.harness.synthetic import answers, questions

#: Share of right answers; those of one draw are nested, so that differences are real.
STRENGTHS = {
    "internvl3-base": 0.6,
    "emit-wo-stage2": 0.62,
    "emit-wo-sp-ce": 0.8,
    "emit": 0.9,
}


def write_family(
    folder: Path, strengths: dict[str, float] = STRENGTHS, images: int = 60, seed: int = 0
) -> list[Path]:
    """One answer file a model; a question that a model has right, all stronger ones have right too."""
    asked = questions(images)
    draws = np.random.default_rng(seed).random(len(asked))
    paths = []
    for model, share in strengths.items():
        given = [answer._replace(model=model) for answer in answers(asked, list(draws < share))]
        paths.append(folder / f"{model}.json")
        write_answers(paths[-1], given)
    return paths
