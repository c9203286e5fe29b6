"""A small renderer: signed distances in, a lit and textured picture out, the same bytes on every machine.

Only operations that IEEE 754 rounds exactly (+ - * / sqrt, comparisons) touch arrays, in float32; the few
sines are Python scalars rounded to nine digits; random numbers come from ``numpy.random.RandomState``,
whose stream numpy has frozen. So no processor, vector width or library version can move a pixel.

Lengths are in product units: the picture spans -1 to 1 in both directions, y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  #: one value a pixel
Colour = tuple[float, float, float]  #: RGB, 0 to 1


def turn(degrees: float) -> tuple[float, float]:
    """Cosine and sine of an angle, rounded so that every C library agrees on them."""
    radians = math.radians(degrees)
    return round(math.cos(radians), 9), round(math.sin(radians), 9)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera stands: the jitter between a reference and a query."""

    degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    light: float = 1.0  #: overall brightness
    light_degrees: float = 225.0  #: direction the light comes from

    @staticmethod
    def jitter(rng: np.random.RandomState, strength: float = 1.0) -> Pose:
        """A pose near the nominal one; ``strength`` 1 is a fixture that is a little loose."""
        u = rng.random_sample(6) * 2 - 1
        return Pose(
            degrees=float(u[0]) * 4.0 * strength,
            scale=1.0 + float(u[1]) * 0.04 * strength,
            shift=(float(u[2]) * 0.04 * strength, float(u[3]) * 0.04 * strength),
            light=1.0 + float(u[4]) * 0.10 * strength,
            light_degrees=225.0 + float(u[5]) * 30.0 * strength,
        )


@dataclass(frozen=True, slots=True)
class Material:
    """How a surface takes the light."""

    colour: Colour
    grain: float = 0.03  #: contrast of its texture
    stretch: float = 1.0  #: >1 draws the texture out sideways, as brushing does
    coarse: float = 14.0  #: texture cells a unit
    bevel: float = 0.05  #: width of the rounded edge
    gloss: float = 0.35  #: contrast of that edge


class Window:
    """The part of the canvas that a shape can touch, with its product coordinates."""

    def __init__(self, canvas: Canvas, x: float, y: float, reach: float) -> None:
        px, py = canvas.to_pixels(x, y)
        half = reach * canvas.unit + 3
        self.rows = slice(max(0, math.floor(py - half)), min(canvas.size, math.ceil(py + half) + 1))
        self.columns = slice(max(0, math.floor(px - half)), min(canvas.size, math.ceil(px + half) + 1))
        self.x = canvas.x[self.rows, self.columns]
        self.y = canvas.y[self.rows, self.columns]

    @property
    def empty(self) -> bool:
        """Whether the shape lies outside the picture."""
        return self.x.size == 0


