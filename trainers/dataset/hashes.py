"""The same photograph found again after re-encoding, resizing, small changes of tone, flipping or turning.

Industrial photographs of one product are very alike, so likeness alone is no evidence. Three steps keep
shots apart. A DCT hash finds candidates in all eight orientations; correlation drops those of other
structure; then thumbnails are brought to one tone and compared place by place. What decides is the *worst*
place, where a small defect shows, or all places together, where a product lies a little otherwise: the same
shot stored again differs in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

#: What was done to a picture, in the order that :func:`oriented` counts; the words are Pillow's.
ORIENTATIONS = (
    "upright", "rotate-90", "rotate-180", "rotate-270",
    "flip-left-right", "transpose", "flip-top-bottom", "transverse",
)  # fmt: skip
#: Largest difference of a near-duplicate, in grey levels. Measured on rendered pictures and photographs:
#: re-encoded as JPEG 60 at most 2.3, resized to half 3.3, both 5.6, contrast +15 % 5.6, brightness +10 % 6.3;
#: another shot of the same product 8.3 and more. The same specimen photographed again may lie below.
NEAR = 7.0
SIDE = 48  #: of the grey thumbnail: less would lose small defects, more would see how an image was resized
_PLACE = 4  #: side of a place, in pixels of the thumbnail
_TOGETHER = 4.0  #: how many times the quadratic mean over the places counts beside the worst of them
COLOUR_SIDE = SIDE // _PLACE
_LOW = 16  #: frequencies a direction that are hashed
BITS = _LOW * _LOW
_CANDIDATE_BITS = 64  #: candidates differ in at most so many
_CORRELATION = 0.96  #: and correlate at least so much
_CHROMA = 40.0  #: and differ in colour at most so much, in levels of R-G and B-G
_FLAT = 1.0  #: standard deviation in grey levels below which a picture shows nothing
_GREY = 6.0  #: levels of R-G and B-G below which a picture is grey, so that a copy may have lost its colour
_PAIRS = 1 << 20  #: hash distances held at once
_BATCH = 1024  #: thumbnails hashed, and pairs of them compared, at once


@dataclass(frozen=True, slots=True)
class Look:
    """What one picture looks like."""

    grey: NDArray[np.uint8]  #: ``(48, 48)``
    colour: NDArray[np.uint8]  #: ``(12, 12, 3)``


@dataclass(frozen=True, slots=True)
class Near:
    """Two pictures that show the same shot."""

    first: int  #: index of the picture that may be a copy
    second: int  #: index of the picture it may be a copy of
    orientation: str  #: what was done to ``second``: one of :data:`ORIENTATIONS`
    bits: int  #: of 256 in which their hashes differ
    difference: float  #: in grey levels, once both have one tone


def look(image: Image) -> Look:
    """The look of an RGB image, squeezed to a square."""
    import numpy as np
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((SIDE, SIDE), Resampling.BILINEAR)
    colours = np.asarray(small, np.float64)
    places = colours.reshape(COLOUR_SIDE, _PLACE, COLOUR_SIDE, _PLACE, 3).mean((1, 3))
    grey = np.rint(colours @ np.array([0.299, 0.587, 0.114]))
    return Look(grey.astype(np.uint8), np.rint(places).astype(np.uint8))


def oriented(pictures: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Square pictures ``(N, S, S, ...)`` in one of the eight orientations, by index."""
    import numpy as np

    turned = pictures[:, :, ::-1] if orientation >= 4 else pictures
    return np.rot90(turned, orientation % 4, (1, 2))


