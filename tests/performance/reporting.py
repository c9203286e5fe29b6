"""Scores and the full report at MMAD's size: ten models, 39,672 questions each.

``python -m tests.performance.reporting`` writes a run's folder with drawn answers in the composition of MMAD,
then times ``emit-bench score`` and ``emit-bench report`` on it, with their peak memory. Seconds are of the
processor, in one thread; ``--share`` makes it smaller.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.manifest import FILE_NAME, FORMAT
from harness.records import Outcome, Question
from harness.store import FILE_NAME as STORE_NAME
from harness.store import PlanRow, Spoken, Store
from harness.subtasks import RAW_TYPES, SUBTASK_KEYS

MODELS = 10
#: Dataset -> normal and anomalous images, then questions of each subtask but the first.
MMAD = {
    "DS-MVTec": (465, 1226, (1205, 1193, 1213, 1205, 464, 1367)),
    "MVTec-LOCO": (573, 992, (982, 982, 974, 954, 544, 1623)),
    "VisA": (943, 1198, (1190, 1197, 1190, 1163, 935, 2806)),
    "GoodsAD": (1269, 1631, (1311, 1506, 1333, 1460, 1211, 3367)),
}
_RAW = {subtask: raw for raw, subtask in RAW_TYPES.items()}
_THOUGHT = (
    "The query shows the part from above, as the reference does. Its left edge is not as straight. " * 3
)


def questions(share: float = 1.0) -> Iterator[tuple[str, list[str]]]:
    """Every image's key with the subtasks that are asked about it, spread evenly over the images."""
    for dataset, (normal, anomalous, counts) in MMAD.items():
        n_normal, n_anomalous = math.ceil(normal * share), math.ceil(anomalous * share)
        asked = [[SUBTASK_KEYS[0]] for _ in range(n_normal + n_anomalous)]
        for subtask, count in zip(SUBTASK_KEYS[1:], counts, strict=True):
            about_defect = subtask.startswith("defect")
            places = range(n_normal, len(asked)) if about_defect else range(len(asked))
            for number in range(math.ceil(count * share)):
                asked[places[number % len(places)]].append(subtask)
        for number, subtasks in enumerate(asked):
            kind = "good" if number < n_normal else ("scratch", "dent", "stain")[number % 3]
            yield f"{dataset}/part{number % 10}/image/{kind}/{number:04}.png", subtasks


def write_run(out: Path, share: float = 1.0, seed: int = 0) -> int:
    """A run's folder of ten models with drawn answers; returns its number of questions."""
    rng = np.random.default_rng(seed)
    names = ["internvl3-base", "emit", *(f"model-{number}" for number in range(MODELS - 2))]
    out.mkdir(parents=True, exist_ok=True)
    described = {name: {"title": name, "scale": "8B", "counters": {"images_encoded": 9}} for name in names}
    manifest = {
        "format": FORMAT,
        "status": "finished",
        "seed": 0,
        "benchmark": {"name": "mmad", "world": "real", "digest": "0" * 64},
        "protocol": {"name": "emit", "mode": "think", "shots": 1, "digest": "1" * 64},
        "models": described,
    }
    (out / FILE_NAME).write_text(json.dumps(manifest))
    plan = list(_plan(share))
    with Store.open(out / STORE_NAME) as store:
        for place, name in enumerate(names):
            right = rng.random(len(plan)) < 0.5 + 0.03 * place
            rows = [
                PlanRow(i, key, question, f"{name}-{i}", f"{name}-{key}")
                for i, (key, question) in enumerate(plan)
            ]
            spoken = {
                row.answer: _said(row.question, bool(good)) for row, good in zip(rows, right, strict=True)
            }
            store.save(name, rows, spoken, [])
    return len(plan)


def _plan(share: float) -> Iterator[tuple[str, Question]]:
    for key, subtasks in questions(share):
        for number, subtask in enumerate(subtasks):
            letters = "AB" if subtask == SUBTASK_KEYS[0] else "ABCD"
            options = {letter: f"Option {letter} of question {number}, in some words." for letter in letters}
            text = f"What do you see in question {number} about {subtask.replace('_', ' ')}?"
            yield key, Question(number, text, options, "A", _RAW[subtask], subtask)


def _said(question: Question, good: bool) -> Spoken:
    letter = "A" if good else "B"
    logs = {one: -0.3 if one == letter else -2.0 for one in question.options}
    text = f"<think>{_THOUGHT}</think><answer>{letter}</answer>"
    return Spoken(letter, Outcome.ANSWERED, text, "", logs, 900, 80, 0.1)


def measure(*arguments: str) -> tuple[float, float]:
    """Seconds of the processor and peak GiB of one ``emit-bench`` command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = (
        "import resource, sys; from harness.cli import main\n"
        "try: main()\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int(done.stderr.split()[-1]) / 2**20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of MMAD's questions")
    parser.add_argument("--keep", type=Path, help="leave the run's folder there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = options.keep or Path(place) / "run"
        count = write_run(run, options.share)
        print(f"{MODELS} models, {count:,} questions each")
        for title, *arguments in (
            ("score of the run", "score", str(run), "--format", "json"),
            ("score with intervals", "score", str(run), "--format", "json", "--intervals"),
            ("tables in four formats", "report", str(run), "--format", "text,markdown,csv,latex"),
            ("full report", "report", str(run)),
        ):
            seconds, peak = measure(*arguments)
            print(f"{title:36} {seconds:6.1f} s  {peak:5.2f} GiB")


if __name__ == "__main__":
    main()
