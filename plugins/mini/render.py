"""Draw one picture of a product: normal or with a defect, with the mask of what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plugins.mini.canvas import Canvas, Field, Pose
from plugins.mini.defects import Defect
from plugins.mini.pieces import BACKDROPS, Design, Element

GRID = 12  #: cells a side of the coarse part map, as many as the mini vision tower has patches


@dataclass(frozen=True, slots=True)
class Shot:
    """A rendered picture and its truth."""

    pixels: NDArray[np.uint8]  #: (size, size, 3)
    mask: NDArray[np.bool_]  #: (size, size): what the defect changed
    body: NDArray[np.bool_]  #: (size, size): the product
    design: Design
    defect: Defect | None


def draw_element(canvas: Canvas, element: Element) -> Field:
    """Draw one piece; returns its coverage over the whole picture."""
    window = canvas.window(element.x, element.y, element.reach + 0.1)
    shadow = 0.05 if element.depth == "raised" else 0.0
    cover = np.zeros((canvas.size, canvas.size), np.float32)
    if not window.empty:
        cover[window.rows, window.columns] = canvas.solid(window, element.outline, element.material, shadow)
    return cover


def shoot(
    design: Design,
    rng: np.random.RandomState,
    size: int,
    defect: Defect | None = None,
    looseness: float = 1.0,
    strength: float = 1.0,
) -> Shot:
    """Render the product once.

    Args:
        design: what a normal product looks like.
        rng: the only source of randomness; one of a picture's own.
        size: pixels a side.
        defect: what is wrong, if anything.
        looseness: strength of the pose and light jitter (1: a loose fixture).
        strength: how well a defect on the surface shows: 0, not at all, to 1. The mask is the same.
    """
    canvas = Canvas(size, Pose.jitter(rng, looseness), rng)
    canvas.backdrop(BACKDROPS[design.look.backdrop])
    touched: tuple[Element, ...] = ()
    drawn = design
    if defect is not None and defect.change is not None:
        drawn, touched = defect.change(design, rng)
    on = draw_element(canvas, drawn.body)
    for element in drawn.elements:
        draw_element(canvas, element)
    wrong = np.zeros_like(on)
    for element in touched:
        wrong = np.maximum(wrong, canvas.coverage(element.outline(canvas.x, canvas.y)))
    if defect is not None and defect.name == "chip":
        wrong = wrong * canvas.coverage(design.body.outline(canvas.x, canvas.y))
    if defect is not None and defect.draw is not None:
        sound = canvas.rgb.copy()
        wrong = defect.draw(canvas, drawn, on)
        if strength < 1:
            canvas.rgb = sound + np.float32(strength) * (canvas.rgb - sound)
    half = np.float32(0.5)
    mask = wrong > half if touched else wrong > np.float32(0.25)
    return Shot(canvas.finish(), mask, on > half, design, defect)
