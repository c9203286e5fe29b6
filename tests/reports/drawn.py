"""An experiment's results, drawn with known differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.answers import write_answers
from harness.experiments import write_design
from harness.jsonfiles import write_json
from tests.harness.synthetic import answers, questions

ASKED = questions(40)
ARMS = {
    "base": (1, 0.5),
    "sft": (4, 0.62),
    "emit": (4, 0.9),
    "emit-wo-sp": (3, 0.88),  # began with another stage 1
    "aligned": (4, 0.5),  # drew the strata
}


def write_results(folder: Path, planned: int = 4, digest: str = "a" * 64, name: str = "drawn") -> Path:
    """Answers of four arms; questions get harder in their order, and the hard ones are EMIT's gain."""
    rng = np.random.default_rng(0)
    draws = rng.random(len(ASKED))
    for arm, (seeds, share) in ARMS.items():
        for seed in range(seeds):
            right = draws + 0.05 * rng.normal(size=len(draws)) < share + 0.02 * rng.normal()
            write_answers(folder / arm / f"seed-{seed}.json.gz", answers(ASKED, list(right)))
            began = (
                None if arm == "base" else f"other {seed}" if arm == "emit-wo-sp" else f"stage 1 of {seed}"
            )
            write_json(folder / arm / f"seed-{seed}.record.json", {"stage1": began})
    write_json(
        folder / "strata.json.gz",
        {
            "draws": 8,
            "correct": [[key, number, int(8 * (draws[i] < 0.5))] for i, (key, number, _) in enumerate(ASKED)],
        },
    )
    write_design(
        folder,
        {
            "name": name,
            "benchmark": {"name": "mini", "world": "mini", "digest": digest},
            "protocol": {"name": "emit", "mode": "think", "shots": 1, "digest": "a" * 64},
            "arms": [
                {
                    "id": arm,
                    "title": arm.upper(),
                    "recipe": "" if arm == "base" else arm,
                    "seeds": max(seeds, planned if arm == "sft" else 0),
                }
                for arm, (seeds, _) in ARMS.items()
            ]
            + [{"id": "nobody", "title": "NOBODY", "recipe": "emit", "seeds": 3}],  # not run yet
            "strata": {"arm": "aligned", "draws": 8},
            "comparisons": [
                {"better": "emit", "worse": "sft", "primary": True},
                {"better": "base", "worse": "sft", "primary": True},
                {"better": "emit", "worse": "emit-wo-sp", "primary": False},
                {"better": "emit", "worse": "base", "primary": False},
                {"better": "emit", "worse": "nobody", "primary": False},
                {"better": "emit", "worse": "aligned", "primary": False},
            ],
        },
    )
    return folder
