"""Plans: what they say, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BadInput
from trainers.experiment.plan import read_plan
from trainers.recipes import RECIPES
from trainers.settings import Settings

GOOD = """
name = "try"
title = "A try"
[settings]
data.limit = 4
"grpo.max_steps" = 2
[evaluation]
limit = 20
[[arms]]
id = "base"
title = "Base"
[[arms]]
id = "grpo"
title = "GRPO"
recipe = "internvl3-grpo"
seeds = 2
settings = { "grpo.beta" = 0.02 }
[[comparisons]]
better = "grpo"
worse = "base"
"""
PLANS = sorted((Path(__file__).parents[3] / "plans").glob("*.toml"))


def plan_of(text: str, folder: Path) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_dotted_keys_and_tables_say_the_same(tmp_path: Path) -> None:
    plan = read_plan(plan_of(GOOD, tmp_path))
    assert plan.settings == {"data.limit": 4, "grpo.max_steps": 2}
    assert [(arm.id, arm.seeds) for arm in plan.arms] == [("base", 1), ("grpo", 2)]
    assert plan.arms[1].settings == {"grpo.beta": 0.02}
    assert plan.evaluation.benchmark == "mini" and plan.comparisons[0].primary


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("name =", "nom =", "there is no field 'nom'"),
        ('name = "try"', 'name = "A B"', "name must be small letters"),
        ("seeds = 2", "seeds = 0", "arm grpo: seeds must be 1 or more"),
        ("seeds = 2", 'seeds = "2"', "arm grpo: seeds must be a whole number"),
        ('title = "Base"', 'title = "Base"\nseeds = 3', "for the base has one"),
        ('id = "grpo"', 'id = "base"', "arms must be of different ids; two have 'base'"),
        ('worse = "base"', 'worse = "best"', "the arm 'best' must be one of base, grpo"),
        ('title = "GRPO"', 'title = "Base"', "arms must be of different titles; two have 'Base'"),
        ('title = "GRPO"', 'title = " "', "arm grpo: title must be a text"),
        ('id = "grpo"\n', "", "arm number 2: id must be given"),
        ('name = "try"\n', "", "name must be given"),
        ('worse = "base"', 'worse = "base"\nprimary = "yes"', "comparisons: primary must be true or false"),
        ('{ "grpo.beta" = 0.02 }', "7", "arm grpo: settings must be a table"),
        ('"grpo.max_steps" = 2', '"data.limit" = 5', "settings: data.limit must be given once"),
        ("[evaluation]", '[strata]\narm = "base"\n[evaluation]', "strata: arm must be one with a recipe"),
        ("limit = 20", "limit = -1", "evaluation: limit must be 0 or more"),
        ("limit = 20", 'mode = "loud"', "evaluation: mode must be one of direct, think, logits"),
        ('title = "GRPO"\n', "", "arm grpo: title must be given"),
        (
            'title = "GRPO"',
            'title = "GRPO"\nmode = "loud"',
            "arm grpo: mode must be one of direct, think, logits",
        ),
        ("[settings]", "[settings", "it is no readable plan"),
        ('title = "Base"', 'title = "Base"\nships = "emit"', "arm base: ships must be left away"),
        ('title = "Base"', 'title = "Base"\npreset = "release"', "arm base: preset must be left away"),
        ('title = "Base"', 'title = "Base"\nsettings = { a = 1 }', "arm base: settings must be left away"),
        ("data.limit = 4", "seed = 4", "settings must be without `seed`"),
        ('{ "grpo.beta" = 0.02 }', "{ seed = 2 }", "arm grpo: settings must be without `seed`"),
        ('id = "grpo"', 'id = "figures"', "arm 'figures' must be another name than again, "),
        ('worse = "base"', 'worse = "grpo"', "comparisons: grpo must be compared with another arm"),
        (
            'worse = "base"',
            'worse = "base"\n[[comparisons]]\nbetter = "base"\nworse = "grpo"',
            "comparisons must be of different pairs of arms",
        ),
    ],
)
def test_a_wrong_plan_is_named_with_its_field(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    path = plan_of(GOOD.replace(old, new, 1), tmp_path)
    with pytest.raises(BadInput, match=r"plan\.toml") as caught:
        read_plan(path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_shipped_plans_are_good(path: Path) -> None:
    """Recipes exist, settings are known, and claims are about arms with several seeds, or the base."""
    plan = read_plan(path)
    recipes = {recipe.name: recipe for recipe in RECIPES}
    for arm in plan.arms:
        Settings().replaced({**plan.settings, **arm.settings})
        assert not arm.recipe or arm.recipe in recipes, arm.id
    compared = {name for claim in plan.comparisons for name in (claim.better, claim.worse)}
    assert all(arm.seeds >= 3 or not arm.recipe for arm in plan.arms if arm.id in compared)
