from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import BadInput
from harness.images import MAX_PIXELS, check_header, decode
from harness.records import ImageFile


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = save(Image.new("RGB", (5, 3), (200, 100, 50)).convert(mode), tmp_path / "x.tiff")
    found = decode(path)
    assert (found.mode, found.size) == ("RGB", (5, 3))


def test_colours_and_alpha_are_kept_as_plain_rgb(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (2, 2), (200, 100, 50, 10)), tmp_path / "x.png")
    assert decode(path).getpixel((0, 0)) == (200, 100, 50)


def test_nothing_but_pixels_is_kept(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (2, 2)), tmp_path / "broken_large.jpg", comment=b"broken_large", dpi=(3, 3))
    picture = ImageFile(path).load()
    assert "comment" in Image.open(path).info
    assert picture.pixels.info == {} and not hasattr(picture.pixels, "filename")
    assert "broken" not in repr((picture, vars(picture.pixels), picture.pixels.getexif()))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    for suffix in ("png", "tiff"):
        path = save(Image.fromarray(values), tmp_path / f"x.{suffix}")
        assert np.asarray(decode(path))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    assert decode(save(image, tmp_path / "x.jpg", exif=exif)).size == (2, 6)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.png: the image is missing; restore"):
        decode(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_truncated_images_are_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / f"x.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match=r"cannot be read .*; replace the file"):
        decode(path)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read"):
        decode(path)


@pytest.mark.parametrize("side", [9434, 50_000])
def test_oversized_images_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    assert side * side > MAX_PIXELS
    path = tmp_path / "bomb.png"
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks + b"\0\0\0\0IDAT5\xaf\x06\x1e")
    for read in (decode, check_header):
        with pytest.raises(BadInput, match=r"larger than|more than 89,000,000; scale it down"):
            read(path)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), tmp_path / "x.tiff")
    with pytest.raises(BadInput, match="floating-point"):
        decode(path)


def test_a_picture_carries_the_digest_of_its_file_and_no_path(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (2, 2)), tmp_path / "good.png")
    picture = ImageFile(path).load()
    assert len(picture.digest) == 64
    assert not any("good" in str(value) for value in vars(picture.pixels).values())
