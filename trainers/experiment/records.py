"""The design of an experiment as its results keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.experiments import write_design
from trainers.experiment.jobs import Job, Places, Setting, strata_fingerprint


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


def _strata(setting: Setting, jobs: Sequence[Job]) -> dict[str, Any] | None:
    strata = setting.plan.strata
    if strata is None:
        return None
    drawn = next(job for job in jobs if job.arm.id == strata.arm and job.seed == 0)
    return {**asdict(strata), "fingerprint": strata_fingerprint(setting, drawn)}
