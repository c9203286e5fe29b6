"""Ten kinds of defect: what each is called, how it looks, what it does, and how it is drawn.

Structural kinds change the design before it is drawn (a piece gone, another colour, a label askew); surface
kinds are drawn on the finished product. Each leaves a mask of the pixels that it changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from plugins.mini import shapes
from plugins.mini.canvas import Canvas, Field, Material, turn
from plugins.mini.pieces import COLOURS, SUNK, Design, Element, with_elements

Surface = Callable[
    [Canvas, Design, Field], Field
]  #: canvas, design, the body's coverage -> the defect's coverage
Change = Callable[
    [Design, np.random.RandomState], tuple[Design, tuple[Element, ...]]
]  #: -> design, pieces touched


@dataclass(frozen=True, slots=True)
class Defect:
    """One kind of defect, in words and in paint."""

    name: str
    appearance: str
    effect: str
    draw: Surface | None = None
    change: Change | None = None

    @property
    def folder(self) -> str:
        """Its name as a folder: ``wrong_part``."""
        return self.name.replace(" ", "_")

    def fits(self, design: Design) -> bool:
        """Whether the product can have this defect."""
        if self.name == "tilted label":
            return any(element.part == "label" for element in design.elements)
        if self.name == "missing part" or self.name == "wrong part":
            return any(element.depth == "raised" for element in design.parts)
        return True


def _somewhere(canvas: Canvas, design: Design) -> tuple[float, float]:
    """A point well inside the body and off its openings, in product coordinates."""
    outline = design.body.outline
    point = (0.0, 0.0)
    for _ in range(200):
        u = canvas.rng.random_sample(2) * 1.7 - 0.85
        point = (float(u[0]), float(u[1]))
        open_here = any(
            e.depth == "sunk" and shapes.depth_at(e.outline, *point) < 0.05 for e in design.elements
        )
        if shapes.depth_at(outline, *point) < -0.09 and not open_here:
            break
    return point


def _between(rng: np.random.RandomState, low: float, high: float) -> float:
    return low + float(rng.random_sample()) * (high - low)


def _stroke(
    canvas: Canvas, x: float, y: float, length: float, bends: int, wild: float, thick: float
) -> shapes.Distance:
    """A line of ``bends`` + 1 pieces about a point, turning by up to ``wild`` degrees at each bend."""
    heading = _between(canvas.rng, 0, 360)
    cos, sin = turn(heading)
    px, py = x - cos * length / 2, y - sin * length / 2
    strokes = []
    for _ in range(bends + 1):
        cos, sin = turn(heading + _between(canvas.rng, -wild, wild))
        qx, qy = px + cos * length / (bends + 1), py + sin * length / (bends + 1)
        strokes.append(shapes.segment(px, py, qx, qy, thick))
        px, py = qx, qy
    return shapes.union(*strokes)


def _scratch(canvas: Canvas, design: Design, on: Field) -> Field:
    x, y = _somewhere(canvas, design)
    line = _stroke(canvas, x, y, _between(canvas.rng, 0.4, 0.75), 1, 9, _between(canvas.rng, 0.014, 0.024))
    cover = canvas.coverage(line(canvas.x, canvas.y)) * on
    dark = canvas.coverage(line(canvas.x + np.float32(0.025), canvas.y + np.float32(0.025))) * on
    everything = canvas.window(0, 0, 4)
    canvas.blend(everything, dark * np.float32(0.35), (0.05, 0.05, 0.05))
    canvas.blend(everything, cover * np.float32(_between(canvas.rng, 0.6, 0.95)), (0.96, 0.96, 0.97))
    return cover


def _crack(canvas: Canvas, design: Design, on: Field) -> Field:
    x, y = _somewhere(canvas, design)
    line = _stroke(canvas, x, y, _between(canvas.rng, 0.45, 0.8), 6, 55, _between(canvas.rng, 0.014, 0.024))
    cover = canvas.coverage(line(canvas.x, canvas.y)) * on
    canvas.blend(
        canvas.window(0, 0, 4), cover * np.float32(_between(canvas.rng, 0.75, 1.0)), (0.02, 0.02, 0.02)
    )
    return cover


def _hole(canvas: Canvas, design: Design, on: Field) -> Field:
    x, y = _somewhere(canvas, design)
    radius = _between(canvas.rng, 0.05, 0.085)
    spot = shapes.placed(shapes.disc(radius), x, y)
    everything = canvas.window(0, 0, 4)
    rim = canvas.coverage(spot(canvas.x, canvas.y) - np.float32(0.025)) * on
    canvas.blend(everything, rim * np.float32(0.4), (0.9, 0.9, 0.9))
    cover = canvas.coverage(spot(canvas.x, canvas.y)) * on
    canvas.blend(everything, cover, (0.03, 0.03, 0.03))
    return rim


def _stain(canvas: Canvas, design: Design, on: Field) -> Field:
    x, y = _somewhere(canvas, design)
    everything = canvas.window(0, 0, 4)
    blot = shapes.placed(shapes.disc(_between(canvas.rng, 0.13, 0.22)), x, y)
    ragged = blot(canvas.x, canvas.y) + canvas.noise(everything, 6) * np.float32(0.08)
    cover = canvas.coverage(ragged, soft=0.05) * on
    brown = (0.30, 0.20, 0.08)
    canvas.blend(everything, cover * np.float32(_between(canvas.rng, 0.4, 0.7)), brown)
    return cover


def _dent(canvas: Canvas, design: Design, on: Field) -> Field:
    x, y = _somewhere(canvas, design)
    radius = _between(canvas.rng, 0.12, 0.2)
    bowl = shapes.placed(shapes.disc(radius), x, y)
    cover = canvas.coverage(bowl(canvas.x, canvas.y), soft=0.06) * on
    lx, ly = np.float32(canvas.light[0]), np.float32(canvas.light[1])
    tilt = ((canvas.x - np.float32(x)) * lx + (canvas.y - np.float32(y)) * ly) / np.float32(radius)
    strength = np.float32(_between(canvas.rng, 0.5, 0.8))
    everything = canvas.window(0, 0, 4)
    canvas.blend(everything, cover * np.clip(tilt, 0, 1) * strength, (0.02, 0.02, 0.03))
    canvas.blend(everything, cover * np.clip(-tilt, 0, 1) * strength, (0.95, 0.95, 0.95))
    return cover


def _foreign(canvas: Canvas, design: Design, on: Field) -> Field:
    x, y = _somewhere(canvas, design)
    size = _between(canvas.rng, 0.06, 0.1)
    lump = shapes.placed(
        shapes.polygon(3 + int(canvas.rng.random_sample() * 3), size), x, y, _between(canvas.rng, 0, 360)
    )
    odd = Material((0.95, 0.35, 0.75), grain=0.05, bevel=0.03, gloss=0.6)
    everything = canvas.window(0, 0, 4)
    return canvas.solid(everything, lump, odd, shadow=0.03)


def _missing(design: Design, rng: np.random.RandomState) -> tuple[Design, tuple[Element, ...]]:
    gone = design.parts[int(rng.random_sample() * len(design.parts))]
    kept = tuple(element for element in design.elements if element is not gone)
    return with_elements(design, kept), (gone,)


def _wrong(design: Design, rng: np.random.RandomState) -> tuple[Design, tuple[Element, ...]]:
    odd = design.parts[int(rng.random_sample() * len(design.parts))]
    others = [
        c
        for c in ("red", "green", "blue", "yellow", "white", "black")
        if c not in (design.look.trim, design.look.body)
    ]
    colour = COLOURS[others[int(rng.random_sample() * len(others))]]
    other = replace(odd, material=replace(odd.material, colour=colour))
    return with_elements(design, tuple(other if e is odd else e for e in design.elements)), (odd,)


def _tilted(design: Design, rng: np.random.RandomState) -> tuple[Design, tuple[Element, ...]]:
    label = next(element for element in design.elements if element.part == "label")
    degrees = _between(rng, 9, 16) * (1 if rng.random_sample() < 0.5 else -1)
    cos, sin = turn(degrees)
    moved = []
    for element in design.elements:
        if element.part in ("label", design.family.part):
            dx, dy = element.x - label.x, element.y - label.y
            element = replace(
                element, x=label.x + cos * dx - sin * dy, y=label.y + sin * dx + cos * dy, degrees=degrees
            )
        moved.append(element)
    straight_and_tilted = (label, next(e for e in moved if e.part == "label"))
    return with_elements(design, tuple(moved)), straight_and_tilted


def _chip(design: Design, rng: np.random.RandomState) -> tuple[Design, tuple[Element, ...]]:
    """Bite a piece out of the body's rim."""
    outline = design.body.outline
    heading = _between(rng, 0, 360)
    cos, sin = turn(heading)
    radii = np.arange(1.2, 0.1, -0.01, dtype=np.float32)
    inside = outline(radii * np.float32(cos), radii * np.float32(sin)) < 0
    edge = float(radii[int(np.argmax(inside))])
    size = _between(rng, 0.12, 0.19)
    x, y = cos * edge, sin * edge
    bite = shapes.placed(shapes.polygon(5, size), x, y, _between(rng, 0, 72))
    whole = replace(design.body, shape=shapes.minus(outline, bite), x=0.0, y=0.0, reach=1.4)
    mark = Element("chip", shapes.polygon(5, size), x, y, 1.4, SUNK)
    bitten = tuple(
        replace(e, shape=shapes.minus(e.outline, bite), x=0.0, y=0.0, degrees=0.0, reach=1.4)
        if shapes.depth_at(bite, e.x, e.y) < e.reach
        else e
        for e in design.elements
    )
    return replace(design, body=whole, elements=bitten), (mark,)


DEFECTS: dict[str, Defect] = {
    defect.name: defect
    for defect in (
        Defect("scratch", "Thin bright line.", "It spoils the finish.", draw=_scratch),
        Defect("crack", "Dark jagged line.", "It may break under load.", draw=_crack),
        Defect("hole", "Small dark opening.", "It lets fluid leak out.", draw=_hole),
        Defect("stain", "Dull brown patch.", "It looks dirty to the buyer.", draw=_stain),
        Defect("dent", "Shallow shaded hollow.", "It bends the wall inward.", draw=_dent),
        Defect("foreign body", "Small pink lump.", "It pollutes the goods.", draw=_foreign),
        Defect("chip", "Gap broken out of the rim.", "It leaves a sharp rim.", change=_chip),
        Defect("missing part", "Empty place in the pattern.", "It cannot work as designed.", change=_missing),
        Defect(
            "wrong part", "Piece of another colour.", "It was put together from mixed stock.", change=_wrong
        ),
        Defect(
            "tilted label", "Print that stands askew.", "It cannot be read by the scanner.", change=_tilted
        ),
    )
}
