"""Thumbnails, masks and areas: drawn once, measured right, and absent where they cannot be had."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.answers import write_answers
from harness.errors import BadInput
from harness.mmad import read_mmad
from harness.records import Answer, Outcome
from harness.store import PlanRow, Spoken, Store
from reports.explorer import pictures
from reports.explorer.masks import draw, read_mask
from reports.explorer.pictures import FOLDER, Gallery, find_gallery, heat_scales, references_of, show
from reports.subject import Subject, read_subject
from tests.reports.explorer.worlds import manifest, subject_of


def asked_about(data: Path, path: Path = Path("run"), told: bool = True, **changes: str) -> Subject:
    """One model that answers all questions of a folder with A."""
    benchmark, answered = read_mmad(data), Outcome.ANSWERED
    answers = [
        Answer("m", i.key, q.number, q.subtask, q.raw_type, q.text, q.options, q.answer, "A", answered)
        for i in benchmark.items
        for q in i.questions
    ]
    about = {"root": str(data), "digest": benchmark.digest} | changes
    return subject_of([answers], manifest("real", **about) if told else None, path)


def write_mask(path: Path, size: tuple[int, int], boxes: list[tuple[int, int, int, int]]) -> Path:
    image = Image.new("L", size)
    for box in boxes:
        image.paste(255, box)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def test_areas_are_shares_of_the_image_and_masks_unite(tmp_path: Path) -> None:
    one = write_mask(tmp_path / "a.png", (200, 100), [(0, 0, 20, 10)])
    other = write_mask(tmp_path / "b.png", (200, 100), [(10, 0, 30, 10)])
    small = write_mask(tmp_path / "c.png", (100, 50), [(0, 0, 10, 5)])
    areas = [read_mask(paths) for paths in ([one], [one, other], [one, small], [])]
    assert [None if m is None else m.mean() for m in areas] == [0.01, 0.015, 0.01, None]
    (tmp_path / "d.png").write_bytes(b"no image")
    assert read_mask([one, tmp_path / "d.png"]) is None


def test_the_overlay_shows_even_a_single_pixel(tmp_path: Path) -> None:
    mask = np.zeros((1500, 3000), bool)
    mask[700, 1500] = True
    drawn = draw(mask, 320)
    assert drawn.size == (320, 160)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG")
    alpha = np.asarray(Image.open(buffer).convert("RGBA"))[..., 3]
    assert alpha[75, 160] > 0 and alpha.max() == 255 and alpha[0, 0] == 0
    assert (alpha > 0).sum() == 25  # the pixel and an outline of two around it


def test_pictures_of_every_image_are_drawn(mmad_folder: Path, tmp_path: Path) -> None:
    subject = asked_about(mmad_folder)
    found = show(subject, find_gallery(subject), tmp_path / FOLDER)
    items = {item.key: item for item in read_mmad(mmad_folder).items}
    assert set(found) == set(items)
    for key, look in found.items():
        assert look.size == (24, 16)
        assert (look.area is None) == items[key].normal
        names = [name for name in (look.query, *look.references, look.mask) if name]
        assert len(names) == (2 if items[key].normal else 3)
        for name in names:
            with Image.open(tmp_path / name) as image:
                assert image.size == (24, 16)
    references = {look.references for look in found.values()}
    assert len(references) == 6  # one file a product, shared by its images


def test_nothing_is_drawn_twice(mmad_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []
    monkeypatch.setattr(
        pictures,
        "_save",
        lambda picture, path, save=pictures._save: (drawn.append(path), save(picture, path)),
    )
    subject = asked_about(mmad_folder)
    gallery = find_gallery(subject)
    first = show(subject, gallery, tmp_path / FOLDER)
    count = len(drawn)
    assert count == len(set(drawn)) > 24
    index = tmp_path / FOLDER / "index.json"
    before = index.stat().st_mtime_ns
    assert show(subject, gallery, tmp_path / FOLDER) == first and len(drawn) == count
    assert index.stat().st_mtime_ns == before
    changed = next(iter(gallery.items.values())).image
    Image.new("RGB", (50, 40)).save(changed)
    again = show(subject, gallery, tmp_path / FOLDER)
    assert len(drawn) == count + 1 and (50, 40) in {look.size for look in again.values()}
    drawn[0].unlink()
    show(subject, gallery, tmp_path / FOLDER)
    assert len(drawn) == count + 2
    index.write_text("{broken")
    show(subject, gallery, tmp_path / FOLDER)
    assert len(drawn) == 2 * count + 2


def test_a_damaged_image_is_left_out_and_not_tried_again(mmad_folder: Path, tmp_path: Path) -> None:
    subject = asked_about(mmad_folder)
    gallery = find_gallery(subject)
    key, item = next(iter(gallery.items.items()))
    item.image.write_bytes(b"\x89PNG broken")
    for _ in range(2):
        look = show(subject, gallery, tmp_path / FOLDER)[key]
        assert look.query is None and look.size is None and look.references


def test_a_benchmark_is_found_where_the_run_had_it_or_where_it_is_said_to_be(
    mmad_folder: Path, tmp_path: Path
) -> None:
    assert len(find_gallery(asked_about(mmad_folder)).items) == 24
    assert find_gallery(asked_about(mmad_folder, told=False)).items == {}
    assert find_gallery(asked_about(mmad_folder, root="/nowhere")).items == {}
    assert find_gallery(asked_about(mmad_folder, digest="0" * 64)).items == {}
    assert len(find_gallery(asked_about(mmad_folder, told=False), mmad_folder).items) == 24
    with pytest.raises(BadInput, match="another benchmark"):
        find_gallery(asked_about(mmad_folder, digest="0" * 64), mmad_folder)
    with pytest.raises(BadInput, match="no such folder"):
        find_gallery(asked_about(mmad_folder), tmp_path / "nowhere")


def test_a_bare_answer_file_has_no_pictures(mmad_folder: Path, tmp_path: Path) -> None:
    write_answers(tmp_path / "m.json", asked_about(mmad_folder).entries[0].answers)
    subject = read_subject([tmp_path / "m.json"])
    assert show(subject, find_gallery(subject), tmp_path / FOLDER) == {}
    assert not (tmp_path / FOLDER).exists()


def test_the_references_are_those_of_the_protocol(mmad_folder: Path) -> None:
    item = read_mmad(mmad_folder).items[0]
    names = [
        [path.name for path in references_of(item, protocol)]
        for protocol in (None, {"reference": "random"}, {"shots": 2}, {"shots": 0}, {"images": "hidden"})
    ]
    assert names == [["000.png"], ["001.png"], ["000.png", "001.png"], [], []]


@pytest.fixture
def run_with_heat(mmad_folder: Path, tmp_path: Path) -> Callable[[bytes], Subject]:
    """A run whose store has this heat map of the first image."""

    def write(png: bytes) -> Subject:
        folder = tmp_path / "run"
        subject = asked_about(mmad_folder, folder)
        item = read_mmad(mmad_folder).items[0]
        with Store.open(folder / "answers.sqlite") as store:
            row = PlanRow(0, item.key, item.questions[0], "answer", "work")
            store.save("m", [row], {"answer": Spoken("A", Outcome.ANSWERED)}, [], {"work": png})
        return subject

    return write


def grey(values: list[list[int]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.array(values, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_heat_maps_are_kept_as_they_are(run_with_heat: Callable[[bytes], Subject], tmp_path: Path) -> None:
    png = grey([[0, 51], [102, 25]])
    subject = run_with_heat(png)
    found = show(subject, Gallery(), tmp_path / FOLDER)
    ((look,),) = (found.values(),)
    assert look.query is None
    ((entry, name, highest),) = look.heat
    assert entry == 0 and highest == pytest.approx(0.4) and (tmp_path / name).read_bytes() == png
    assert heat_scales(found, 2) == [0.4, 1.0]
    assert show(subject, Gallery(), tmp_path / FOLDER) == found


def test_what_is_no_heat_map_is_left_out(run_with_heat: Callable[[bytes], Subject], tmp_path: Path) -> None:
    assert show(run_with_heat(b"<svg onload=alert(1)>"), Gallery(), tmp_path / FOLDER) == {}
    assert not (tmp_path / FOLDER).exists()


def test_thumbnails_are_small(mmad_folder: Path, tmp_path: Path) -> None:
    subject = asked_about(mmad_folder)
    gallery = find_gallery(subject)
    item = next(iter(gallery.items.values()))
    noise = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(item.image)
    look = show(subject, gallery, tmp_path / FOLDER)[item.key]
    assert look.size == (1600, 900) and look.query
    with Image.open(tmp_path / look.query) as image:
        assert image.size == (320, 180)
    assert os.path.getsize(tmp_path / look.query) < 100_000
