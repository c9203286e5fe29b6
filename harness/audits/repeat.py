"""``--audit repeat``: the noise floor, from the same run once more in another order.

The questions, their images and the model are the same; which image pairs are computed side by side is not.
What changes then is rounding, or chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.audits.spec import Audit, Cell, Evidence, Finding, Variant

if TYPE_CHECKING:
    from harness.audits.figures import Figure
    from harness.run_info import RunInfo

_NAME = "reordered"


def _variants(base: RunInfo) -> list[Variant]:
    # A folder of its own has a store of its own, so every answer is computed again.
    items = random.Random(base.seed).sample(base.items, len(base.items))
    unit = other_unit(base.labour.unit)
    labour = replace(base.labour, unit=unit)
    summary = f"image pairs in another order, {unit} at a time"
    return [Variant(_NAME, summary, replace(base, items=tuple(items), labour=labour))]


def other_unit(unit: int) -> int:
    """Another number of image pairs at a time, whose multiples are others too.

    >>> [other_unit(unit) for unit in (1, 2, 8, 64)]
    [3, 3, 5, 33]
    """
    return unit // 2 + 1 if unit > 2 else 3


def _judge(evidence: Evidence) -> Finding:
    from harness.audits.figures import share
    from harness.averaging import TITLES
    from harness.comparison import compare
    from harness.scoring import AVERAGE
    from harness.subtasks import SUBTASK_KEYS

    again = {(answer.key, answer.number): answer for answer in evidence.variants[_NAME]}
    pairs = [(one, again[one.key, one.number]) for one in evidence.base]
    rows: list[dict[str, Cell]] = []
    figures = {}
    for name in (*SUBTASK_KEYS, "all"):
        inside = [(one, other) for one, other in pairs if name in ("all", one.subtask)]
        if not inside:
            continue
        flips = [one.letter != other.letter for one, other in inside]
        rate = share(flips, [one.key for one, _ in inside])
        rows.append(
            {
                "Model": evidence.title,
                "Subtask": TITLES.get(name, "All"),
                "Questions": len(flips),
                "Flips": sum(flips),
                "Flip rate": rate.value,
                "95 % interval": rate.interval,
            }
        )
        figures[name] = {"questions": len(flips), "flips": sum(flips), "rate": rate.as_json()}
    before, now = zip(*pairs, strict=True)
    average = next(test for test in compare(before, now).tests if test.metric == AVERAGE)
    # Flips go both ways and mostly cancel, so averages move by far less than answers flip.
    noise = 1.96 * average.error
    return Finding(
        rows,
        _sentence(evidence.title, flips, rate, average.delta, noise),
        len(pairs),
        {"flips": figures, "average": [average.baseline, average.current], "noise": noise},
    )


def _sentence(title: str, flips: Sequence[bool], rate: Figure, moved: float, noise: float) -> str:
    """On all questions."""
    if not any(flips):
        return (
            f"Asked again in another order, {title} changes none of its {len(flips):,} answers (a share of "
            f"up to {rate.high:.2f} % fits that): no noise of rounding or chance is seen in its scores."
        )
    return (
        f"Asked again in another order, {title} changes {sum(flips):,} of its {len(flips):,} answers "
        f"({rate.value:.2f} %, 95 % interval {rate.interval}), and its average by {moved:+.2f} points: "
        f"between two such runs the average moves by up to {noise:.2f} points in 95 of 100 cases."
    )


REPEAT = Audit(
    "repeat",
    "The same again",
    "The same run in another order and batch size: how many answers flip by themselves?",
    _variants,
    _judge,
)
