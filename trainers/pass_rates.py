"""Pass rates: how often the policy answers each training question correctly before stage 2 learns from it.

Difficulty-aware GRPO lives on questions that are rarely answered correctly (paper, "Difficulty-Aware GRPO"):
plain GRPO learns nothing true from a group without a right response. Whether a training set has such
questions is worth knowing before a training that takes days.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.averaging import TITLES
from harness.errors import BadInput
from harness.jsonfiles import read_rows
from harness.replication import STRATA, stratum
from harness.subtasks import SUBTASK_KEYS
from trainers.distributed import Tally, World
from trainers.grpo import Grpo
from trainers.objective import Unit, units_of
from trainers.samples import Sample

FILE = "pass_rates.jsonl"
#: Prompts that a process draws for between two writings to disk.
ROUND = 8


@dataclass(frozen=True, slots=True)
class PassRate:
    """One training question."""

    id: str  #: of the sample
    task: str  #: its subtask
    right: int  #: correct responses
    draws: int  #: responses drawn

    @property
    def share(self) -> float:
        """The pass rate, 0 to 1."""
        return self.right / self.draws


def measure(grpo: Grpo, pairs: Sequence[Sequence[Sample]], world: World, path: Path) -> None:
    """Draw a group of responses to every question, count the right ones, and write them to ``path``.

    What is in the file is not drawn again, so a call that was cut off goes on.

    Args:
        grpo: what draws; its ``rollout.group`` is the number of responses a question.
        pairs: the questions, by image pair.
        world: the processes that share the work; the first one writes.
        path: of the JSONL file, a question a line.

    Raises:
        BadInput: the file holds rates of another number of draws, or cannot be written.
        RuntimeError: a question was dealt to no process.
    """
    from tqdm import tqdm

    draws = grpo.settings.rollout.group
    error, done = None, set[str]()
    if world.leads and path.is_file():
        try:
            done = _begun(path, draws)
        except BadInput as refused:
            error = str(refused)
    if (error := world.agree(error)) is not None:
        raise BadInput(error)
    done = world.told(done)
    units = [unit for unit in units_of(pairs, "think") if not done.issuperset(one.id for one in unit[0])]
    size = ROUND * world.size
    rounds = [units[start : start + size] for start in range(0, len(units), size)]
    bar = tqdm(total=sum(len(samples) for samples, _ in units), desc="pass rates", disable=not world.leads)
    with bar:
        for place, work in enumerate(rounds):
            ahead = rounds[place + 1] if place + 1 < len(rounds) else []
            found = _drawn(grpo, world.share(work), world.share(ahead))
            right = world.add(found, grpo.policy.device)
            samples = [sample for unit, _ in work for sample in unit if sample.id not in done]
            if lost := [one.id for one in samples if one.id not in right]:
                raise RuntimeError(f"no process drew for {lost[0]}")  # a tally would say 0
            if world.leads:
                _append(path, [PassRate(one.id, one.task, int(right[one.id]), draws) for one in samples])
            bar.update(len(samples))


def _drawn(grpo: Grpo, units: Sequence[Unit], ahead: Sequence[Unit]) -> Tally:
    """Right responses by question, of this process's part of a round."""
    grpo.feed.ahead(ahead)
    groups = (group for samples, mode in units for group in grpo.groups(samples, mode))
    return Tally({group.sample.id: float(sum(group.correct)) for group in groups})


def _begun(path: Path, draws: int) -> set[str]:
    """The questions that the file has; a last line that was not finished is dropped."""
    try:
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)
    except OSError as error:
        raise BadInput(f"{path}: it cannot be read or mended ({error.strerror}); delete it") from error
    found = read_pass_rates(path)
    other = {one.draws for one in found} - {draws}
    if other:
        raise BadInput(
            f"{path}: it holds rates of {other.pop()} draws a question; draw as many, or delete the file"
        )
    return {one.id for one in found}


def _append(path: Path, rates: Iterable[PassRate]) -> None:
    lines = (
        json.dumps({"id": one.id, "task": one.task, "right": one.right, "draws": one.draws}) for one in rates
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadInput(f"{path}: it cannot be written ({error.strerror}); make room, then resume") from error


def read_pass_rates(path: Path) -> list[PassRate]:
    """The questions of a file that :func:`measure` wrote.

    Raises:
        BadInput: it cannot be read, or a line is no pass rate.
    """
    found = []
    for where, row in read_rows(path):
        try:
            one = PassRate(str(row["id"]), str(row["task"]), int(row["right"]), int(row["draws"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"{where}: it is no pass rate ({error}); delete the line") from error
        if not 0 <= one.right <= one.draws or not one.draws:
            raise BadInput(f"{where}: {one.right} of {one.draws} cannot be right; delete the line")
        found.append(one)
    return found


def as_table(rates: Sequence[PassRate]) -> str:
    """How many questions of each subtask are how hard: percent in the strata of the experiments.

    >>> print(as_table([PassRate("a", "object_analysis", 0, 8), PassRate("b", "object_analysis", 8, 8)]))
    Subtask          Questions  Never right  Up to 15 %  Up to 50 %  More often
    Object Analysis          2         50.0         0.0         0.0        50.0
    All                      2         50.0         0.0         0.0        50.0
    """
    from harness.text import columns

    rows: list[tuple[str, ...]] = [
        ("Subtask", "Questions", "Never right", "Up to 15 %", "Up to 50 %", "More often")
    ]
    for task in SUBTASK_KEYS:
        if shares := [one.share for one in rates if one.task == task]:
            rows.append(_row(TITLES[task], shares))
    rows.append(_row("All", [one.share for one in rates]))
    return columns(rows, right_from=1)


def _row(title: str, shares: Sequence[float]) -> tuple[str, ...]:
    counted: Mapping[int, int] = Counter(map(stratum, shares))
    percents = (f"{100 * counted[i] / max(1, len(shares)):.1f}" for i in range(len(STRATA)))
    return (title, f"{len(shares):,}", *percents)
