"""The design of an experiment as its results keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.errors import BadInput
from harness.experiments import DESIGN, write_design
from trainers.experiment.jobs import DRAWS, Job, Places, Setting, readable, strata_fingerprint


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


def refuse_others(setting: Setting, jobs: Sequence[Job], places: Places) -> None:
    """What another plan left in the folder of the results is not written over.

    Raises:
        BadInput: another experiment's design is there, or results that this plan would not make.
    """
    design = places.results / DESIGN
    advice = "delete what is not wanted, or name another folder with --results"
    if places.results.exists() and not places.results.is_dir():
        raise BadInput(f"{places.results}: it is no folder; name one with --results")
    if design.is_file():
        name = (readable(design) or {}).get("name", setting.plan.name)  # a damaged one is made anew
        if name != setting.plan.name:
            raise BadInput(f"{design}: it is of the experiment {name!r}, not {setting.plan.name!r}; {advice}")
    others = [job.name for job in jobs if job.is_anothers(places)]
    drawn = readable(places.strata)
    planned = _strata(setting, jobs)
    if drawn is not None and planned is not None and drawn.get("fingerprint") != planned["fingerprint"]:
        others.append(DRAWS)
    if others:
        names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise BadInput(
            f"{places.results}: {names}: made by another plan, version or --dtype, and not to be written "
            f"over; {advice}"
        )


def _strata(setting: Setting, jobs: Sequence[Job]) -> dict[str, Any] | None:
    strata = setting.plan.strata
    if strata is None:
        return None
    drawn = next(job for job in jobs if job.arm.id == strata.arm and job.seed == 0)
    return {**asdict(strata), "fingerprint": strata_fingerprint(setting, drawn)}
