"""The mini world: the same bytes everywhere, MMAD's format, and questions whose truth holds."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.mmad import inspect_mmad, read_mmad
from harness.subtasks import SUBTASK_KEYS
from plugins.mini import benchmark, emit_bench_benchmarks, folder, training_world
from plugins.mini.benchmark import FAINT, PLAIN, SIZE, products, stream, strength_of, write_benchmark
from plugins.mini.canvas import Canvas, Pose
from plugins.mini.catalogue import BENCHMARK, FAMILIES, TRAINING
from plugins.mini.defects import DEFECTS
from plugins.mini.pieces import COLOURS
from plugins.mini.png import png_bytes
from plugins.mini.questions import CELLS, NUMBERS, sentence
from plugins.mini.render import shoot

#: Of the whole benchmark. It may change only together with ``plugins.mini.VERSION``.
DIGEST = "9abe9a5e253efdc74c206b9717173491cd4350828819b1a119436c4383e332e0"


@pytest.fixture(scope="session")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The rendered benchmark, once for all tests, and its digest."""
    folder = tmp_path_factory.mktemp("mini")
    return folder, write_benchmark(folder)


@pytest.fixture(scope="session")
def entries(mini_folder: tuple[Path, str]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((mini_folder[0] / "mmad.json").read_text())
    return loaded


def test_same_seed_same_bytes(mini_folder: tuple[Path, str]) -> None:
    assert mini_folder[1] == DIGEST


def test_the_real_reader_finds_nothing_wrong(mini_folder: tuple[Path, str]) -> None:
    assert not inspect_mmad(mini_folder[0]).problems
    benchmark = read_mmad(mini_folder[0], "mini", "mini")
    assert len(benchmark.items) >= 240
    assert len({item.dataset for item in benchmark.items}) == 4
    assert len({(item.dataset, item.object) for item in benchmark.items}) >= 12
    asked = Counter(question.subtask for item in benchmark.items for question in item.questions)
    assert set(asked) == set(SUBTASK_KEYS)
    assert 4.4 < sum(asked.values()) / len(benchmark.items) < 5.0


def test_every_product_shows_three_kinds_or_more(entries: dict[str, Any]) -> None:
    kinds: dict[str, set[str]] = {}
    for key in entries:
        dataset, name, _, kind, _ = key.split("/")
        kinds.setdefault(f"{dataset}/{name}", set()).add(kind)
    assert all(len(found - {"good"}) >= 3 for found in kinds.values())


def test_letters_are_balanced(entries: dict[str, Any]) -> None:
    letters = Counter(
        question["Answer"]
        for entry in entries.values()
        for question in entry["conversation"]
        if len(question["Options"]) == 4
    )
    assert max(letters.values()) / sum(letters.values()) < 0.29


def test_places_follow_from_the_masks(mini_folder: tuple[Path, str], entries: dict[str, Any]) -> None:
    """Recomputed from the file on disk, pixel by pixel."""
    checked = 0
    for key, entry in entries.items():
        for question in entry["conversation"]:
            if question["type"] != "Defect Localization":
                continue
            product = "/".join(key.split("/")[:2])
            mask = np.asarray(Image.open(mini_folder[0] / product / entry["mask_path"])) > 0
            counts = [0] * 9
            for y, x in zip(*np.nonzero(mask), strict=True):
                counts[min(2, y // (SIZE // 3)) * 3 + min(2, x // (SIZE // 3))] += 1
            truth = question["Options"][question["Answer"]]
            assert counts[CELLS.index(truth)] == max(counts)
            wrong = [text for letter, text in question["Options"].items() if letter != question["Answer"]]
            assert all(counts[CELLS.index(text)] == 0 for text in wrong)
            checked += 1
    assert checked > 100


def test_answers_follow_from_folder_and_catalogue(entries: dict[str, Any]) -> None:
    for key, entry in entries.items():
        _, name, _, kind, _ = key.split("/")
        noun = name.replace("_", " ")
        look = BENCHMARK[noun]
        truths = {q["Question"]: q["Options"][q["Answer"]] for q in entry["conversation"]}
        assert truths["Is there any defect in the object?"] == ("No." if kind == "good" else "Yes.")
        expected = {
            "What kind of product is in the image?": sentence(noun),
            "What is the outline of the product?": FAMILIES[noun].outline,
            "What colour is the body of the product?": sentence(look.body),
        }
        if kind != "good":
            defect = DEFECTS[kind.replace("_", " ")]
            stem = "There is a defect in the object. What is the "
            expected[stem + "type of the defect?"] = sentence(defect.name)
            expected[stem + "appearance of the defect?"] = defect.appearance
            expected[stem + "effect of the defect?"] = defect.effect
        for question, truth in truths.items():
            if question in expected:
                assert truth == expected[question], key
            if question.startswith("How many"):
                assert truth == NUMBERS[look.count]
            if question.startswith("What colour does the piece"):
                assert truth == sentence(look.trim)


def test_options_are_distinct(entries: dict[str, Any]) -> None:
    for entry in entries.values():
        for question in entry["conversation"]:
            assert len(set(question["Options"].values())) == len(question["Options"])


def test_counted_parts_are_there() -> None:
    for family in FAMILIES.values():
        for count in family.counts:
            look = family.random_look(np.random.RandomState(count))
            design = family.design(type(look)(look.body, look.trim, count, look.backdrop))
            assert len(design.parts) == count, family.noun


def test_training_world_shares_no_family_with_the_benchmark() -> None:
    assert not set(TRAINING) & set(BENCHMARK)
    assert len(TRAINING) >= 12


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_defect_changes_the_pixels_of_its_mask_and_hardly_others(name: str) -> None:
    defect = DEFECTS[name]
    product = next(p for p in products() if defect.fits(p.design))
    for seed in range(8):
        clean = shoot(product.design, stream(seed, name), 96, looseness=0.0).pixels.astype(int)
        shot = shoot(product.design, stream(seed, name), 96, defect, looseness=0.0)
        if np.count_nonzero(shot.mask) < 20:
            continue
        changed = np.abs(shot.pixels.astype(int) - clean).max(-1)
        assert changed[shot.mask].mean() > 5 * changed[~shot.mask].mean()


@pytest.mark.parametrize("name", sorted(DEFECTS))
def test_a_faint_defect_is_the_same_one_between_sound_and_plain(name: str) -> None:
    """On surfaces; a part that is missing is missing."""
    defect = DEFECTS[name]
    design = next(d for d in (product.design for product in products()) if defect.fits(d))
    shots = [shoot(design, stream(3, name), SIZE, defect, strength=strength) for strength in (1, 0.4, 0)]
    plain, faint, unseen = (shot.pixels.astype(int) for shot in shots)
    assert all(np.array_equal(shots[0].mask, shot.mask) for shot in shots)
    if defect.draw is None:
        assert np.array_equal(plain, faint) and np.array_equal(plain, unseen)
        return
    change = (plain - unseen)[shots[0].mask]
    kept = (faint - unseen)[shots[0].mask]
    clear = np.abs(change) > 40  # above rounding; little is so bright that it was cut off
    assert clear.any() and np.median(kept[clear] / change[clear]) == pytest.approx(0.4, abs=0.03)
    sound = shoot(design, stream(3, name), SIZE).pixels.astype(int)
    assert np.abs(unseen - sound).max() <= 6  # the sensor's noise


def test_how_faint_is_drawn_apart_from_the_picture() -> None:
    found = [strength_of(3, f"{number}.png", FAINT) for number in range(300)]
    assert FAINT[0] <= min(found) < FAINT[0] + 0.02 and FAINT[1] - 0.02 < max(found) <= FAINT[1]
    assert strength_of(3, "1.png", FAINT) == found[1] and strength_of(3, "1.png", PLAIN) == 1.0


def test_pose_moves_what_is_drawn() -> None:
    design = FAMILIES["gear"].design(BENCHMARK["gear"])
    centre = []
    for shift in (-0.2, 0.2):
        canvas = Canvas(96, Pose(shift=(shift, 0.0)), np.random.RandomState(0))
        inside = design.body.outline(canvas.x, canvas.y) < 0
        centre.append(float(np.nonzero(inside)[1].mean()))
    assert centre[1] - centre[0] == pytest.approx(0.4 * 48, abs=0.5)


@pytest.mark.parametrize("shape", [(5, 7, 3), (64, 64), (300, 250, 3)])
def test_png_decodes_to_the_same_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.RandomState(1).randint(0, 256, shape).astype(np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(pixels)))), pixels)


