"""``emit-bench experiment``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.console import PATH, format_option, print_json
from harness.errors import BadInput, ExitCode

if TYPE_CHECKING:
    from harness.plugins import Registry
    from trainers.experiment.conduct import Standing, Task
    from trainers.experiment.jobs import Job, Places, Setting


@click.command()
@click.argument("plan", metavar="PLAN.toml", type=PATH)
@click.option("--out", type=PATH, help="Folder of the work; runs/experiment-<name> unless given.")
@click.option("--results", type=PATH, help="Folder of the results; results/ in --out unless given.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="At a time.")
@click.option("--arms", help="Only these arms; ids, with commas.")
@click.option("--seeds", type=click.IntRange(1), help="At most so many seeds of each arm.")
@click.option("--status", is_flag=True, help="Say what is done and what is not, and do nothing.")
@click.option("--device", default="auto", show_default=True, help="Such as cpu; cuda: a GPU a process.")
@click.option("--dtype", default="auto", show_default=True, help="Such as float32 or bfloat16.")
@click.option("--only", hidden=True, help="Do one job here, in this process.")
@format_option("table", "json")
@click.pass_obj
def experiment(registry: Registry, /, plan: Path, form: str, **options: Any) -> int:
    """Train and evaluate every arm of PLAN with every seed, and compare them.

    The same command goes on where it was stopped. Results are official answer files; what is done is not done
    again. `--status` checks a plan, too. docs/plans.md tells what a plan holds; `emit-bench report` makes the
    tables.
    """
    from plugins.engine import pick_device, pick_dtype
    from trainers.experiment.jobs import Places, jobs_of, read_setting
    from trainers.experiment.plan import read_plan
    from trainers.experiment.records import refuse_others, write_plan

    if options["only"]:
        from trainers.launch import die_with_parent

        die_with_parent()
    found = read_plan(plan)
    work: Path = options["out"] or Path("runs") / f"experiment-{found.name}"
    places = Places(work, options["results"] or work / "results")
    pick_dtype(options["dtype"], pick_device(options["device"]))  # a wrong one is no fault of the plan
    setting = read_setting(found, registry, options["device"], options["dtype"])
    jobs = list(jobs_of(setting))
    if options["only"]:
        _do(setting, jobs, places, options["only"])
        return ExitCode.OK
    chosen = _chosen(jobs, options["arms"], options["seeds"])
    if not options["status"]:
        refuse_others(setting, jobs, places)
        _refuse_leaks(setting)
        write_plan(setting, jobs, places)
    return _conduct(setting, chosen, places, form, options)


def _do(setting: Setting, jobs: list[Job], places: Places, name: str) -> None:
    from harness.run_folder import locked
    from trainers.experiment.jobs import DRAWS
    from trainers.experiment.records import require_planned
    from trainers.experiment.work import do_job, draw_strata

    drawn = name == DRAWS and setting.plan.strata is not None
    wanted = f"{setting.plan.strata.arm}:0" if drawn and setting.plan.strata else name
    job = next((job for job in jobs if job.name == wanted), None)
    if job is None:
        raise BadInput(f"--only {name}: there is no such job; use ARM:SEED")
    with locked(places.folder(job), wait=True):  # of two experiments at once, one does it
        require_planned(job, places)
        (draw_strata if drawn else do_job)(setting, job, places)


def _chosen(jobs: list[Job], arms: str | None, seeds: int | None) -> list[Job]:
    known = {job.arm.id for job in jobs}
    names = [name.strip() for name in (arms or "").split(",") if name.strip()]
    if arms is not None and not names:
        raise BadInput(f"--arms {arms!r}: it names no arm; the plan has {', '.join(sorted(known))}")
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"--arms {unknown[0]}: the plan has no such arm; it has {', '.join(sorted(known))}")
    return [job for job in jobs if (not names or job.arm.id in names) and (seeds is None or job.seed < seeds)]


def _conduct(setting: Setting, jobs: list[Job], places: Places, form: str, options: dict[str, Any]) -> int:
    from dataclasses import asdict

    from trainers.experiment.conduct import LOG, conduct, last_words, python, tasks_of

    tasks = tasks_of(setting, jobs, places)
    others: dict[str, str] = {}
    if options["status"]:
        standing, others = _standing(setting, jobs, tasks, places)
    else:
        of_slot = _devices(options["device"], options["processes"])

        def command(task: Task, slot: int) -> list[str]:
            given = {"--out": places.work, "--results": places.results, "--device": of_slot(slot)}
            given |= {"--dtype": options["dtype"], "--only": task.name}
            words = [word for name, value in given.items() for word in (name, str(value))]
            return python("experiment", str(setting.plan.path), *words)

        standing = conduct(tasks, places, command, options["processes"], _Teller())
    if form == "json":
        print_json({"results": str(places.results), **asdict(standing), "others": others})
    else:
        click.echo(f"{standing.sentence}; results in {places.results}")
        if options["status"] and standing.waiting:
            click.echo(f"not done: {', '.join(standing.waiting)}")
        for name, reason in others.items():
            click.echo(f"made by another plan, version or --dtype: {name} ({reason})")
    for task in tasks:
        if task.name in standing.failed:
            log = places.folder(task.job) / LOG
            click.echo(f"emit-bench: {task.name} failed: {last_words(log)} (all of it: {log})", err=True)
    return ExitCode.FAILED_ITEMS if standing.failed else ExitCode.OK


def _standing(
    setting: Setting, jobs: list[Job], tasks: list[Task], places: Places
) -> tuple[Standing, dict[str, str]]:
    """What is done, under way and not done, and what lies there that is not this plan's."""
    from harness.run_folder import is_held
    from trainers.experiment.conduct import Standing
    from trainers.experiment.records import strangers

    done = tuple(task.name for task in tasks if task.done())
    left = [task for task in tasks if task.name not in done]
    held = {task.job.name for task in left if is_held(places.folder(task.job))}
    running = tuple(task.name for task in left if task.job.name in held)
    waiting = tuple(task.name for task in left if task.name not in running)
    return Standing(done, running, (), waiting), strangers(setting, jobs, places)


