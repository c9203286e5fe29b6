"""The verdict: is the run as good as its baseline, worse, or can these questions not tell?

For each score the difference (current minus baseline) is judged against a margin:

* ``pass``: its interval lies above minus the margin, so that a greater loss is ruled out (non-inferiority);
* ``regression``: it does not, and the loss is significant after adjustment for the number of tests;
* ``inconclusive``: neither, or fewer questions than the policy wants.

A significant loss within the margin passes: it is known to be small. The two-sided test at alpha spends half
of it on losses, once over all subtasks and once over the averages, so that an unchanged model is called worse
in at most alpha of all checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.comparison import Comparison, Test, adjusted, compare, shared
from harness.errors import BadInput, ExitCode
from harness.estimates import RESAMPLES
from harness.gate.policy import Policy
from harness.panel import QuestionId
from harness.records import Answer, Outcome
from harness.sources import Source, differences, require_comparable
from harness.statistics import detectable
from harness.text import number_of, p_value, points

Verdict = Literal["pass", "regression", "inconclusive"]
EXIT_CODES: Mapping[Verdict, ExitCode] = {
    "pass": ExitCode.OK,
    "regression": ExitCode.REGRESSION,
    "inconclusive": ExitCode.INCONCLUSIVE,
}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Change:
    """An image whose answers to one score's questions changed."""

    key: str
    lost: int
    gained: int
    letters: tuple[str, ...]  #: one text a changed question: number, right letter, before and now


@dataclass(frozen=True, slots=True)
class Judged:
    """One score of one model with its verdict."""

    model: str
    test: Test
    margin: float
    verdict: Verdict
    reason: str
    detectable: float | None  #: true drop that would be called a regression with 80 % power
    changes: tuple[Change, ...]  #: the images that lost most, five at most

    def as_json(self) -> dict[str, Any]:
        """For ``--format json``."""
        test = self.test
        return {
            "model": self.model,
            "metric": test.metric,
            "baseline": test.baseline,
            "current": test.current,
            "delta": test.delta,
            "ci_low": test.ci_low,
            "ci_high": test.ci_high,
            "p_value": test.p_value,
            "p_adjusted": test.p_adjusted,
            "verdict": self.verdict,
            "reason": self.reason,
            "margin": self.margin,
            "detectable": self.detectable,
            "mcnemar": test.mcnemar,
            "gained": test.gained,
            "lost": test.lost,
            "questions": test.n,
            "changed": [
                {"image": c.key, "lost": c.lost, "gained": c.gained, "answers": list(c.letters)}
                for c in self.changes
            ],
        }


@dataclass(frozen=True)
class Check:
    """What a check found."""

    run: str
    baseline: str
    policy: Policy
    judged: tuple[Judged, ...]
    notes: tuple[str, ...] = ()  #: what a reader has to know; an incomplete run is among it
    incomplete: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        verdicts = {one.verdict for one in self.judged}
        if "regression" in verdicts:
            return "regression"
        return "inconclusive" if self.incomplete or "inconclusive" in verdicts else "pass"

    @property
    def exit_code(self) -> ExitCode:
        """0, 1 or 4."""
        return EXIT_CODES[self.verdict]

    def as_json(self) -> dict[str, Any]:
        """For ``--format json``."""
        return {
            "verdict": self.verdict,
            "run": self.run,
            "baseline": self.baseline,
            "rule": self.policy.rule,
            "alpha": self.policy.alpha,
            "cluster": self.policy.cluster,
            "notes": list(self.notes),
            "tests": [one.as_json() for one in self.judged],
        }


