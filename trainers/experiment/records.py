"""The design of an experiment as its results keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.errors import BadInput
from harness.experiments import DESIGN, seeds_done, write_design
from trainers.experiment.jobs import DRAWS, Job, Places, Setting, readable, strata_fingerprint
from trainers.experiment.plan import flat


def write_plan(setting: Setting, jobs: Sequence[Job], places: Places) -> None:
    """Write the design beside the results: all jobs' fingerprints, too, for only theirs are its results."""
    fingerprints: dict[str, list[str]] = {}
    for job in jobs:
        fingerprints.setdefault(job.arm.id, []).append(job.fingerprint)  # seeds stand in order
    plan, benchmark, protocol = setting.plan, setting.benchmark, setting.protocol
    write_design(
        places.results,
        {
            "name": plan.name,
            "title": plan.title,
            "benchmark": {
                "name": benchmark.name,
                "world": benchmark.world,
                "digest": benchmark.digest,
                "images": len(benchmark.items),
                "questions": sum(len(item.questions) for item in benchmark.items),
            },
            "protocol": {
                "name": protocol.name,
                "mode": protocol.mode,
                "shots": protocol.shots,
                "digest": protocol.digest,
            },
            "limit": plan.evaluation.limit,
            "training": plan.training,
            "settings": dict(plan.settings),
            "arms": [asdict(arm) for arm in plan.arms],
            "strata": _strata(setting, jobs),
            "comparisons": [asdict(comparison) for comparison in plan.comparisons],
            "fingerprints": fingerprints,
        },
    )


_ADVICE = "delete what is not wanted, or name another folder with --results"


def strangers(setting: Setting, jobs: Sequence[Job], places: Places) -> dict[str, str]:
    """Results in this plan's places that it would not make: name -> what is other about them."""
    found = {job.name: _difference(job, places) for job in jobs if job.is_anothers(places)}
    drawn, planned = readable(places.strata), _strata(setting, jobs)
    if drawn is not None and planned is not None and drawn.get("fingerprint") != planned["fingerprint"]:
        found[DRAWS] = f"drawn from {drawn.get('job')}, {drawn.get('draws')} times, or asked otherwise"
    return found


def refuse_others(setting: Setting, jobs: Sequence[Job], places: Places) -> None:
    """What another plan left in the folder of the results is not written over, and claims stay as they were.

    Raises:
        BadInput: another experiment's design is there, or one with claims or finished jobs that this plan
            has not, or results that it would not make.
    """
    _require_design(setting, jobs, places)
    if others := strangers(setting, jobs, places):
        name, reason = next(iter(others.items()))
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        raise BadInput(
            f"{places.results}: it holds {name} as another plan, version or --dtype made it ({reason}){more}"
            f"; {_ADVICE}"
        )


def require_planned(job: Job, places: Places) -> None:
    """A job's process reads the plan anew: refuse what is not the experiment's that started it.

    Raises:
        BadInput: the plan was changed since, or another experiment took the folder of the results.
    """
    design = readable(places.results / DESIGN) or {}
    planned = dict(enumerate(design.get("fingerprints", {}).get(job.arm.id, []))).get(job.seed)
    if planned != job.fingerprint or job.is_anothers(places):
        raise BadInput(
            f"{places.results}: {job.name} is another one there; was the plan changed, or the folder given "
            "to two experiments? start again"
        )


def _require_design(setting: Setting, jobs: Sequence[Job], places: Places) -> None:
    path = places.results / DESIGN
    if places.results.exists() and not places.results.is_dir():
        raise BadInput(f"{places.results}: it is no folder; name one with --results")
    design = readable(path)
    if design is None:  # none, or a damaged one, which is made anew
        return
    if (name := design.get("name")) != setting.plan.name:
        raise BadInput(f"{path}: it is of the experiment {name!r}, not {setting.plan.name!r}; {_ADVICE}")
    planned = {(job.arm.id, job.seed) for job in jobs}
    arms = [arm["id"] for arm in design.get("arms", [])]
    done = [(arm, seed) for arm in arms for seed in seeds_done(places.results / arm)]
    if lost := [f"{arm}:{seed}" for arm, seed in done if (arm, seed) not in planned]:
        raise BadInput(f"{path}: {lost[0]} is done, and the plan has it no more; {_ADVICE}")
    before = {(c["better"], c["worse"]): c["primary"] for c in design.get("comparisons", [])}
    now = {(c.better, c.worse): c.primary for c in setting.plan.comparisons}
    changed = [pair for pair, primary in before.items() if now.get(pair) != primary]
    changed += [pair for pair, primary in now.items() if primary and pair not in before]
    if done and changed:
        better, worse = changed[0]
        raise BadInput(
            f"{path}: the claim {better} > {worse} is not as it was when results came; claims are fixed "
            "beforehand: undo that, or name another folder with --results"
        )


def _difference(job: Job, places: Places) -> str:
    """The first fact that a result there was made by and this plan has not."""
    record = readable(places.record(job)) or {}
    there, here = (flat(facts) for facts in (record.get("facts") or {}, job.facts))
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            return f"{name} {str(there.get(name))[:40]} there, {str(here.get(name))[:40]} here"
    return "asked otherwise"


def _strata(setting: Setting, jobs: Sequence[Job]) -> dict[str, Any] | None:
    strata = setting.plan.strata
    if strata is None:
        return None
    drawn = next(job for job in jobs if job.arm.id == strata.arm and job.seed == 0)
    return {**asdict(strata), "fingerprint": strata_fingerprint(setting, drawn)}
