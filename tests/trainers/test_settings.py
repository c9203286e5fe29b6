"""Settings: two presets in one table, arms as data, every value checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInput
from harness.hookspecs import BenchmarkSpec
from harness.plugins import load_registry
from harness.records import TrainRequest
from trainers.presets import POINTS, PRESETS, preset
from trainers.recipes import RECIPES, Recipe
from trainers.settings import Settings, keys
from trainers.training import resolve_settings


def request(**changes: Any) -> TrainRequest:
    spec: BenchmarkSpec = load_registry().benchmarks["mmad"]
    assert spec.training is not None
    source = spec.training(Path("train.jsonl"))
    return TrainRequest(**{"recipe": "emit", "source": source, "out": Path("out"), **changes})


def recipe(name: str) -> Recipe:
    return next(found for found in RECIPES if found.name == name)


def test_the_paper_is_the_default_and_says_what_it_prints() -> None:
    chosen = resolve_settings(recipe("emit"), request())
    assert (chosen.grpo.beta, chosen.rollout.group, chosen.model.quantise) == (0.01, 8, "nf4")
    assert (chosen.model.lora_rank, chosen.model.lora_alpha, chosen.model.lora_scope) == (8, 32, "all")
    assert (chosen.stage1.epochs, chosen.grpo.epochs) == (2.0, 1.0)
    for stage in (chosen.stage1, chosen.sft, chosen.grpo):
        assert (stage.learning_rate, stage.batch) == (1e-5, 64)
    assert chosen.questions == 8  # the batch counts responses
    assert (chosen.rollout.temperature, chosen.rollout.top_p, chosen.rollout.top_k) == (1.0, 1.0, 0)
    assert chosen.rollout.max_new_tokens == 512
    assert (chosen.rollout.resampling, chosen.rollout.budget, chosen.rollout.unsolved) == ("same", 3, "drop")
    assert (chosen.grpo.weighting, chosen.grpo.normalise) == ("difficulty", "group")


def test_the_release_differs_where_the_table_says() -> None:
    paper = resolve_settings(recipe("emit"), request()).as_json()
    release = resolve_settings(recipe("emit"), request(preset="release")).as_json()
    differing = {
        f"{section}.{name}"
        for section, values in paper.items()
        if isinstance(values, dict)
        for name, value in values.items()
        if value != release[section][name]
    }
    assert differing == {point.key for point in POINTS if point.paper != point.release}
    assert release["grpo"]["beta"] == 0.005 and release["grpo"]["epochs"] == 2.0


def test_every_point_is_a_setting_and_has_a_reason() -> None:
    assert all(point.key in keys() and point.why for point in POINTS)
    assert len({point.key for point in POINTS}) == len(POINTS)
    for name in PRESETS:
        Settings().replaced(preset(name))


def test_later_layers_win() -> None:
    chosen = resolve_settings(recipe("internvl3-grpo"), request(settings={"rollout.resampling": "all"}))
    assert chosen.rollout.resampling == "all" and chosen.grpo.weighting == "none"


def test_arms_differ_in_what_their_names_say() -> None:
    whole = resolve_settings(recipe("emit"), request()).as_json()
    expected = {
        "emit-wo-text": {"data.text_samples"},
        "emit-wo-sp": {"model.soft_prompt"},
        "emit-wo-sp-ce": {"model.soft_prompt", "model.contrastive_embeddings"},
        "emit-wo-stage1": set(),
        "emit-wo-stage2": set(),
        "emit-wo-resampling": {"rollout.resampling", "rollout.unsolved"},
        "emit-wo-weighting": {"grpo.weighting"},
        "emit-constant-weight": {"grpo.weighting"},
        "emit-equal-draws": {"rollout.resampling", "rollout.unsolved", "grpo.weighting"},
        "internvl3-grpo": {"rollout.resampling", "rollout.unsolved", "grpo.weighting"},
    }
    for name, keys_changed in expected.items():
        arm = resolve_settings(recipe(name), request()).as_json()
        found = {
            f"{section}.{key}"
            for section, values in arm.items()
            if isinstance(values, dict)
            for key, value in values.items()
            if value != whole[section][key]
        }
        assert found == keys_changed, name


def test_models_of_the_papers_tables_have_a_recipe() -> None:
    trained = {name for name in load_registry().models if re.match(r"emit|internvl3-(sft|grpo)", name)}
    assert trained <= {found.name for found in RECIPES}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grpo.epochs", "0"),
        ("grpo.epochs", "inf"),
        ("grpo.warmup", "1"),
        ("grpo.clip", "2"),
        ("grpo.iterations", "0"),
        ("rollout.temperature", "0"),
        ("rollout.top_p", "1.5"),
        ("rollout.group", "1"),
        ("stage1.answers", "rationale"),
        ("model.lora_scope", "tower"),
        ("model.full_modules", "lm_head"),
        ("model.projector_words", "one"),
        ("model.contrast", "other"),
        ("data.limit", "-1"),
        ("grpo.batch", "1.5"),
        ("model.checkpointing", "perhaps"),
    ],
)
def test_values_out_of_range_are_named(key: str, value: str) -> None:
    with pytest.raises(BadInput, match=f"{key.split('.')[1]} is .*must be"):
        Settings().replaced({key: value})


def test_texts_are_read_as_the_fields_type() -> None:
    chosen = Settings().replaced(
        {"model.layers": "3,4", "model.checkpointing": "True", "seed": "7", "grpo.learning_rate": "1e-3"}
    )
    assert chosen.model.layers == (3, 4) and chosen.model.checkpointing
    assert chosen.seed == 7 and chosen.grpo.learning_rate == 1e-3