class Canvas:
    """A square RGB picture, ``size`` pixels wide, seen in a pose."""

    def __init__(self, size: int, pose: Pose, rng: np.random.RandomState) -> None:
        self.size, self.pose, self.rng = size, pose, rng
        self.rgb = np.zeros((size, size, 3), np.float32)
        cos, sin = turn(pose.degrees)
        self._cos, self._sin = cos, sin
        self.unit = pose.scale * size / 2  #: pixels a product unit
        steps = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size)) - np.float32(1)
        u = (steps[None, :] - np.float32(pose.shift[0])) / np.float32(pose.scale)
        v = (steps[:, None] - np.float32(pose.shift[1])) / np.float32(pose.scale)
        self.x: Field = np.float32(cos) * u + np.float32(sin) * v
        self.y: Field = np.float32(cos) * v - np.float32(sin) * u
        self.pixel = np.float32(1 / self.unit)
        self.light = turn(pose.light_degrees)

    def to_pixels(self, x: float, y: float) -> tuple[float, float]:
        """Product coordinates to pixel coordinates (column, row)."""
        u = (self._cos * x - self._sin * y) * self.pose.scale + self.pose.shift[0]
        v = (self._sin * x + self._cos * y) * self.pose.scale + self.pose.shift[1]
        return (u + 1) * self.size / 2, (v + 1) * self.size / 2

    def window(self, x: float, y: float, reach: float) -> Window:
        """The pixels within ``reach`` of a point."""
        return Window(self, x, y, reach)

    def noise(self, window: Window, cells: float, stretch: float = 1.0) -> Field:
        """Smooth value noise in -1..1 with ``cells`` cells a unit."""
        lattice = (self.rng.random_sample((64, 64)) * 2 - 1).astype(np.float32)
        u = (window.x + np.float32(4)) * np.float32(cells / stretch)
        v = (window.y + np.float32(4)) * np.float32(cells)
        i, j = np.floor(u), np.floor(v)
        a, b = u - i, v - j
        a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
        i0, j0 = i.astype(np.int32) % 64, j.astype(np.int32) % 64
        i1, j1 = (i0 + 1) % 64, (j0 + 1) % 64
        top = lattice[j0, i0] * (1 - a) + lattice[j0, i1] * a
        low = lattice[j1, i0] * (1 - a) + lattice[j1, i1] * a
        smooth: Field = top * (1 - b) + low * b
        return smooth

    def coverage(self, distance: Field, soft: float = 0.0) -> Field:
        """How much of each pixel lies inside (distance < 0); the edge is one pixel plus ``soft`` wide."""
        inside: Field = np.clip(np.float32(0.5) - distance / (self.pixel + np.float32(soft)), 0, 1)
        return inside

    def blend(self, window: Window, cover: Field, colour: Field | Colour) -> None:
        """Lay a colour over the picture where ``cover`` is positive."""
        view = self.rgb[window.rows, window.columns]
        view += (np.asarray(colour, np.float32) - view) * cover[..., None]

    def backdrop(self, colour: Colour, grain: float = 0.03) -> None:
        """Fill the picture with a lit surface that the product lies on."""
        everything = self.window(0, 0, 4)
        shade = (
            1 + np.float32(grain) * self.noise(everything, 5) + np.float32(grain) * self.noise(everything, 21)
        )
        self.rgb[:] = np.asarray(colour, np.float32) * shade[..., None]

    def solid(
        self,
        window: Window,
        distance: Callable[[Field, Field], Field],
        material: Material,
        shadow: float = 0.05,
    ) -> Field:
        """Draw a solid with a soft shadow, texture and a lit edge; returns its coverage."""
        if window.empty:
            return np.zeros_like(window.x)
        lx, ly = np.float32(self.light[0]), np.float32(self.light[1])
        if shadow:
            moved = distance(window.x + lx * np.float32(shadow), window.y + ly * np.float32(shadow))
            self.blend(window, self.coverage(moved, soft=shadow) * np.float32(0.45), (0.03, 0.03, 0.04))
        d = distance(window.x, window.y)
        cover = self.coverage(d)
        step = self.pixel
        slope = (d - distance(window.x + lx * step, window.y + ly * step)) / step
        edge = np.clip(1 + d / np.float32(material.bevel), 0, 1)
        shade = 1 - np.float32(material.gloss) * slope * edge
        shade = shade + np.float32(material.grain) * self.noise(window, material.coarse, material.stretch)
        self.blend(window, cover, np.asarray(material.colour, np.float32) * shade[..., None])
        return cover

    def finish(self) -> NDArray[np.uint8]:
        """The lit picture, (size, size, 3) bytes: brightness, a gradient of the lamp, sensor noise."""
        everything = self.window(0, 0, 4)
        lamp = 1 + np.float32(0.06) * (
            everything.x * np.float32(self.light[0]) + everything.y * np.float32(self.light[1])
        )
        sensor = (
            self.rng.random_sample((self.size, self.size)).astype(np.float32) - np.float32(0.5)
        ) * np.float32(0.02)
        lit = self.rgb * (lamp * np.float32(self.pose.light))[..., None] + sensor[..., None]
        levels: NDArray[np.uint8] = (np.clip(lit, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
        return levels
