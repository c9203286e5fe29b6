"""Decoding an image file to upright 8-bit RGB, or one sentence saying why not."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

#: Pillow's own limit for a picture that is no decompression bomb (a quarter of a GiB of RGB bytes).
MAX_PIXELS = 89_000_000
#: Formats that industrial data sets come in; untrusted files do not reach the decoders of exotic ones.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_ORIENTATION = 0x0112  # the EXIF tag
_BROKEN = (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error, TypeError)


def decode(path: Path) -> Image:
    """The first frame of an image file as RGB, with its EXIF orientation applied.

    16-bit grey is scaled to 8 bits (divided by 256). Palettes are resolved and an alpha channel is dropped,
    as MMAD's own scripts do. No metadata is kept: comments may name a file or what it shows.

    Raises:
        BadInput: the file is missing, truncated, no image of :data:`FORMATS`, or larger than
            :data:`MAX_PIXELS`.
    """
    from PIL import ImageOps

    with _open(path) as image:
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return _to_rgb(upright)
        except _BROKEN as error:
            raise _unreadable(path, error) from error


def decode_mask(path: Path) -> NDArray[np.bool_]:
    """A mask file as (height, width), true where any colour channel is not zero.

    An alpha channel is dropped. A lossy file (JPEG, and WebP, which may be) is cut at half of the range
    instead, for its black is not quite black.

    Raises:
        BadInput: as :func:`decode`.
    """
    import numpy as np
    from PIL import ImageOps

    with _open(path) as image:
        lossy = image.format in ("JPEG", "WEBP")
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("1", "L") or upright.mode.startswith("I"):
                values = np.asarray(upright)
            elif upright.mode == "F":
                raise ValueError("its pixels are floating-point numbers")
            else:
                values = np.asarray(upright.convert("RGB")).max(axis=2)
        except _BROKEN as error:
            raise _unreadable(path, error) from error
    return np.asarray(values > 127 if lossy else values != 0)


def traits(path: Path) -> tuple[str, ...]:
    """What is unusual about an image that can be read, as names.

    ``rotated`` (turned upright by its EXIF orientation), ``sixteen-bit`` (scaled to 8 bits), ``alpha``
    (dropped), ``palette`` (resolved), ``colour-space`` (converted from one that is neither grey nor RGB).

    Raises:
        BadInput: the header cannot be read.
    """
    with _open(path) as image:
        mode = image.mode
        found = {
            "rotated": image.getexif().get(_ORIENTATION, 1) not in (0, 1),
            "sixteen-bit": mode.startswith("I"),
            "alpha": mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info,
            "palette": mode in ("P", "PA"),
            "colour-space": mode in ("CMYK", "YCbCr", "LAB", "HSV"),
        }
    return tuple(name for name, there in found.items() if there)


def check_header(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone; raises :class:`BadInput` as :func:`decode` does."""
    with _open(path) as image:
        return image.size


def _open(path: Path) -> Image:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: the image is missing; restore the file or remove its entry") from error
    except Image.DecompressionBombError as error:
        raise BadInput(f"{path}: the image is larger than {MAX_PIXELS:,} pixels; scale it down") from error
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise BadInput(
            f"{path}: the image has {width} x {height} pixels, more than {MAX_PIXELS:,}; scale it down"
        )
    return image


def _unreadable(path: Path, error: BaseException) -> BadInput:
    from PIL import UnidentifiedImageError

    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "it is no image of a known format"
    elif isinstance(error, OSError) and error.strerror:
        reason = error.strerror  # without the file's name, which the sentence begins with
    return BadInput(f"{path}: the image cannot be read ({reason}); replace the file")


def _to_rgb(image: Image) -> Image:
    if image.mode.startswith("I"):
        import numpy as np
        from PIL import Image as images

        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= 0xFFFF:
            raise ValueError("its grey values exceed 16 bits")
        image = images.fromarray((values >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    plain = image.convert("RGB")
    plain.info.clear()
    return plain
