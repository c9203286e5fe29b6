"""The plan: right counts, nothing of MMAD's test, and choices that do not move."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BadInput
from harness.raw import RawDataset, RawImage, TextKind
from tests.trainers.dataset.describing import world
from trainers.dataset.describing.plan import Plan as MadePlan
from trainers.dataset.describing.plan import PlanSettings, Task, knowledge_name, make_plan, unfit

Shape = Mapping[str, tuple[int, Mapping[str, int]]]  #: object -> normal images, kind -> defective images
KNOWN = {"MVTec": {"a": {"good": "fine", "hole": "a hole", "bad": "anything"}}}


def dataset(shape: Shape, name: str = "MPDD", split: str = "train") -> RawDataset:
    images = []
    for product, (normal, kinds) in shape.items():
        images += [image(name, product, f"{split}/good/{n}.png", split) for n in range(normal)]
        for kind, count in kinds.items():
            images += [image(name, product, f"test/{kind}/{n}.png", "test", kind) for n in range(count)]
    return RawDataset(name, Path("root"), tuple(images), ())


def image(name: str, product: str, place: str, split: str, kind: str = "") -> RawImage:
    path = f"{product}/{place}"
    masks = (Path(f"mask/{path}"),) if kind else ()
    words = "" if kind == "bad" else kind
    return RawImage(
        *(name, product, product, path, Path(path)),
        "defective" if kind else "normal",
        split,
        kind,
        words,
        masks,
    )


def plan(*sources: RawDataset, told: tuple[RawDataset, ...] = (), seed: int = 0, **settings: int) -> MadePlan:
    return make_plan(sources, told, KNOWN, seed, PlanSettings(**settings), lambda image: None)


def of(made: MadePlan, product: str) -> list[Task]:
    return [task for task in (*made.first, *made.second) if task.request.object == product]


shapes = st.dictionaries(
    st.sampled_from("abcd"),
    st.tuples(
        st.integers(1, 6), st.dictionaries(st.sampled_from(["hole", "rust", "bad"]), st.integers(1, 3))
    ),
    min_size=1,
)


@given(shapes, st.integers(0, 3))
def test_each_named_kind_and_each_product_gets_one_text(shape: Shape, seed: int) -> None:
    made = plan(dataset(shape), seed=seed)
    wanted = {(product, kind) for product, (_, kinds) in shape.items() for kind in kinds if kind != "bad"}
    assert {(one.request.object, one.request.defect) for one in made.first} == wanted
    assert len(made.first) == len(wanted)
    assert [one.request.object for one in made.second] == sorted(shape)
    for one in made.first:
        reference, shown = one.request.images
        assert "good" in reference.parts and one.request.defect in shown.parts
        assert one.request.masks == (Path("mask") / shown,)
    for one in made.second:
        assert one.request.kind == TextKind.NORMAL_KNOWLEDGE and "good" in one.request.images[0].parts


@given(shapes, st.integers(0, 3))
def test_one_product_more_changes_no_other(shape: Shape, seed: int) -> None:
    more = {**shape, "z": (4, {"hole": 2})}
    before, after = plan(dataset(shape), seed=seed), plan(dataset(more), seed=seed)
    for product in shape:
        assert of(before, product) == of(after, product)


@given(st.integers(1, 12), st.integers(0, 3))
def test_one_image_more_changes_one_choice_at_most(normal: int, seed: int) -> None:
    def chosen(count: int) -> set[str]:
        told = dataset({"a": (count, {}), "b": (3, {})}, "MVTec-AD")
        return {task.image for task in plan(told=(told,), seed=seed).first}

    before, after = chosen(normal), chosen(normal + 1)
    assert len(after - before) <= 1 and len(before - after) <= (normal >= 5)
    assert {name for name in before if name.startswith("b/")} < after


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 12), st.integers(1, 8), st.integers(0, 2))
def test_object_texts_are_counted_and_placed(
    images: int, normal_texts: int, defect_texts: int, there: int, seed: int
) -> None:
    told = dataset({"a": (there, {"hole": 2})}, "MVTec-AD")
    tested = [image("MVTec-AD", "a", f"test/good/{n}.png", "test") for n in range(9)]
    told = dataclasses.replace(told, images=(*told.images, *tested))
    counts = {"images": images, "normal_texts": normal_texts, "defect_texts": defect_texts}
    tasks = plan(told=(told,), seed=seed, **counts).first
    shown = min(images, there)
    kinds = Counter(task.request.kind for task in tasks)
    assert kinds[TextKind.NORMAL_TEXT] == shown * normal_texts
    assert kinds[TextKind.DEFECT_TEXT] == shown * 2 * defect_texts  # hole and bad, as the file names them
    assert len({str(task) for task in tasks}) == len(tasks)
    cells: dict[tuple[str, str], list[int]] = {}
    for task in tasks:
        assert task.request.images[0].parts[1:3] == ("train", "good")  # never what MMAD asks about
        if task.cell is not None:
            cells.setdefault((task.image, task.request.defect), []).append(task.cell)
            assert task.request.context == (KNOWN["MVTec"]["a"][task.request.defect],)
    for of_image in cells.values():
        for turn in range(0, len(of_image), 9):
            assert len(set(of_image[turn : turn + 9])) == len(of_image[turn : turn + 9])
    rows = [task.description("text", "digest") for task in tasks]
    places = [(row.image, row.defect, row.cell, row.number) for row in rows]
    assert len(set(places)) == len(places)


def test_seeds_choose_otherwise() -> None:
    told = dataset({"a": (30, {})}, "MVTec-AD")
    assert len({frozenset(t.image for t in plan(told=(told,), seed=seed).first) for seed in range(5)}) == 5
    cells = {tuple(t.cell for t in plan(told=(told,), seed=seed, images=1).first) for seed in range(5)}
    assert len(cells) == 5


def test_the_limit_keeps_a_sample_of_each_product() -> None:
    told = dataset({"a": (9, {}), "b": (9, {})}, "MVTec-AD")
    all_texts, few = plan(told=(told,)), plan(told=(told,), limit_per_object=7)
    assert Counter(task.request.object for task in few.first) == {"a": 7, "b": 7}
    assert set(map(str, few.first)) < set(map(str, all_texts.first))
    assert [t for t in all_texts.first if t in few.first] == list(few.first)  # in the same order
    fewer = plan(told=(told,), limit_per_object=6)
    assert set(map(str, fewer.first)) < set(map(str, few.first))
    with pytest.raises(BadInput, match="limit_per_object is 0; it must be 1 or more"):
        PlanSettings(limit_per_object=0)


def test_what_is_left_out_is_said() -> None:
    silent = dataset({"a": (0, {"hole": 1}), "b": (1, {})})
    told = dataset({"q": (2, {})}, "VisA", split="test")
    notes = " | ".join(plan(silent, told=(told,)).notes)
    assert "MPDD: no knowledge is written where no normal image is: a" in notes
    assert "VisA: the knowledge file names no defect of q" in notes
    assert "VisA/q: it has no train split" in notes
    bare = dataset({"a": (0, {"hole": 1})}, "MVTec-AD")
    assert "MVTec-AD/a: it has no normal image" in " | ".join(plan(told=(bare,)).notes)


def test_an_image_that_cannot_be_shown_makes_room_for_the_next(tmp_path: Path) -> None:
    asked, _ = world.datasets(world.write(tmp_path))
    good = make_plan(asked, (), {}, 0, PlanSettings(), unfit)
    shown = next(task.request for task in good.first if task.request.defect == "scratch")
    world.mask(shown.masks[0], marked=False)
    other = make_plan(asked, (), {}, 0, PlanSettings(), unfit)
    now = next(task.request for task in other.first if task.request.defect == "scratch")
    assert now.images[1] != shown.images[1] and now.images[0] == shown.images[0]
    assert any("is not shown: its mask marks nothing" in note for note in other.notes)
    world.mask(now.masks[0], width=61)
    now.images[0].write_bytes(b"no image")
    last = make_plan(asked, (), {}, 0, PlanSettings(), unfit)
    assert [task.request.defect for task in last.first] == ["bent_end"]
    said = " | ".join(last.notes)
    assert "its mask has 61 x 40 pixels, the image 60 x 40" in said
    assert "no image of scratch can be shown" in said
    assert all(now.images[0] not in task.request.images for task in (*last.first, *last.second))


def test_kinds_without_a_mask_are_shown_without() -> None:
    bare = dataset({"a": (1, {"hole": 2})})
    images = tuple(dataclasses.replace(one, masks=()) for one in bare.images)
    (task,) = plan(dataclasses.replace(bare, images=images)).first
    assert task.request.masks == () and len(task.request.images) == 2


def test_datasets_are_found_under_mmads_name_of_them() -> None:
    assert knowledge_name("MVTec-AD", {}) == knowledge_name("DS-MVTec", {}) == "MVTec"
    assert knowledge_name("MVTec-AD", {"MVTec-AD": {}}) == "MVTec-AD"
    assert knowledge_name("VisA", {}) == "VisA"