def _devices(device: str, processes: int) -> Callable[[int], str]:
    """Which device each slot's jobs take: a GPU of its own where there are any.

    Raises:
        BadInput: there are fewer GPUs than processes.
    """
    import torch

    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return lambda slot: device
    count = torch.cuda.device_count()
    if processes > count:
        raise BadInput(f"--processes {processes}: every one takes a GPU, and there are {count}; say {count}")
    return lambda slot: f"cuda:{slot}"


class _Teller:
    """Tells where things stand on standard error: a line that is written over, or one a change in a log."""

    def __init__(self) -> None:
        import sys

        self.live = sys.stderr.isatty()
        self.last = ""

    def __call__(self, standing: Standing) -> None:
        if not standing.running and not standing.waiting:  # how it ends is said on standard output
            click.echo("\r\033[K" if self.live else "", err=True, nl=False)
            return
        shown = standing.sentence if self.live else f"{len(standing.done)} done {standing.failed}"
        if shown != self.last:
            self.last = shown
            click.echo(
                f"\r\033[K{standing.sentence}" if self.live else standing.sentence, err=True, nl=not self.live
            )


def _refuse_leaks(setting: Setting) -> None:
    """Nothing of the benchmark may be learnt from."""
    from contextlib import nullcontext

    from trainers.dataset.leakage import audit
    from trainers.samples import read_training_set

    class Silent:
        def update(self, n: int = 1) -> None:
            return None

    training = read_training_set(setting.source.path)
    found = audit(training, setting.benchmark, lambda title, total: nullcontext(Silent()))
    if found.leaks:
        raise BadInput(
            f"{setting.source.path}: {found.leaks} samples show what the benchmark asks about; "
            "`emit-bench data leakage` lists them; train on something else"
        )
