"""Put each arm's median run into the package as the mini weights of its id.

``python -m trainers.experiment.ship PLAN.toml --work DIR --results DIR`` takes the run whose average is the
median of its arm's seeds, so that what ships is neither lucky nor chosen. A run whose weights are not in the
work folder any more is trained again. On the same kind of processor that gives the same weights; where it
does not, the seed ships as it came out here, with a record of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness.answers import read_answers
from harness.averaging import AVERAGE
from harness.errors import BadInput, ExitCode
from harness.experiments import read_experiment
from harness.folders import sha256_of
from harness.jsonfiles import read_json, write_text
from harness.plugins import load_registry
from harness.replication import Replicated, median_seed
from harness.run_folder import locked
from harness.scoring import score
from plugins.weights import MINI_WEIGHTS
from trainers.experiment.jobs import Job, Places, Setting, jobs_of, read_setting
from trainers.experiment.plan import read_plan
from trainers.experiment.work import WEIGHTS, do_job, trained
from trainers.pretraining.ship import ship

RECORD = "training.json"
#: Whole checkpoints, for whoever wants one file; the others ship as adapters, which are smaller.
WHOLE = ("emit", "emit-wo-stage2")


def medians(jobs: list[Job], results: Path) -> list[Job]:
    """The job of each arm that ships whose average is the median; only arms with all their seeds."""
    experiment = read_experiment(results)
    found = Replicated({arm.id: arm.answers for arm in experiment.arms if arm.answers})
    chosen = []
    for arm in experiment.arms:
        seeds = found.seeds.get(arm.id, ())
        if len(seeds) < arm.planned:
            continue
        median = median_seed(dict(zip(seeds, map(float, found.values(arm.id, AVERAGE)), strict=True)))
        chosen += [job for job in jobs if job.arm.ships and (job.arm.id, job.seed) == (arm.id, median)]
    return chosen


def ship_medians(plan: Path, places: Places, target: Path) -> None:
    """Ship every median that is not in ``target`` already.

    Raises:
        BadInput: a run's record is of another plan, or it cannot be trained again.
    """
    setting = read_setting(read_plan(plan), load_registry())
    for job in medians(list(jobs_of(setting)), places.results):
        record, _ = read_json(places.record(job))
        if record.get("fingerprint") != job.fingerprint:
            raise BadInput(f"{places.record(job)}: it is of another plan; run the experiment again")
        name = job.arm.ships
        path = target / name / RECORD
        if path.is_file() and read_json(path)[0] == record:
            print(f"{name}: {job.name} ships already")
            continue
        with locked(places.folder(job), wait=True):
            model = trained(setting, job, places)
            assert model is not None  # the base ships as nobody's run
            if sha256_of(model / WEIGHTS) != record["weights_sha256"]:
                record = _anew(setting, job, places, record)
        ship(model if name in WHOLE else model.parent / "adapter", name, target)
        write_text(path, json.dumps(record, indent=1) + "\n")
        print(f"{name}: {job.name}")


def _anew(setting: Setting, job: Job, places: Places, before: dict[str, Any]) -> dict[str, Any]:
    """The record of a run that was trained again and has other weights, as on another kind of processor.

    It is the same seed's and not the same run, so what ships tells of itself, and says how it scores.
    """
    again = Places(places.work, places.work / "again")
    do_job(setting, job, again)
    record, _ = read_json(again.record(job))
    averages = [
        score(read_answers(place.answers(job), job.arm.id)).rows[AVERAGE][AVERAGE]
        for place in (places, again)
    ]
    alike = record["answers_sha256"] == before["answers_sha256"]
    said = "the same answers" if alike else f"an average of {averages[1]:.2f} instead of {averages[0]:.2f}"
    print(f"{job.name}: trained again it has other weights, and {said}")
    return dict(record)


def main() -> int:
    """Ship every median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--target", type=Path, default=MINI_WEIGHTS)
    options = parser.parse_args()
    try:
        ship_medians(options.plan, Places(options.work, options.results), options.target)
    except BadInput as error:
        print(f"{Path(__file__).stem}: {error}", file=sys.stderr)
        return ExitCode.USAGE
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
