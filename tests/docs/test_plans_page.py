"""The page on plans says what a plan holds, and its example is the one that is there."""

from __future__ import annotations

import re
from dataclasses import fields

from tests.docs.test_docs import ROOT, blocks, table_rows
from trainers.experiment.plan import Arm, Comparison, Evaluation, Plan, Strata

PAGE = ROOT / "docs/plans.md"


def named(head: str) -> list[str]:
    return [row[0].strip("`[]") for row in table_rows(PAGE, head)]


def test_fields_are_those_of_a_plan() -> None:
    assert sorted(named("| field | meaning |")) == sorted({f.name for f in fields(Plan)} - {"path"})
    assert sorted(named("| field of an arm |")) == sorted(field.name for field in fields(Arm))
    told = {row[0].strip("`[]"): row[1] for row in table_rows(PAGE, "| field | meaning |")}
    for name, kind in {"evaluation": Evaluation, "strata": Strata, "comparisons": Comparison}.items():
        assert {field.name for field in fields(kind)} <= set(re.findall(r"`(\w+)`", told[name]))


def test_the_example_is_the_shipped_plan() -> None:
    (shown,) = blocks(PAGE, "toml")
    plan = (ROOT / "plans/small.toml").read_text(encoding="utf-8")
    assert "\n".join(line for line in plan.splitlines() if not line.startswith("#")).strip() == shown.strip()
