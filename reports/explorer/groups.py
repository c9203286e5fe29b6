"""Ways to group images: by what their keys tell, and by what there is to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.explorer.catalogue import Catalogue
from reports.explorer.pictures import NOTHING, Shown
from reports.explorer.places import NORMAL, Place

#: Upper bounds of the share of an image that a defect covers, and what the group below each is called.
AREAS = ((0.005, "below 0.5 %"), (0.02, "0.5 to 2 %"), (0.08, "2 to 8 %"), (1.01, "8 % and more"))
#: Upper bounds of an image's longer side in pixels.
SIZES = (
    (512, "below 512 px"),
    (1024, "512 to 1,023 px"),
    (2048, "1,024 to 2,047 px"),
    (2**31, "2,048 px and more"),
)


@dataclass(frozen=True, slots=True)
class Dimension:
    """One way to group images."""

    key: str
    title: str
    labels: tuple[str, ...]  #: of the groups, in their natural order
    group: tuple[int | None, ...]  #: of each image; None for one that is in no group


def area_bin(area: float | None) -> int | None:
    """Group of a defect by the share of the image it covers; None where it is not known or nothing."""
    return None if not area else next(i for i, (bound, _) in enumerate(AREAS) if area < bound)


def size_bin(size: tuple[int, int] | None) -> int | None:
    """Group of an image by its longer side."""
    return None if size is None else next(i for i, (bound, _) in enumerate(SIZES) if max(size) < bound)


def dimensions(catalogue: Catalogue, shown: Mapping[str, Shown]) -> tuple[Dimension, ...]:
    """All ways to group the images of which something is known."""
    looks = [shown.get(key, NOTHING) for key in catalogue.images]
    doubles = _repeated([(place.dataset, place.object) for place in catalogue.places])

    def product(place: Place) -> str:
        return f"{place.object} ({place.dataset})" if place.object in doubles else place.object

    found = [
        _named("dataset", "Dataset", [place.dataset for place in catalogue.places]),
        _named("object", "Product", [product(place) for place in catalogue.places]),
        _named(
            "kind",
            "Kind of defect",
            [None if place.kind == NORMAL else place.kind for place in catalogue.places],
        ),
        _binned("area", "Area of the defect", AREAS, [area_bin(look.area) for look in looks]),
        _binned("size", "Size of the image", SIZES, [size_bin(look.size) for look in looks]),
    ]
    return tuple(dimension for dimension in found if any(group is not None for group in dimension.group))


def _repeated(pairs: Sequence[tuple[str, str]]) -> set[str]:
    """Products of the same name in several datasets."""
    names = [name for _, name in set(pairs)]
    return {name for name in names if names.count(name) > 1}


def _named(key: str, title: str, names: Sequence[str | None]) -> Dimension:
    labels = tuple(sorted({name for name in names if name}, key=lambda name: (name.lower(), name)))
    places = {name: place for place, name in enumerate(labels)}
    return Dimension(key, title, labels, tuple(None if name is None else places[name] for name in names))


def _binned(
    key: str, title: str, bins: Sequence[tuple[float, str]], groups: Sequence[int | None]
) -> Dimension:
    return Dimension(key, title, tuple(label for _, label in bins), tuple(groups))
