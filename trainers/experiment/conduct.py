"""All jobs of a plan, several at a time, each a process of its own; what is done is never done again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.run_folder import is_held
from harness.text import number_of
from trainers.experiment.jobs import DRAWS, Job, Places, Setting, is_drawn
from trainers.journal import METRICS
from trainers.launch import COMPANION

POLL_SECONDS = 1.0
LOG = "log.txt"
_BEGUN = "--- begun "  #: a log's line before each try


@dataclass
class _Running:
    """A job on its way."""

    task: Task
    process: subprocess.Popen[bytes]
    slot: int
    folder: Path
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Standing:
    """Where an experiment stands."""

    done: tuple[str, ...]
    running: tuple[str, ...]
    failed: tuple[str, ...]
    waiting: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """In one line."""
        total = len(self.done) + len(self.running) + len(self.failed) + len(self.waiting)
        parts = [f"{len(self.done)} of {number_of(total, 'job')} done"]
        parts += [f"running {', '.join(self.running)}"] if self.running else []
        parts += [f"failed {', '.join(self.failed)}"] if self.failed else []
        return "; ".join(parts)


@dataclass(frozen=True)
class Task:
    """What one process is to do."""

    name: str  #: as ``--only`` takes it
    job: Job
    done: Callable[[], bool]

    @property
    def stage1(self) -> str | None:
        """Digest of the stage 1 that it needs or makes."""
        return self.job.stage1


def tasks_of(setting: Setting, jobs: Sequence[Job], places: Places) -> list[Task]:
    """A task a job, and the draws behind the job whose model they are of."""
    strata = setting.plan.strata
    found = []
    for job in jobs:
        found.append(Task(job.name, job, lambda job=job: job.is_done(places)))  # type: ignore[misc]
        if strata is not None and job.arm.id == strata.arm and job.seed == 0:
            found.append(Task(DRAWS, job, lambda job=job: is_drawn(setting, job, places)))  # type: ignore[misc]
    return found


def conduct(
    tasks: Sequence[Task],
    places: Places,
    command: Callable[[Task, int], list[str]],
    slots: int = 1,
    told: Callable[[Standing], None] = lambda standing: None,
) -> Standing:
    """Do what is not done, ``slots`` tasks at a time; one that fails does not stop the others.

    A stage 1 that several tasks begin with is made by one of them, while the others do something else. What
    another experiment is doing in the same folders is left to it, and counts as done when it is.

    Args:
        tasks: in the order wanted.
        places: of the experiment.
        command: the program and its arguments, for a task in a slot.
        slots: tasks at a time.
        told: called with where things stand, whenever that changes.

    Returns:
        How it ended.
    """
    waiting = [task for task in tasks if not task.done()]
    done = [task.name for task in tasks if task not in waiting]
    failed: list[str] = []
    running: list[_Running] = []
    elsewhere: set[str] = set()  # tasks that another experiment was seen to do

    def standing() -> Standing:
        names = tuple(_progress(one) for one in running)
        return Standing(tuple(done), names, tuple(failed), tuple(task.name for task in waiting))

    try:
        while waiting or running:
            for task in list(waiting):
                free = sorted(set(range(slots)) - {one.slot for one in running})
                if not free or not _may_start(task, running, places):
                    continue
                if is_held(places.folder(task.job)):
                    elsewhere.add(task.name)
                    continue
                waiting.remove(task)
                if task.name in elsewhere and task.done():
                    done.append(task.name)
                    continue
                running.append(_start(task, places, command(task, free[0]), free[0], slots))
            told(standing())
            time.sleep(POLL_SECONDS)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                good = one.process.returncode == 0 and one.task.done()
                if one.process.returncode < 0:  # it had no time to say so
                    _note(one.folder / LOG, f"emit-bench: it was ended by signal {-one.process.returncode}")
                (done if good else failed).append(one.task.name)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
    told(standing())
    return standing()


def _may_start(task: Task, running: Sequence[_Running], places: Places) -> bool:
    """Whether nobody is making what it would begin with, and its own folder is free."""
    if any(one.folder == places.folder(task.job) for one in running):
        return False
    made = task.stage1 is None or places.head(task.stage1).is_file()
    return made or all(one.task.stage1 != task.stage1 for one in running)


def _start(task: Task, places: Places, command: Sequence[str], slot: int, slots: int) -> _Running:
    folder = places.folder(task.job)
    folder.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // slots))
    environment = {
        **os.environ,
        # A job that outlives the experiment would meet its successor in its folder.
        COMPANION: str(os.getpid()),
        "OMP_NUM_THREADS": threads,
        "OMP_WAIT_POLICY": "passive",
    }
    _note(folder / LOG, f"{_BEGUN}{time.strftime('%Y-%m-%d %H:%M:%S')} ---")
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    return _Running(task, process, slot, folder)


def _note(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def last_words(log: Path) -> str:
    """Why a job failed: the sentence that its last try ended with, or else the last line of its log."""
    if not log.is_file():
        return "it said nothing"
    tried = log.read_text(encoding="utf-8", errors="replace").rpartition(_BEGUN)[2]
    lines = [line.rpartition("\r")[2].strip() for line in tried.split("\n")[1:]]
    said = [line for line in lines if line]
    sentences = [line for line in said if line.startswith("emit-bench: ")]
    return (sentences or said or ["it said nothing"])[-1].removeprefix("emit-bench: ")


def _progress(one: _Running) -> str:
    """Name, and how far its training or evaluation is."""
    minutes = (time.monotonic() - one.started) / 60
    newest = max(one.folder.glob(f"*/{METRICS}"), key=lambda path: path.stat().st_mtime, default=None)
    steps = newest.read_bytes().count(b"\n") if newest else 0
    where = f"{newest.parent.name} step {steps}, " if newest else ""
    return f"{one.task.name} ({where}{minutes:.0f} min)"


def python(*arguments: str) -> list[str]:
    """The command line of this program with arguments."""
    return [sys.executable, "-m", "harness.cli", *arguments]
