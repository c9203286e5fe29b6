"""Put each arm's median run into the package as the mini weights of its id.

``python -m trainers.experiment.ship PLAN.toml --work DIR --results DIR`` takes the run whose average is the
median of its arm's seeds, so that what ships is neither lucky nor chosen. A run whose weights are not in the
work folder any more is trained again; on the same kind of machine that gives the same weights, and they are
compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from harness.averaging import AVERAGE
from harness.errors import BadInput, ExitCode
from harness.experiments import read_experiment
from harness.folders import sha256_of
from harness.jsonfiles import read_json, write_text
from harness.plugins import load_registry
from harness.replication import Replicated, median_seed
from harness.run_folder import locked
from plugins.weights import MINI_WEIGHTS
from trainers.experiment.jobs import Job, Places, jobs_of, read_setting
from trainers.experiment.plan import read_plan
from trainers.experiment.work import WEIGHTS, trained
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
        BadInput: a run has other weights now than its record says, or its record is of another plan.
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
        if model is None or sha256_of(model / WEIGHTS) != record["weights_sha256"]:
            raise BadInput(
                f"{job.name}: trained again it has other weights; ship from the kind of machine that made it"
            )
        ship(model if name in WHOLE else model.parent / "adapter", name, target)
        write_text(path, json.dumps(record, indent=1) + "\n")
        print(f"{name}: {job.name}")


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