def check(
    run: Source,
    baseline: Source,
    policy: Policy,
    *,
    common: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Check:
    """Judge a run against a baseline.

    Args:
        run: what is judged.
        baseline: an older run, a baseline file, or an answer file.
        policy: the demands.
        common: compare the questions that both have instead of refusing when they differ.
        resamples: of the bootstrap, and as many permutations.
        seed: of the draws.

    Raises:
        BadInput: benchmark, protocol or questions differ, or a required model is missing on either side.
    """
    notes = []
    if common:
        notes += differences(run, baseline)
    else:
        require_comparable(baseline, run)
    incomplete = not run.finished
    if incomplete:
        notes.append(f"{run.path}: the run is not finished")
    for name in policy.by_model:
        if name not in run.answers and name not in baseline.answers:
            notes.append(f"the policy's model.{name} is of no model of the run or the baseline")
    pairs: dict[str, tuple[Sequence[Answer], Sequence[Answer]]] = {}
    unknown = [model for model in run.answers if model not in baseline.answers]
    if unknown and run.manifest is not None:
        notes.append(f"not in the baseline, so not judged: {', '.join(unknown)}")
    for model, (other, name) in _required(run, baseline, policy).items():
        sides: tuple[Sequence[Answer], Sequence[Answer]] = baseline.answers[other], run.answers[name]
        if common or incomplete:
            sides, told = _shared(model, sides)
            notes += told
        failed = sum(answer.outcome is Outcome.FAILED for answer in sides[1]) / max(len(sides[1]), 1)
        if failed > policy.max_failed:
            incomplete = True
            notes.append(f"{model}: {failed:.1%} of its questions failed, {policy.max_failed:.1%} may")
        if sides[1]:
            pairs[model] = sides
        else:
            incomplete = True  # a model that is asked for and cannot be judged has not passed
    if not pairs:
        raise BadInput(f"{run.path} and {baseline.path} share no question, so there is nothing to judge")
    compared = {
        model: compare(
            *sides,
            policy.rule,
            cluster=policy.cluster,
            resamples=resamples,
            alpha=policy.alpha,
            seed=seed,
            names=(f"{model} of the baseline", f"{model} of the run"),
        )
        for model, sides in pairs.items()
    }
    judged = _judge(compared, pairs, policy)
    return Check(str(run.path), str(baseline.path), policy, judged, tuple(notes), incomplete)


def _required(run: Source, baseline: Source, policy: Policy) -> dict[str, tuple[str, str]]:
    """Model -> its name in the baseline and in the run.

    Two answer files of one model each are of the same model, whatever they are called.
    """
    bare = run.manifest is None or baseline.manifest is None
    if bare and not policy.models and len(run.answers) == len(baseline.answers) == 1:
        (name,), (other,) = run.answers, baseline.answers
        return {name: (other, name)}
    wanted = policy.models or tuple(baseline.answers)
    if run.manifest is None and len(run.answers) == len(wanted) == 1 and wanted[0] in baseline.answers:
        return {wanted[0]: (wanted[0], next(iter(run.answers)))}  # an answer file does not tell whose it is
    for side in (run, baseline):
        missing = [model for model in wanted if model not in side.answers]
        if missing:
            raise BadInput(
                f"{side.path}: it holds no answers of {', '.join(missing)}, only of "
                f"{', '.join(side.answers)}; {_remedy(side, side is run, bool(policy.models))}"
            )
    return {model: (model, model) for model in wanted}


def _remedy(side: Source, is_run: bool, named: bool) -> str:
    """What to do about models that one side does not have."""
    if not is_run:
        return "write it again with --update, or correct the names in --models or the policy"
    if not side.finished:
        return "the run is not finished: give its command again, or judge what there is with --models"
    if side.manifest is None:
        return "say whose answers the file holds with --models NAME"
    if named:
        return "run these models, or correct the names in --models or the policy"
    return "run these models, or name those to be judged with --models"


def _shared(
    model: str, sides: tuple[Sequence[Answer], Sequence[Answer]]
) -> tuple[tuple[Sequence[Answer], Sequence[Answer]], list[str]]:
    before, now, differing = shared(*sides)
    if len(before) == len(sides[0]) == len(sides[1]):
        return (before, now), []
    other = f", {len(differing):,} differ under the same number" if differing else ""
    told = (
        f"{model}: {len(before):,} questions are compared, of {len(sides[0]):,} and {len(sides[1]):,}{other}"
    )
    return (before, now), [told]


def _judge(
    compared: Mapping[str, Comparison],
    pairs: Mapping[str, tuple[Sequence[Answer], Sequence[Answer]]],
    policy: Policy,
) -> tuple[Judged, ...]:
    """All scores of all models; p-values are adjusted over everything that is judged."""
    tests = [(model, test) for model, found in compared.items() for test in found.tests]
    subtasks = sum(test.metric != "average" for _, test in tests)
    judged = []
    for (model, _), test in zip(tests, adjusted([test for _, test in tests]), strict=True):
        margin = policy.margin_of(model, test.metric)
        verdict, reason = judge(test, margin, policy)
        count = len(compared) if test.metric == "average" else subtasks
        findable = (
            detectable(test.error, policy.alpha, margin=margin, tests=count)
            if test.detectable is not None
            else None
        )
        changes = _changes(*pairs[model], test.metric)
        judged.append(Judged(model, test, margin, verdict, reason, findable, changes))
    return tuple(judged)


def judge(test: Test, margin: float, policy: Policy) -> tuple[Verdict, str]:
    """The verdict on one score, and why.

    Args:
        test: the comparison, its p-value adjusted.
        margin: points that the score may lose.
        policy: level and number of questions.
    """
    if test.n < policy.minimum_questions:
        return (
            "inconclusive",
            f"{number_of(test.n, 'question')}, minimum-questions is {policy.minimum_questions}",
        )
    if test.ci_low >= -margin:
        if test.delta == 0 and test.error == 0:
            return "pass", "nothing changed"
        return "pass", f"a loss of more than {points(margin)} is ruled out"
    if test.delta < 0 and test.p_adjusted <= policy.alpha:
        size = "exceeds" if test.ci_high < -margin else "may exceed"
        return (
            "regression",
            f"the loss is significant (p {p_value(test.p_adjusted)}) and {size} {points(margin)}",
        )
    return "inconclusive", f"a loss of more than {points(margin)} is neither shown nor ruled out"


def _changes(before: Sequence[Answer], now: Sequence[Answer], metric: str) -> tuple[Change, ...]:
    """The images that lost most right answers, then those that changed most."""
    old: dict[QuestionId, Answer] = {(answer.key, answer.number): answer for answer in before}
    found: dict[str, list[tuple[int, int, str]]] = {}
    for answer in now:
        other = old[answer.key, answer.number]
        if answer.letter == other.letter or metric not in (answer.subtask, "average"):
            continue
        right = [side.letter == side.correct for side in (other, answer)]
        told = f"{answer.number}: {other.letter or '-'} to {answer.letter or '-'}, right is {answer.correct}"
        found.setdefault(answer.key, []).append((right[0] - right[1], right[1] - right[0], told))
    changes = [
        Change(
            key,
            sum(lost > 0 for lost, _, _ in rows),
            sum(gained > 0 for _, gained, _ in rows),
            tuple(told for *_, told in rows),
        )
        for key, rows in found.items()
    ]
    changes.sort(key=lambda change: (change.gained - change.lost, -len(change.letters), change.key))
    return tuple(changes[:_SHOWN])
