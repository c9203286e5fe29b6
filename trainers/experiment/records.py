"""The design of an experiment as its results keep it."""

from __future__ import annotations

from dataclasses import asdict

from harness.experiments import write_design
from trainers.experiment.jobs import Places, Setting


def write_plan(setting: Setting, places: Places) -> None:
    """Write the design beside the results."""
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
            "strata": asdict(plan.strata) if plan.strata else None,
            "comparisons": [asdict(comparison) for comparison in plan.comparisons],
        },
    )
