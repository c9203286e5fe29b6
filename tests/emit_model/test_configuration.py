from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, InternVLConfig

from emit_model import PRESETS, Contrast, EmitConfig


def test_presets_state_what_paper_and_release_do() -> None:
    paper, release = PRESETS["paper"], PRESETS["release"]
    assert (paper.outside, paper.rotations, paper.window, paper.fuse) == ("exclude", (0,), 6, "mean")
    assert (release.outside, release.rotations, release.window) == ("zero", (0, 1, 2, 3), 6)
    assert release.layers == paper.layers == (4, 8, 16, 20)
    assert release.soft_prompt_length == 9


def test_the_release_inserts_265_placeholders() -> None:
    config = EmitConfig(contrast=PRESETS["release"].section())  # InternVL's defaults are InternVL3's tower
    assert config.grid == (32, 32)
    assert config.placeholders == 9 + 256


def test_ablations_take_placeholders_away() -> None:
    def count(**switches: bool) -> int:
        return EmitConfig(contrast=PRESETS["release"].replaced(**switches).section()).placeholders

    assert count(use_soft_prompt=False) == 256
    assert count(use_contrast=False) == 9
    assert count(use_soft_prompt=False, use_contrast=False) == 0


def test_scaling_to_a_small_tower_keeps_layers_in_order_and_in_range() -> None:
    for depth in range(1, 30):
        scaled = PRESETS["release"].scaled(depth, 8)
        assert list(scaled.layers) == sorted(set(scaled.layers))
        assert 1 <= min(scaled.layers) <= max(scaled.layers) <= depth
    assert PRESETS["paper"].scaled(24, 32) == PRESETS["paper"]
    assert PRESETS["paper"].scaled(24, 8).window == 2


def test_saved_and_loaded(tmp_path: Path) -> None:
    config = EmitConfig.from_internvl(InternVLConfig(), Contrast(window=3, rotations=(0, 2)))
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, EmitConfig)
    assert loaded.comparison == Contrast(window=3, rotations=(0, 2))
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()


def test_from_internvl_keeps_everything_else() -> None:
    plain = InternVLConfig(image_token_id=7, downsample_ratio=0.25, vision_config={"num_hidden_layers": 21})
    config = EmitConfig.from_internvl(plain, Contrast())
    assert (config.image_token_id, config.downsample_ratio) == (7, 0.25)
    assert config.vision_config.num_hidden_layers == 21


def test_setting_the_comparison_changes_what_is_saved() -> None:
    config = EmitConfig()
    config.comparison = config.comparison.replaced(use_soft_prompt=False)
    assert config.to_dict()["contrast"]["use_soft_prompt"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windw": 3}, "unknown field windw"),
        ({"window": -1}, r"contrast\.window is -1"),
        ({"outside": "wrap"}, r"contrast\.outside"),
        ({"layers": []}, r"contrast\.layers"),
        ({"rotations": [0, 4]}, r"contrast\.rotations"),
        ({"layers": [25]}, "has 24 blocks"),
    ],
)
def test_a_wrong_section_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmitConfig(contrast=change)
