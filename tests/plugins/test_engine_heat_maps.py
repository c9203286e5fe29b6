"""The heat map behind EMIT's embeddings comes back with a group's answers and stays in the store."""

from __future__ import annotations

import io
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.errors import ExitCode
from harness.plugins import load_registry
from harness.protocol import find_protocol
from harness.records import Decoding, LoadRequest, PromptGroup
from harness.run import execute, plan_run
from harness.store import FILE_NAME, Store
from plugins.checkpoint import tiled
from plugins.engine.model import SharedPrefixModel
from plugins.engine.wiring import Hints
from tests.plugins.test_engine import ALONE, PAIR, build

DIRECT = Decoding("direct", 2)


def grey(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and image.mode == "L"
    return np.asarray(image)


def heat_map_of(model: SharedPrefixModel, group: PromptGroup) -> bytes | None:
    ((result,),) = model.stream([[group]], DIRECT)
    assert not result.reason
    return result.heat_map


def test_a_heat_map_is_what_the_model_compared() -> None:
    model = build("emit")
    found = heat_map_of(model, PAIR)
    assert found is not None
    pixels = [
        model.processor.image_processor(images=[p.pixels], return_tensors="pt", **tiled(1))["pixel_values"]
        for p in (PAIR.query, *PAIR.references)
    ]
    with torch.inference_mode():
        heat = model.model.compare_pixels(torch.cat(pixels)[None])[0, 0]
    assert grey(found) == pytest.approx(np.clip(heat.numpy(), 0, 1) * 255, abs=0.6)
    assert grey(found).std() > 1  # something is to be seen


def test_what_compares_nothing_has_no_heat_map() -> None:
    assert heat_map_of(build("emit"), ALONE) is None
    assert heat_map_of(build("internvl"), PAIR) is None
    plain = tuple(replace(prompt, contrastive=False) for prompt in PAIR.prompts)
    assert heat_map_of(build("emit"), replace(PAIR, prompts=plain)) is None


@pytest.mark.parametrize(("heat", "shade"), [(0.0, 0), (0.5, 128), (1.0, 255), (2.0, 255), (float("nan"), 0)])
def test_shades_are_distances_and_what_is_no_number_is_dark(heat: float, shade: int) -> None:
    hints = Hints(torch.zeros(1, 1, 1), torch.full((1, 1, 2, 3), heat))
    assert grey(hints.picture()).tolist() == [[shade] * 3] * 2


def test_a_run_keeps_heat_maps_by_image(tmp_path: Path) -> None:
    """Also when it is continued without asking again; and a store of before they were kept has none."""
    registry = load_registry()
    benchmark = registry.benchmarks["mini"].load(None)
    run = plan_run(
        out=tmp_path / "run",
        benchmark=benchmark,
        protocol=find_protocol(registry.protocols, "emit").with_options("logits"),
        models=registry.select_models("emit,internvl3-base"),
        request=LoadRequest("mini"),
        limit=30,
    )
    for _ in range(2):
        assert execute(run, registry).exit_code == ExitCode.OK
        with Store.read_only(run.out / FILE_NAME) as store:
            kept = store.heat_maps("emit")
            assert set(kept) == {
                item.key for item in run.items if contrastive(item, run.protocol.contrastive)
            }
            assert all(grey(png).ndim == 2 for png in kept.values())
            assert store.heat_maps("internvl3-base") == {}
    with sqlite3.connect(run.out / FILE_NAME) as old:
        old.execute("DROP TABLE heat_maps")
    old.close()
    with Store.read_only(run.out / FILE_NAME) as store:
        assert store.heat_maps("emit") == {}


def contrastive(item, subtasks: tuple[str, ...]) -> bool:
    return any(question.subtask in subtasks for question in item.questions)
