"""An experiment's results, measured once for tables and figures alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.averaging import AVERAGE
from harness.errors import BadInput
from harness.experiments import ArmResult, Experiment
from harness.replication import (
    STRATA,
    Mask,
    Replicated,
    SeedDifference,
    contrast,
    holm_adjusted,
    stratum_of,
)

LEVEL = 0.05
#: The strata of difficulty in words: share of right answers before stage 2.
STRATUM_TITLES = ("never", "up to 15 %", "up to 50 %", "more often")
STRATUM_GROUP = "Answered correctly before stage 2:"
assert STRATA == (0.0, 0.15, 0.5, 1.0)  # those words say these bounds
HARD = (0, 1)  #: the strata where difficulty-aware GRPO has to gain, if it works as the paper says


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
        # Of a claim that lacks seeds, p may still turn: it must not ease the others' adjustment.
        settled = [
            replace(found[i], p_value=math.nan) if short & set(_sides(wanted[i])) else found[i]
            for i in primary
        ]
        adjusted = dict(zip(primary, holm_adjusted(settled, planned), strict=True))
        return tuple(
            Claim(
                better=c["better"],
                worse=c["worse"],
                title=f"{titles[c['better']]} > {titles[c['worse']]}",
                primary=c["primary"],
                found=one,
                adjusted=adjusted.get(i),
                finished=not short & set(_sides(c)),
            )
            for i, (c, one) in enumerate(zip(wanted, found, strict=True))
        )

    @cached_property
    def strata(self) -> NDArray[np.intp] | None:
        """``(Q,)`` the stratum of each question; None where nothing was drawn before stage 2."""
        chances = self.experiment.chances
        return None if chances is None else stratum_of(chances, self.runs.panel.questions).astype(np.intp)

    @cached_property
    def strata_claims(self) -> tuple[Claim, ...]:
        """The claims that strata say something of.

        Luck is part of why the drawn model's questions are hard or easy. It cancels between two arms whose
        seeds began with its own seeds' stage 1 and are asked alike; not against that model itself, nor
        against one that began elsewhere.
        """
        strata = self.experiment.design.get("strata")
        drawn = next((arm for arm in self.arms if strata and arm.id == strata["arm"]), None)
        if drawn is None or self.strata is None:
            return ()
        began = {arm.id for arm in self.arms if arm is not drawn and _began_alike(arm, drawn)}
        return tuple(claim for claim in self.claims if {claim.better, claim.worse} <= began)

    def within(self, stratum: int) -> Mask:
        """``(Q,)`` the questions of a stratum."""
        mask: Mask = np.equal(-1 if self.strata is None else self.strata, stratum)
        return mask

    def in_strata(self, claim: Claim) -> tuple[SeedDifference | None, ...]:
        """A claim's difference in each stratum, in points of plain accuracy."""
        return tuple(
            self.runs.stratum_difference(claim.better, claim.worse, self.within(i))
            for i in range(len(STRATUM_TITLES))
        )

    def hard_minus_easy(self, claim: Claim) -> tuple[SeedDifference | None, ...]:
        """How much larger a claim's difference is in each stratum of :data:`HARD` than in the easiest."""
        easiest = self.within(len(STRATUM_TITLES) - 1)
        return tuple(
            self.runs.stratum_difference(claim.better, claim.worse, self.within(i), easiest) for i in HARD
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
    try:
        runs = Replicated({arm.id: arm.answers for arm in run}, fixed=untrained)
    except BadInput as error:
        said = str(error).partition("; pass --common")[0]
        raise BadInput(
            f"{experiment.folder}: {said}; delete what lacks questions, and run the experiment again"
        ) from error
    return Findings(experiment, run, runs)


def _began_alike(arm: ArmResult, drawn: ArmResult) -> bool:
    """Whether every run of an arm began with the stage 1 of the same seed of another, and is asked alike."""

    def told(record: Mapping[str, Any]) -> tuple[Any, Any]:
        return record.get("stage1"), record.get("protocol", {}).get("digest")

    return bool(arm.records) and all(
        record.get("stage1") is not None and told(record) == told(drawn.records.get(seed, {}))
        for seed, record in arm.records.items()
    )


def _sides(comparison: Mapping[str, Any]) -> tuple[str, str]:
    return comparison["better"], comparison["worse"]


def contrasts(here: Findings, there: Findings) -> tuple[Contrast, ...]:
    """The comparisons that two experiments have in common, in the order of the first.

    Raises:
        BadInput: they have none, or asked the same benchmark, or their arms differ in more than their data.
    """
    one, other = here.experiment, there.experiment
    if one.design["benchmark"]["digest"] == other.design["benchmark"]["digest"]:
        raise BadInput(
            f"{one.folder} and {other.folder} asked the same benchmark: their errors are not apart, so their "
            "differences cannot be compared so"
        )
    _require_alike(one, other)
    others = {(claim.better, claim.worse): claim for claim in there.claims}
    found = tuple(
        Contrast(claim, others[claim.better, claim.worse])
        for claim in here.claims
        if (claim.better, claim.worse) in others
    )
    if not found:
        raise BadInput(f"{one.folder} and {other.folder} have no comparison in common yet")
    return found


def _require_alike(one: Experiment, other: Experiment) -> None:
    """Arms of one name must have been trained and asked alike: then what differs is what they met."""
    ours, theirs = one.design, other.design
    sides = {
        "the protocol": [design["protocol"]["digest"] for design in (ours, theirs)],
        "the world": [design["benchmark"]["world"] for design in (ours, theirs)],
        "[settings]": [design.get("settings") for design in (ours, theirs)],
    }
    known = {arm["id"]: arm for arm in theirs["arms"]}
    for arm in (arm for arm in ours["arms"] if arm["id"] in known):
        for field in ("recipe", "preset", "settings", "mode"):
            sides[f"{field} of {arm['id']}"] = [arm.get(field), known[arm["id"]].get(field)]
    differing = next((name for name, (here, there) in sides.items() if here != there), "")
    if differing:
        raise BadInput(
            f"{one.folder} and {other.folder} differ in {differing}: a contrast would be of that, too"
        )
