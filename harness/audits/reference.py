"""``--audit reference``: does a model look at the reference image?

Questions that are asked with a reference are asked again with another one in its place, or with none. Prompts
still say that it shows a sound product: that it may not is the point.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.audits.spec import Audit, Cell, Evidence, Finding, Variant, with_items
from harness.errors import BadInput
from harness.protocol import ReferenceRule
from harness.records import Item

if TYPE_CHECKING:
    from harness.comparison import Test
    from harness.run_info import RunInfo

#: Item -> images that may stand in its references' place.
Pool = Callable[[Item], Sequence[Path]]
_OTHER_LIST: dict[ReferenceRule, ReferenceRule] = {"similar": "random", "random": "similar"}
#: Variant -> how a sentence calls it.
_WORDS = {
    "random": "a random reference",
    "similar": "a similar reference",
    "other-product": "another product's image",
    "defective": "a defective reference",
    "none": "no reference",
}


def _variants(base: RunInfo) -> list[Variant]:
    protocol = base.protocol
    items = [_with_reference(base, item) for item in base.items]
    items = [item for item in items if item.questions]
    if not items:
        raise BadInput(
            f"--audit reference: protocol {protocol.name!r} shows no reference here; leave the audit out, or "
            "pass --shots 1"
        )
    asked = with_items(base, items, "reference")
    found = []
    other = replace(protocol, reference=_OTHER_LIST[protocol.reference])
    if any(other.pick_references(item) != protocol.pick_references(item) for item in items):
        summary = f"the first of the {other.reference} templates"
        found.append(Variant(other.reference, summary, replace(asked, protocol=other)))
    pools: tuple[tuple[str, str, Pool], ...] = (
        ("other-product", "a normal image of another product", _other_products(base)),
        ("defective", "an anomalous image of the same product", _defective(base)),
    )
    for name, summary, pool in pools:
        exchanged = [one for item in items if (one := _exchanged(item, pool(item), base))]
        if exchanged:  # a benchmark of a single product has no other
            found.append(Variant(name, summary, with_items(base, exchanged, "reference", name)))
    found.append(Variant("none", "no reference", replace(asked, protocol=protocol.with_options(shots=0))))
    return found


def _with_reference(base: RunInfo, item: Item) -> Item:
    """An item with the questions that its protocol asks with a reference."""
    asked = tuple(one for one in item.questions if base.protocol.shows_reference(one))
    return replace(item, questions=asked)


def _exchanged(item: Item, pool: Sequence[Path], base: RunInfo) -> Item | None:
    """An item with references drawn from a pool, by the run's seed and the item; None if it is too small."""
    if len(pool) < base.protocol.shots:
        return None
    chosen = tuple(random.Random(f"{base.seed}\0{item.key}").sample(list(pool), base.protocol.shots))
    return replace(item, similar_templates=chosen, random_templates=chosen)


def _other_products(base: RunInfo) -> Pool:
    """Normal images of one other product of the whole benchmark, drawn by the run's seed and the item."""
    templates: dict[tuple[str, str], dict[Path, None]] = {}
    for item in base.benchmark.items:
        listed = (*item.similar_templates, *item.random_templates)
        templates.setdefault((item.dataset, item.object), {}).update(dict.fromkeys(listed))

    def pool(item: Item) -> Sequence[Path]:
        own = (item.dataset, item.object)
        fitting = [
            name for name, paths in templates.items() if name != own and len(paths) >= base.protocol.shots
        ]
        if not fitting:
            return ()
        product = random.Random(f"{base.seed}\0product\0{item.key}").choice(fitting)
        return tuple(templates[product])

    return pool


def _defective(base: RunInfo) -> Pool:
    """Other images of the same product that show a defect."""
    broken: dict[tuple[str, str], list[Item]] = {}
    for item in base.benchmark.items:
        if not item.normal:
            broken.setdefault((item.dataset, item.object), []).append(item)

    def pool(item: Item) -> Sequence[Path]:
        others = broken.get((item.dataset, item.object), ())
        return [other.image for other in others if other.key != item.key]

    return pool


def _judge(evidence: Evidence) -> Finding:
    from harness.comparison import compare, shared
    from harness.scoring import AVERAGE, score
    from harness.statistics import holm

    protocol = evidence.run.protocol
    asked = {(one.key, one.number) for one in evidence.variants["none"]}
    base = [one for one in evidence.base if (one.key, one.number) in asked]
    accuracy = score(base).rows[AVERAGE][AVERAGE] or 0.0
    tests: dict[str, Test] = {}
    changed: dict[str, float] = {}
    for name, answers in evidence.variants.items():
        before, now, _ = shared(base, answers)
        tests[name] = next(test for test in compare(before, now).tests if test.metric == AVERAGE)
        pairs = zip(before, now, strict=True)
        changed[name] = 100 * sum(one.letter != other.letter for one, other in pairs) / len(now)
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    first: dict[str, Cell] = {
        "Model": evidence.title,
        "Reference": f"{protocol.reference} (the run)",
        "Questions": len(base),
        "Accuracy": accuracy,
    }
    rows: list[dict[str, Cell]] = [
        {
            "Model": evidence.title,
            "Reference": name,
            "Questions": test.n,
            "Accuracy": test.current,
            "Change": f"{test.delta:+.2f}",
            "95 % interval": f"{test.ci_low:+.2f} to {test.ci_high:+.2f}",
            "p (adj.)": f"{adjusted[name]:.4f}",
            "Answers changed": changed[name],
        }
        for name, test in tests.items()
    ]
    figures = {
        name: {
            "questions": test.n,
            "baseline": test.baseline,
            "accuracy": test.current,
            "change": {"value": test.delta, "low": test.ci_low, "high": test.ci_high},
            "p": test.p_value,
            "p_adjusted": adjusted[name],
            "answers_changed": changed[name],
        }
        for name, test in tests.items()
    }
    sentence = _sentence(evidence.title, tests, adjusted, changed)
    return Finding([first, *rows], sentence, len(base), {"accuracy": accuracy, "variants": figures})


def _sentence(
    title: str, tests: dict[str, Test], adjusted: dict[str, float], changed: dict[str, float]
) -> str:
    from harness.statistics import detectable

    if not any(changed.values()):
        return f"{title} does not look at the reference: not one answer changes, whatever it shows."
    moved = [name for name in tests if adjusted[name] <= 0.05]
    if not moved:
        name = max(tests, key=lambda name: abs(tests[name].delta))
        found = detectable(tests[name].error, tests=len(tests))
        power = f" (a true one of {found:.1f} would be found 4 times in 5)" if found else ""
        return (
            f"No exchange of the reference moves {title} beyond noise; the largest change is "
            f"{tests[name].delta:+.1f} points, with {_WORDS[name]}{power}."
        )
    told = [f"{tests[name].delta:+.1f} points with {_WORDS[name]}" for name in moved]
    rest = "; the other exchanges are within noise" if len(moved) < len(tests) else ""
    return f"The reference matters to {title}: {', '.join(told)}{rest}."


REFERENCE = Audit(
    "reference",
    "The reference exchanged",
    "Another reference image, a wrong one, or none: does the model look at it?",
    _variants,
    _judge,
)
