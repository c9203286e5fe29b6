"""The page on training says what the code does: recipes, presets, keys of the training file."""

from __future__ import annotations

import re
from dataclasses import fields

from tests.docs.test_docs import ROOT, table_rows
from trainers.presets import POINTS
from trainers.recipes import RECIPES
from trainers.rewards import RULES
from trainers.samples import Sample
from trainers.settings import keys

PAGE = ROOT / "docs" / "trainers.md"


def shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:.4f}".rstrip("0") if isinstance(value, float) and value < 1e-3 else str(value)


def test_presets_are_the_tables() -> None:
    rows = table_rows(PAGE, "| key | `paper` | `release` |")
    wanted = [
        [f"`{point.key}`", shown(point.paper), shown(point.release)]
        for point in POINTS
        if point.paper != point.release
    ]
    assert rows == wanted


def test_recipes_are_the_programs() -> None:
    rows = table_rows(PAGE, "| recipe | stages |")
    assert [row[0].strip("`") for row in rows] == [recipe.name for recipe in RECIPES]
    words = {"stage1": "stage 1", "sft": "SFT", "grpo": "GRPO"}
    for row, recipe in zip(rows, RECIPES, strict=True):
        assert row[1] == ", ".join(words[stage] for stage in recipe.stages)


def test_weights_of_the_reward_are_the_rules() -> None:
    rows = {row[0]: float(row[1]) for row in table_rows(PAGE, "| part | weight | value |")}
    for rules in RULES.values():
        assert rows == dict(rules.weights)


def test_keys_of_the_training_file_are_a_samples() -> None:
    named = {key for row in table_rows(PAGE, "| key | meaning |") for key in re.findall(r"`(\w+)`", row[0])}
    assert named == {field.name for field in fields(Sample)}


def test_settings_that_pages_name_exist() -> None:
    for page in (PAGE, ROOT / "README.md", ROOT / "docs" / "mini_world.md"):
        text = page.read_text(encoding="utf-8")
        sections = "data|model|stage1|sft|rollout|grpo"
        for key in re.findall(rf"`(?:--set )?((?:{sections})\.\w+)(?:=\w+)?`", text):
            assert key in keys(), key
