"""What a model is told and shown."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.raw import TextKind, TextRequest
from tests.trainers.dataset.describing import world
from trainers.dataset.describing.pictures import data_url
from trainers.dataset.describing.prompts import WORDS, Picture, chat, prompts_digest

ENTRY = " <Large breakage>\n Description: A piece\n of the rim is gone."


def request(kind: TextKind, **changes: object) -> TextRequest:
    values: dict[str, object] = {
        "words": "large breakage",
        "place": "top left",
        "context": (ENTRY,),
        **changes,
    }
    return TextRequest(kind, "MVTec-AD", "bottle", "glass bottle", (Path("a.png"),), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TextKind)
def test_every_kind_says_what_it_is_about(kind: TextKind) -> None:
    said = chat(request(kind))
    assert "glass bottle" in said.text and f"at most {WORDS[kind]} words" in said.text.replace("\n", " ")
    told = kind in (TextKind.NORMAL_KNOWLEDGE, TextKind.DEFECT_TEXT)
    assert ("Large breakage: A piece of the rim is gone." in said.text) is told
    assert "rim is gone" not in said.own and "<" not in said.text and "\n\n\n" not in said.text
    assert ("top left" in said.text) is (kind == TextKind.DEFECT_TEXT)
    assert said.own.startswith(said.system)


def test_templates_do_not_run_what_they_quote() -> None:
    said = chat(request(TextKind.DEFECT_TEXT, words="{{ 7 * 7 }}", context=("{% raise %}",)))
    assert "{{ 7 * 7 }}" in said.text and "{% raise %}" in said.text


def test_several_texts_on_one_image_start_otherwise() -> None:
    texts = {chat(request(TextKind.NORMAL_TEXT, number=number)).text for number in range(5)}
    assert len(texts) == 5


def test_the_mask_is_the_third_picture(tmp_path: Path) -> None:
    images, masks = (Path("normal.png"), Path("defective.png")), (Path("m0.png"), Path("m1.png"))
    told = TextRequest(TextKind.DEFECT_KNOWLEDGE, "d", "o", "tube", images, masks, "dent", "dent")
    assert chat(told).pictures == (Picture(images[0]), Picture(images[1]), Picture(images[1], masks))
    assert "Picture 3 marks the defect" in chat(told).text
    bare = TextRequest(TextKind.DEFECT_KNOWLEDGE, "d", "o", "tube", images, (), "dent", "dent")
    assert len(chat(bare).pictures) == 2 and "Picture 3" not in chat(bare).text


def test_the_digest_follows_the_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.dataset.describing import prompts

    before = prompts_digest()
    monkeypatch.setitem(prompts.WORDS, TextKind.NORMAL_TEXT, 99)
    assert prompts_digest() != before


def shown(picture: Picture, max_side: int) -> Image.Image:
    head, _, content = data_url(picture, max_side).partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.format == "PNG"
    return image


def test_pictures_are_small_upright_and_rgb(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60), dtype=np.uint8)
    pixels[:, :20] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = shown(Picture(tmp_path / "turned.png"), 30)
    assert image.mode == "RGB" and image.size == (20, 30)
    values = np.asarray(image)[:, :, 0]
    assert values[:8].min() > 150 and values[-8:].max() < 50  # what was left is on top
    assert shown(Picture(tmp_path / "turned.png"), 512).size == (40, 60)  # nothing is enlarged


def test_masks_are_merged_at_the_images_size_and_lose_no_spot(tmp_path: Path) -> None:
    image = world.picture(tmp_path / "image.png", 0, 600, 400)
    first, second = np.zeros((400, 600), dtype=np.uint8), np.zeros((400, 600), dtype=np.uint8)
    first[0:100, 0:100] = 1  # MVTec LOCO's values tell the kind
    second[399, 599] = 255
    for name, values in (("a.png", first), ("b.png", second)):
        Image.fromarray(values).save(tmp_path / name)
    mask = shown(Picture(image, (tmp_path / "a.png", tmp_path / "b.png")), 60)
    values = np.asarray(mask)
    assert mask.mode == "L" and mask.size == shown(Picture(image), 60).size == (60, 40)
    assert set(np.unique(values)) == {0, 255}
    assert values[:10, :10].min() == 255 and values[39, 59] == 255
    assert np.count_nonzero(values) == 101
