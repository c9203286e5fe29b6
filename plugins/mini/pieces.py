"""What products are made of: looks, materials, pieces, and where pieces are put."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from plugins.mini import shapes
from plugins.mini.canvas import Colour, Material, turn
from plugins.mini.shapes import Distance

COLOURS: dict[str, Colour] = {
    "silver": (0.70, 0.72, 0.75),
    "gold": (0.80, 0.62, 0.26),
    "copper": (0.72, 0.42, 0.26),
    "black": (0.13, 0.13, 0.15),
    "white": (0.90, 0.90, 0.88),
    "red": (0.76, 0.16, 0.15),
    "green": (0.14, 0.45, 0.24),
    "blue": (0.16, 0.32, 0.68),
    "yellow": (0.90, 0.78, 0.20),
    "purple": (0.48, 0.24, 0.58),
}
BACKDROPS: dict[str, Colour] = {
    "grey": (0.46, 0.47, 0.49),
    "dark": (0.20, 0.21, 0.23),
    "beige": (0.66, 0.60, 0.50),
    "teal": (0.28, 0.42, 0.44),
}


@dataclass(frozen=True, slots=True)
class Look:
    """What tells one product of a family from another."""

    body: str
    trim: str
    count: int
    backdrop: str


@dataclass(frozen=True, slots=True)
class Element:
    """One piece of a product: an outline at a place, made of something."""

    part: str  #: what it is called
    shape: Distance
    x: float
    y: float
    reach: float  #: no point of it is farther from (x, y)
    material: Material
    degrees: float = 0.0
    depth: str = (
        "raised"  #: ``raised``, ``sunk`` (a hole: dark, its far rim lit) or ``print`` (flat on the surface)
    )

    @property
    def outline(self) -> Distance:
        """Its signed distance in product coordinates."""
        return shapes.placed(self.shape, self.x, self.y, self.degrees)


@dataclass(frozen=True, slots=True)
class Design:
    """A product as drawn: the body first, then its pieces in order."""

    family: Family
    look: Look
    body: Element
    elements: tuple[Element, ...]

    @property
    def parts(self) -> tuple[Element, ...]:
        """The pieces that are counted: those with the family's part name."""
        return tuple(element for element in self.elements if element.part == self.family.part)


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of product."""

    noun: str
    dataset: str  #: the sub-dataset that it belongs to
    outline: str  #: in words, for questions
    part: str  #: what is counted
    counts: tuple[int, ...]
    bodies: tuple[str, ...]
    trims: tuple[str, ...]
    build: Callable[[Look], tuple[Element, tuple[Element, ...]]]
    summary: str  #: how a normal one looks, with ``{count}``, ``{trim}``, ``{body}``

    def design(self, look: Look) -> Design:
        """The family's product with this look."""
        body, elements = self.build(look)
        return Design(self, look, body, elements)

    def random_look(self, rng: np.random.RandomState) -> Look:
        """Any look that the family allows; trim and body always differ."""
        body = self.bodies[int(rng.random_sample() * len(self.bodies))]
        trims = [trim for trim in self.trims if trim != body]
        return Look(
            body,
            trims[int(rng.random_sample() * len(trims))],
            self.counts[int(rng.random_sample() * len(self.counts))],
            tuple(BACKDROPS)[int(rng.random_sample() * len(BACKDROPS))],
        )


def metal(colour: str) -> Material:
    """Brushed metal."""
    return Material(COLOURS[colour], grain=0.05, stretch=6, coarse=30, bevel=0.06, gloss=0.5)


def plastic(colour: str) -> Material:
    """Moulded plastic."""
    return Material(COLOURS[colour], grain=0.02, coarse=18, bevel=0.05, gloss=0.35)


def card(colour: str) -> Material:
    """Printed card or film."""
    return Material(COLOURS[colour], grain=0.03, coarse=26, bevel=0.03, gloss=0.2)


def ink(colour: str) -> Material:
    """Print: no edge, no texture of its own."""
    return Material(COLOURS[colour], grain=0.01, bevel=0.01, gloss=0.0)


SUNK = Material((0.07, 0.07, 0.08), grain=0.02, bevel=0.05, gloss=-0.9)


def body(shape: Distance, reach: float, material: Material, x: float = 0, y: float = 0) -> Element:
    """The product's main piece."""
    return Element("body", shape, x, y, reach, material)


def around(radius: float, count: int, start: float = -90) -> list[tuple[float, float]]:
    """Places on a circle."""
    places = []
    for k in range(count):
        cos, sin = turn(start + 360 * k / count)
        places.append((radius * cos, radius * sin))
    return places


def along(width: float, count: int, y: float = 0.0) -> list[tuple[float, float]]:
    """Places in a row, evenly spread over -width..width."""
    step = 2 * width / count
    return [(-width + step * (k + 0.5), y) for k in range(count)]


def grid(width: float, height: float, count: int) -> list[tuple[float, float]]:
    """Places in two rows (one, when the count is odd or below four)."""
    if count < 4 or count % 2:
        return along(width, count)
    half = count // 2
    return along(width, half, -height / 2) + along(width, half, height / 2)


def pieces(
    part: str,
    places: list[tuple[float, float]],
    shape: Distance,
    reach: float,
    material: Material,
    depth: str = "raised",
) -> tuple[Element, ...]:
    """The same piece at several places."""
    return tuple(Element(part, shape, x, y, reach, material, depth=depth) for x, y in places)


def holes(part: str, places: list[tuple[float, float]], radius: float) -> tuple[Element, ...]:
    """Round holes."""
    return pieces(part, places, shapes.disc(radius), radius, SUNK, "sunk")


def with_elements(design: Design, elements: tuple[Element, ...]) -> Design:
    """The same product with other pieces."""
    return replace(design, elements=elements)
