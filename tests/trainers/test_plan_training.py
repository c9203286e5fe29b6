"""What a training learns from, before anything is computed: which pairs, and which stage 1 it shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records import TrainingSource, TrainRequest
from tests import tiny
from tests.trainers import small
from trainers.recipes import RECIPES
from trainers.training import TrainingPlan, plan_training

PAIRS, TEXTS, LIMIT = 12, 6, 9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("base") / "base", *tiny.internvl())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of pictures, and texts in place of a query, one in three."""
    lines = small.rows(PAIRS)
    text = lines[-1]
    lines[-1:] = [{**text, "id": f"t{n}", "references": [f"reference_{n}.png"]} for n in range(TEXTS)]
    return small.training_set(tmp_path_factory.mktemp("set"), PAIRS, lines).path


def planned(recipe: str, base: Path, data: Path, **settings: int) -> TrainingPlan:
    chosen = next(one for one in RECIPES if one.name == recipe)
    given = {"model.layers": "1,2", "model.window": "1", "model.quantise": "none"}
    given |= {name.replace("__", "."): str(value) for name, value in settings.items()}
    source = TrainingSource(data, "mini")
    return plan_training(chosen, TrainRequest(recipe, source, Path(), base=str(base), settings=given))


def ids(plan: TrainingPlan, texts: bool = True) -> list[str]:
    return [sample.id for sample in plan.data.samples if texts or sample.query is not None]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_texts_the_same_pictures_are_learnt_from(base: Path, data: Path, seed: int) -> None:
    emit, other = (
        planned(recipe, base, data, data__limit=LIMIT, seed=seed) for recipe in ("emit", "emit-wo-text")
    )
    assert ids(other) == ids(emit, texts=False)
    assert len(emit.data.pairs()) == LIMIT
    assert 0 < len(other.data.pairs()) < LIMIT  # the draw had texts, and they are not made up for
    assert other.stage1 == emit.stage1  # which no text takes part in


def test_every_recipe_learns_from_the_same_questions(base: Path, data: Path) -> None:
    found = {
        recipe.name: ids(planned(recipe.name, base, data, data__limit=LIMIT), texts=False)
        for recipe in RECIPES
    }
    assert len({tuple(one) for one in found.values()}) == 1, found


def test_a_seed_draws_other_pairs(base: Path, data: Path) -> None:
    one, other = (ids(planned("emit", base, data, data__limit=LIMIT, seed=seed)) for seed in (0, 1))
    assert set(one) != set(other)
    assert len(ids(planned("emit", base, data))) == 3 * PAIRS + TEXTS  # no limit, no draw


def test_a_set_that_was_written_anew_is_read_anew(base: Path, tmp_path: Path) -> None:
    path = small.training_set(tmp_path, 2).path
    before = planned("emit", base, path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    after = planned("emit", base, path)
    assert len(after.data.samples) == len(before.data.samples) - 1
    assert after.facts["data"] != before.facts["data"]
