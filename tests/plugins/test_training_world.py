"""The mini training world: what the readers find in it, and what its describer says."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.plugins import load_registry
from harness.raw import RawDataset, TextKind, TextRequest
from plugins.mini import benchmark
from plugins.mini.catalogue import BENCHMARK, FAMILIES
from plugins.mini.training_world import CODES, SOURCES, World, describe, raw_sources, write_training_world
from trainers.dataset.inspection import Inspector
from trainers.dataset.sources import parse_sources, read_sources

LAYOUTS = load_registry().layouts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of one look a family."""
    folder = tmp_path_factory.mktemp("world")
    write_training_world(folder, looks=1)
    return folder


@pytest.fixture(scope="module")
def datasets(root: Path) -> tuple[RawDataset, ...]:
    return read_sources(parse_sources([str(root)], LAYOUTS), LAYOUTS)


def test_readers_find_every_product_and_nothing_amiss(root: Path, datasets: tuple[RawDataset, ...]) -> None:
    assert {dataset.name for dataset in datasets} == set(SOURCES)
    assert not any(dataset.findings for dataset in datasets)
    for dataset in datasets:
        assert {image.noun for image in dataset.images} == set(SOURCES[dataset.name])
    with Inspector(root / "facts.sqlite") as inspector:
        seen = [one for dataset in datasets for one in inspector.inspect(dataset.images)]
    assert all(image.findings == () for image in seen)
    assert len({image.digest for image in seen}) == len(seen)


def test_no_family_of_the_benchmark_is_asked_about(datasets: tuple[RawDataset, ...]) -> None:
    nouns = {image.noun for dataset in datasets for image in dataset.images}
    assert nouns == set(FAMILIES) - set(BENCHMARK)


def test_codes_are_read_as_the_worlds_own_words(datasets: tuple[RawDataset, ...]) -> None:
    found = {image.kind for dataset in datasets for image in dataset.images if dataset.name == "Real-IAD"}
    assert found - {""} <= set(CODES.values())


def test_text_pictures_are_not_the_benchmarks(root: Path) -> None:
    pictures = {
        data for name, data in World(looks=1).files() if "/train/good/" in name and name.endswith("jpg")
    }
    templates = {data for name, data in benchmark.files() if "/train/good/" in name}
    assert not pictures & templates
    sources = read_sources(raw_sources(root).text_sources, LAYOUTS)
    assert {image.noun for dataset in sources for image in dataset.images} == set(BENCHMARK)
    assert all(image.condition == "normal" for dataset in sources for image in dataset.images)


def request(root: Path, kind: TextKind, **changes: str) -> TextRequest:
    picture = root / "MPDD/bracket_0/train/good/000.jpg"
    return TextRequest(kind, "MPDD", "bracket_0", "bracket", (picture,), **changes)  # type: ignore[arg-type]


def test_the_describer_tells_what_the_renderer_knows(root: Path) -> None:
    product = World(looks=1).product("MPDD", "bracket_0")
    look, kind = product.design.look, product.kinds[0]
    normal = describe(request(root, TextKind.NORMAL_KNOWLEDGE))
    assert look.body in normal and look.trim in normal and "Description" not in normal
    told = describe(request(root, TextKind.DEFECT_KNOWLEDGE, words=kind.name))
    assert kind.appearance in told and kind.effect in told
    text = describe(request(root, TextKind.DEFECT_TEXT, words="crack", place="top left"))
    assert text == "product: Bracket.\ndefect: Crack.\nplace: Top left."
    assert describe(request(root, TextKind.NORMAL_TEXT)) == "product: Bracket.\ndefect: Normal."


def test_the_describer_knows_its_own_world_alone(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--endpoint"):
        describe(request(tmp_path, TextKind.NORMAL_KNOWLEDGE))


@pytest.mark.parametrize("folder", ["bracket", "bracket_x", "gear_0", "../x_0"])
def test_products_that_are_not_there_are_refused(folder: str) -> None:
    with pytest.raises(BadInput, match="no such product"):
        World().product("MPDD", folder)
