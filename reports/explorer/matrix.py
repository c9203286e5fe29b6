"""Every model against every other: paired differences, and whether they can be told from none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.averaging import COLUMNS
from harness.statistics import percentile_interval
from reports.explorer.drill import METRICS
from reports.subject import Subject

Verdict = Literal["better", "worse", "same"]


@dataclass(frozen=True, slots=True)
class Duel:
    """One entry's score less another's, in points, with its paired interval."""

    delta: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """What the interval says; ``same`` when no difference is shown."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "same"


@dataclass(frozen=True, slots=True)
class Matrix:
    """All duels in one metric; None on the diagonal."""

    metric: str
    rows: tuple[tuple[Duel | None, ...], ...]


def matrices(subject: Subject, confidence: float = 0.95) -> tuple[Matrix, ...]:
    """A matrix for the average and for every subtask that was asked; none where models cannot be paired.

    All entries share their resamples, so that a difference of replicates is one of pairs.
    """
    if len(subject.entries) < 2 or not subject.comparable:
        return ()
    values = subject.panel.percentages()[:, -1]
    found = []
    for metric in METRICS:
        at = COLUMNS.index(metric)
        if np.isnan(values[0, at]):
            continue
        drawn = subject.replicates[:, :, -1, at]
        rows = []
        for one in range(len(subject.entries)):
            low, high = percentile_interval(drawn[:, [one]] - drawn, confidence, subject.panel.freedom)
            duels = [
                Duel(float(values[one, at] - values[other, at]), float(low[other]), float(high[other]))
                for other in range(len(subject.entries))
            ]
            rows.append(tuple(None if other == one else duel for other, duel in enumerate(duels)))
        found.append(Matrix(metric, tuple(rows)))
    return tuple(found)