def hashes(grey: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """DCT hashes ``(N, 4)`` of grey thumbnails ``(N, 48, 48)``: the signs of 255 low frequencies.

    The mean is left out, so that neither brightness nor contrast matters.
    """
    import numpy as np

    waves = _waves()
    packed = np.empty((len(grey), BITS // 8), np.uint8)
    for start in range(0, len(grey), _BATCH):
        some = slice(start, start + _BATCH)
        bits = waves @ grey[some].astype(np.float64) @ waves.T > 1e-3  # what is absent has no sign
        bits[:, 0, 0] = False
        packed[some] = np.packbits(bits.reshape(len(bits), BITS), axis=1)
    return packed.view(np.uint64)


@cache
def _waves() -> NDArray[np.float64]:
    """The first frequencies of the DCT-II, (16, 48)."""
    import numpy as np

    places = 2 * np.arange(SIDE) + 1
    waves: NDArray[np.float64] = np.cos(np.pi * np.arange(_LOW)[:, None] * places / (2 * SIDE)) / SIDE
    return waves


def find_near(
    first: Sequence[Look],
    second: Sequence[Look],
    bound: float = NEAR,
    advance: Callable[[int], object] = lambda count: None,
) -> Iterator[Near]:
    """Every pair of pictures that show the same shot, in order, each in the orientation that fits best.

    Every pair of hashes is compared: 20,000 pictures with 10,000 take a minute on one core, and some more
    where many are alike.

    Args:
        first: pictures that may be copies.
        second: pictures they may be copies of.
        bound: how much a copy may differ, in grey levels.
        advance: told how many more of ``first`` are done.
    """
    if not first or not second:
        return
    copies, originals = _Pictures.of(first), _Pictures.of(second)
    plain = hashes(copies.grey)
    turned = [hashes(oriented(originals.grey, o)) for o in range(len(ORIENTATIONS))]
    step = max(1, _PAIRS // len(second))
    for start in range(0, len(first), step):
        best: dict[tuple[int, int], Near] = {}
        for o, others in enumerate(turned):
            rows, columns, bits = _alike(plain[start : start + step], others)
            for part in range(0, len(rows), _BATCH):
                some = slice(part, part + _BATCH)
                pairs = (rows[some] + start, columns[some], bits[some])
                for i, j, apart, difference in _compared(copies, originals, o, *pairs):
                    if difference <= bound and ((i, j) not in best or difference < best[i, j].difference):
                        best[i, j] = Near(i, j, ORIENTATIONS[o], apart, difference)
        yield from (best[pair] for pair in sorted(best))
        advance(len(plain[start : start + step]))


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Many looks in arrays, and what is compared of them first."""

    grey: NDArray[np.uint8]  #: ``(N, 48, 48)``
    colour: NDArray[np.uint8]  #: ``(N, 12, 12, 3)``
    structure: NDArray[np.float32]  #: ``(N, 12, 12)``: mean of each place, centred and of unit length
    flat: NDArray[np.bool_]  #: ``(N,)``

    @classmethod
    def of(cls, looks: Sequence[Look]) -> _Pictures:
        import numpy as np

        grey = np.stack([one.grey for one in looks])
        structure = _places(grey).astype(np.float32)
        structure -= structure.mean((1, 2), keepdims=True)
        structure /= np.maximum(np.sqrt((structure**2).sum((1, 2), keepdims=True)), 1e-6)
        flat = np.array([one.grey.std() < _FLAT for one in looks])
        return cls(grey, np.stack([one.colour for one in looks]), structure, flat)


def _compared(
    copies: _Pictures,
    originals: _Pictures,
    orientation: int,
    i: NDArray[np.int64],
    j: NDArray[np.int64],
    bits: NDArray[np.int64],
) -> Iterator[tuple[int, int, int, float]]:
    """Indices, bits and difference of those pairs that agree in structure and colour."""
    import numpy as np

    common = (copies.structure[i] * oriented(originals.structure[j], orientation)).sum((1, 2))
    flat = copies.flat[i] & originals.flat[j]
    kept = np.flatnonzero((common >= _CORRELATION) | flat)
    i, j, bits = i[kept], j[kept], bits[kept]
    kept = _same_colour(copies.colour[i], oriented(originals.colour[j], orientation)).nonzero()[0]
    i, j, bits = i[kept], j[kept], bits[kept]
    first, second = copies.grey[i], oriented(originals.grey[j], orientation)
    found = np.minimum(_apart(first, second), _apart(second, first))
    # One level fits every other: pictures that show nothing are the same where their level is.
    levels = np.abs(first.mean((1, 2)) - second.mean((1, 2)))
    found = np.where(copies.flat[i] | originals.flat[j], np.maximum(found, levels), found)
    yield from zip(i.tolist(), j.tolist(), bits.tolist(), found.tolist(), strict=True)


def _alike(
    first: NDArray[np.uint64], second: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the pairs whose hashes are close, and in how many bits they differ."""
    import numpy as np

    distances = np.zeros((len(first), len(second)), np.uint16)
    for word in range(first.shape[1]):
        distances += np.bitwise_count(first[:, None, word] ^ second[None, :, word])
    rows, columns = np.nonzero(distances <= _CANDIDATE_BITS)
    return rows, columns, distances[rows, columns].astype(np.int64)


def _same_colour(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    import numpy as np

    chromas = []
    for colour in (first.astype(np.float64), second.astype(np.float64)):
        chromas.append(colour[..., ::2] - colour[..., 1:2])  # R-G and B-G
    largest = [np.abs(chroma).max((1, 2, 3)) for chroma in chromas]
    apart = np.abs(chromas[0] - chromas[1]).max((1, 2, 3))
    same: NDArray[np.bool_] = (apart <= _CHROMA) | (np.minimum(*largest) <= _GREY)
    return same


def _apart(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How much pairs of pictures ``(P, 48, 48)`` differ, in grey levels, the first in the second's tone.

    The mean difference at the worst place, or four times the quadratic mean over all places, whichever is
    larger.

    The first's grey levels are replaced, in their order, by the second's: whatever monotone curve lies
    between two copies (brightness, contrast, gamma, clipping) is taken away.
    """
    import numpy as np

    count, size = len(first), SIDE * SIDE
    levels = first.reshape(count, size).astype(np.int64)
    rows = np.arange(count)[:, None]
    numbers = np.bincount((levels + 256 * rows).ravel(), minlength=256 * count).reshape(count, 256)
    ends = numbers.cumsum(1)
    sums = np.zeros((count, size + 1), np.int64)
    np.cumsum(np.sort(second.reshape(count, size), axis=1), axis=1, out=sums[:, 1:], dtype=np.int64)
    tone = (sums[rows, ends] - sums[rows, ends - numbers]) / np.maximum(numbers, 1)
    apart = np.abs(tone[rows, levels] - second.reshape(count, size))
    places = _places(apart.reshape(count, SIDE, SIDE))
    found: NDArray[np.float64] = np.maximum(
        places.max((1, 2)), _TOGETHER * np.sqrt((places * places).mean((1, 2)))
    )
    return found


def _places(pictures: NDArray[Any]) -> NDArray[np.float64]:
    """Means over places of 4 x 4 pixels, ``(N, 12, 12)``."""
    shape = (len(pictures), COLOUR_SIDE, _PLACE, COLOUR_SIDE, _PLACE)
    means: NDArray[np.float64] = pictures.reshape(shape).mean((2, 4))
    return means