def test_png_bytes_need_no_compressor() -> None:
    pixels = np.zeros((2, 2), np.uint8)
    assert hashlib.sha256(png_bytes(pixels)).hexdigest().startswith("c76aca9028d4eda2")


def test_colours_are_far_apart() -> None:
    values = np.array(list(COLOURS.values()))
    gaps = np.abs(values[:, None] - values[None]).sum(-1) + 9 * np.eye(len(values))
    assert gaps.min() > 0.2


def test_each_benchmark_is_drawn_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds, sizes and strengths, and folders that cannot be taken for each other's."""
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(tmp_path))
    drawn: dict[str, tuple[Any, ...]] = {}
    monkeypatch.setattr(benchmark, "write_benchmark", lambda path, *how: drawn.update({"asked": how}))
    monkeypatch.setattr(
        training_world,
        "write_training_world",
        lambda path, seed, strengths: drawn.update(learnt=(seed, strengths)),
    )
    found = {}
    for spec in emit_bench_benchmarks():
        folder(spec.name)
        assert spec.training is not None
        spec.training(None)
        found[spec.name] = (drawn.pop("asked"), drawn.pop("learnt", None))
    assert found == {
        "mini": ((7, 1, PLAIN), (23, PLAIN)),
        "mini-large": ((11, 3, PLAIN), None),  # the same training world, which was there
        "mini-hard": ((13, 3, FAINT), (29, FAINT)),
    }
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert names == {
        "mini-1-7",
        "mini-large-1-11",
        "mini-hard-1-13-0.15-0.5",
        "mini-training-2-23",
        "mini-hard-training-2-29-0.15-0.5",
    }
