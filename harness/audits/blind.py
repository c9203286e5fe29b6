"""``--audit blind``: how much of a score do the texts alone give away?

Every question is asked in the words of the run, without any image and without EMIT's contrastive tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.audits.spec import Audit, Cell, Evidence, Finding, Variant
from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.comparison import Test
    from harness.run_info import RunInfo

_NAME = "no-images"


def _variants(base: RunInfo) -> list[Variant]:
    if base.protocol.images == "hidden":
        raise BadInput(
            f"--audit blind: protocol {base.protocol.name!r} shows no image anyway; leave the audit out"
        )
    run = replace(base, protocol=replace(base.protocol, images="hidden"))
    return [Variant(_NAME, "the same texts without any image", run)]


def _judge(evidence: Evidence) -> Finding:
    from harness.averaging import TITLES
    from harness.comparison import METRICS, compare
    from harness.estimates import estimate
    from harness.scoring import AVERAGE, by_chance

    blind = evidence.variants[_NAME]
    compared = {test.metric: test for test in compare(blind, evidence.base).tests}
    estimates = estimate({"blind": blind})["blind"].rows[AVERAGE]
    chance = by_chance(blind).rows[AVERAGE]
    rows: list[dict[str, Cell]] = []
    figures = {}
    for metric in METRICS:
        test, found = compared.get(metric), estimates[metric]
        if test is None or found is None:
            continue
        rows.append(
            {
                "Model": evidence.title,
                "Score": TITLES[metric],
                "Chance": chance[metric],
                "Blind": found.value,
                "95 % interval": f"{found.low:.2f} to {found.high:.2f}",
                "With images": test.current,
                "Images add": f"{test.delta:+.2f}",
                "p (adj.)": f"{test.p_adjusted:.4f}",
            }
        )
        figures[metric] = {
            "chance": chance[metric],
            "blind": {"value": found.value, "low": found.low, "high": found.high},
            "with_images": test.current,
            "images_add": {"value": test.delta, "low": test.ci_low, "high": test.ci_high, "p": test.p_value},
        }
    average = compared[AVERAGE]
    silent = sum(answer.letter is None for answer in blind)
    left_out = f" ({silent:,} of its {len(blind):,} blind answers hold no letter)" if silent else ""
    guess, alone, seen = chance[AVERAGE] or 0.0, average.baseline, average.current
    whole = estimates[AVERAGE]
    beyond_guessing = whole is not None and whole.low > guess
    sentence = (
        f"Without images {evidence.title} scores {alone:.1f}{left_out}, with them {seen:.1f}, and guessing "
        f"{guess:.1f}: {_worth(guess, average, beyond_guessing)}."
    )
    return Finding(rows, sentence, len(blind), {"scores": figures, "without_letter": silent})


def _worth(guess: float, average: Test, beyond_guessing: bool) -> str:
    """What texts alone bring of what is gained on guessing; no share is told of what may be noise."""
    if not beyond_guessing:
        return "the texts alone give nothing away beyond noise"
    if average.ci_low <= 0:
        return "the images add nothing beyond noise to what the texts give away"
    part = (average.baseline - guess) / (average.current - guess)
    return f"the texts alone bring {100 * part:.0f} % of what it gains on guessing"


BLIND = Audit(
    "blind",
    "No images",
    "Every question without any image: what do the texts alone give away?",
    _variants,
    _judge,
)
