"""An experiment's results, measured once for tables and figures alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from harness.averaging import AVERAGE
from harness.errors import BadInput
from harness.experiments import ArmResult, Experiment
from harness.replication import (
    STRATA,
    Replicated,
    SeedDifference,
    contrast,
    holm_adjusted,
    stratum_of,
)

LEVEL = 0.05
#: The strata of difficulty in words: share of right answers before stage 2.
STRATUM_TITLES = ("never", "up to 15 %", "up to 50 %", "more often")
STRATUM_GROUP = "Right before stage 2:"
assert STRATA == (0.0, 0.15, 0.5, 1.0)  # those words say these bounds


@dataclass(frozen=True)
class Claim:
    """One comparison of the design with what was found."""

    better: str  #: id of the arm that was said to be better
    worse: str
    title: str
    primary: bool
    found: SeedDifference
    adjusted: float | None  #: p, adjusted for the other primary claims; None for a secondary one
    finished: bool  #: whether both arms have all their seeds

    @property
    def told(self) -> bool:
        """Whether the difference is told from 0; nobody stops where it suits, so no unfinished one is."""
        p = self.found.p_value if self.adjusted is None else self.adjusted
        return self.finished and p <= LEVEL  # a p that cannot be computed is not

    @property
    def verdict(self) -> str:
        """What the claim comes to."""
        if not self.told:
            return "not shown" if self.finished else "not finished"
        said = "holds" if self.found.delta > 0 else "the reverse holds"
        return said if self.primary else f"{said} (unadjusted)"


@dataclass(frozen=True, slots=True)
class Contrast:
    """One comparison in two experiments that share neither trainings nor images: is it larger in one?"""

    here: Claim
    there: Claim

    @property
    def finished(self) -> bool:
        """Whether both experiments have all seeds of both arms."""
        return self.here.finished and self.there.finished

    @property
    def values(self) -> tuple[float, float, float, float]:
        """Here minus there in points, its interval, and its p; NaN where a spread is not known."""
        return contrast(self.here.found, self.there.found)

    @property
    def verdict(self) -> str:
        """Whether the two differences are told from each other."""
        delta, _, _, p = self.values
        if not self.finished:
            return "not finished"
        return "not told apart" if not p <= LEVEL else "larger" if delta > 0 else "smaller"


@dataclass(frozen=True)
class Findings:
    """An experiment with its arms' runs side by side. Make it with :func:`find`."""

    experiment: Experiment
    arms: tuple[ArmResult, ...]  #: those that have a result
    runs: Replicated

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """The design's comparisons: primary ones adjusted for each other, the others as they are."""
        design = self.experiment.design["comparisons"]
        titles = {arm.id: arm.title for arm in self.experiment.arms}
        short = {arm.id for arm in self.experiment.arms if len(arm.answers) < arm.planned}
        wanted = [c for c in design if self.runs.can_compare(c["better"], c["worse"])]
        found = [self.runs.difference(c["better"], c["worse"], AVERAGE) for c in wanted]
        primary = [i for i, c in enumerate(wanted) if c["primary"]]
        planned = sum(c["primary"] for c in design)
        adjusted = dict(zip(primary, holm_adjusted([found[i] for i in primary], planned), strict=True))
        return tuple(
            Claim(
                better=c["better"],
                worse=c["worse"],
                title=f"{titles[c['better']]} > {titles[c['worse']]}",
                primary=c["primary"],
                found=one,
                adjusted=adjusted.get(i),
                finished=not short & {c["better"], c["worse"]},
            )
            for i, (c, one) in enumerate(zip(wanted, found, strict=True))
        )

    @cached_property
    def strata(self) -> NDArray[np.intp] | None:
        """``(Q,)`` the stratum of each question; None where nothing was drawn before stage 2."""
        chances = self.experiment.chances
        return None if chances is None else stratum_of(chances, self.runs.panel.questions).astype(np.intp)

    def in_strata(self, claim: Claim) -> tuple[SeedDifference | None, ...]:
        """A claim's difference in each stratum, in points of plain accuracy."""
        places = self.strata
        if places is None:
            return ()
        return tuple(
            self.runs.stratum_difference(claim.better, claim.worse, places == i)
            for i in range(len(STRATUM_TITLES))
        )

    @property
    def unfinished(self) -> str:
        """Arms that lack seeds, in words; empty where none does."""
        short = [a for a in self.experiment.arms if len(a.answers) < a.planned]
        return ", ".join(f"{a.title} {len(a.answers)} of {a.planned}" for a in short)


def find(experiment: Experiment) -> Findings:
    """Put an experiment's runs side by side, as far as it has come.

    Raises:
        BadInput: no arm has a result, or arms answered other questions.
    """
    run = tuple(arm for arm in experiment.arms if arm.answers)
    if not run:
        raise BadInput(f"{experiment.folder}: no arm has a result yet; run the experiment first")
    untrained = [arm["id"] for arm in experiment.design["arms"] if not arm.get("recipe")]
    return Findings(experiment, run, Replicated({arm.id: arm.answers for arm in run}, fixed=untrained))


def contrasts(here: Findings, there: Findings) -> tuple[Contrast, ...]:
    """The comparisons that two experiments have in common, in the order of the first.

    Raises:
        BadInput: they have none, or asked the same benchmark.
    """
    if here.experiment.design["benchmark"]["digest"] == there.experiment.design["benchmark"]["digest"]:
        raise BadInput(
            f"{here.experiment.folder} and {there.experiment.folder} asked the same benchmark: their errors "
            "are not apart, so their differences cannot be compared so"
        )
    others = {(claim.better, claim.worse): claim for claim in there.claims}
    found = tuple(
        Contrast(claim, others[claim.better, claim.worse])
        for claim in here.claims
        if (claim.better, claim.worse) in others
    )
    if not found:
        raise BadInput(
            f"{here.experiment.folder} and {there.experiment.folder} have no comparison in common yet"
        )
    return found
