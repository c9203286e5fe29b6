"""Signed distances of the outlines that products are made of: negative inside, in product units."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from plugins.mini.canvas import Field, turn

Distance = Callable[[Field, Field], Field]


def disc(radius: float) -> Distance:
    """A disc about the origin."""

    def distance(x: Field, y: Field) -> Field:
        found: Field = np.sqrt(x * x + y * y) - np.float32(radius)
        return found

    return distance


def box(width: float, height: float, round_by: float = 0.03) -> Distance:
    """A box with rounded corners about the origin; ``width`` and ``height`` are half sides."""
    w, h, r = np.float32(width - round_by), np.float32(height - round_by), np.float32(round_by)

    def distance(x: Field, y: Field) -> Field:
        dx, dy = np.abs(x) - w, np.abs(y) - h
        ox, oy = np.maximum(dx, 0), np.maximum(dy, 0)
        found: Field = np.sqrt(ox * ox + oy * oy) + np.minimum(np.maximum(dx, dy), 0) - r
        return found

    return distance


def polygon(corners: int, radius: float) -> Distance:
    """A regular polygon with an inscribed circle of ``radius``, flat side up."""
    sides = [turn(90 + 360 * k / corners) for k in range(corners)]

    def distance(x: Field, y: Field) -> Field:
        d = x * np.float32(sides[0][0]) + y * np.float32(sides[0][1])
        for cos, sin in sides[1:]:
            d = np.maximum(d, x * np.float32(cos) + y * np.float32(sin))
        return d - np.float32(radius)

    return distance


def segment(x0: float, y0: float, x1: float, y1: float, thickness: float) -> Distance:
    """A straight stroke with round ends; ``thickness`` is its half width."""
    dx, dy = x1 - x0, y1 - y0
    length2 = np.float32(max(dx * dx + dy * dy, 1e-9))

    def distance(x: Field, y: Field) -> Field:
        u, v = x - np.float32(x0), y - np.float32(y0)
        t = np.clip((u * np.float32(dx) + v * np.float32(dy)) / length2, 0, 1)
        p, q = u - t * np.float32(dx), v - t * np.float32(dy)
        return np.sqrt(p * p + q * q) - np.float32(thickness)

    return distance


def depth_at(shape: Distance, x: float, y: float) -> float:
    """The signed distance at one point."""
    return float(shape(np.array([x], np.float32), np.array([y], np.float32))[0])


def union(*shapes: Distance) -> Distance:
    """What any of the shapes covers."""

    def distance(x: Field, y: Field) -> Field:
        d = shapes[0](x, y)
        for shape in shapes[1:]:
            d = np.minimum(d, shape(x, y))
        return d

    return distance


def minus(shape: Distance, hole: Distance) -> Distance:
    """What the first shape covers and the second does not."""
    return lambda x, y: np.maximum(shape(x, y), -hole(x, y))


def placed(shape: Distance, x: float, y: float, degrees: float = 0.0) -> Distance:
    """The shape moved to (x, y) and turned."""
    if not degrees:
        return lambda u, v: shape(u - np.float32(x), v - np.float32(y))
    cos, sin = (np.float32(value) for value in turn(degrees))

    def distance(u: Field, v: Field) -> Field:
        p, q = u - np.float32(x), v - np.float32(y)
        return shape(cos * p + sin * q, cos * q - sin * p)

    return distance


def gear(radius: float, teeth: int, depth: float = 0.1) -> Distance:
    """A disc with teeth."""
    tooth = box(radius * 0.16 + 0.02, depth + 0.05, 0.02)
    around = []
    for k in range(teeth):
        cos, sin = turn(360 * k / teeth)
        around.append(placed(tooth, radius * cos, radius * sin, 360 * k / teeth + 90))
    return union(disc(radius), *around)


def cross(arm: float, width: float) -> Distance:
    """A plus sign."""
    return union(box(arm, width, 0.02), box(width, arm, 0.02))


def bottle(width: float, height: float) -> Distance:
    """A body with shoulders and a neck, upright."""
    body = placed(box(width, height * 0.62, 0.12), 0, height * 0.38)
    neck = placed(box(width * 0.42, height * 0.5, 0.04), 0, -height * 0.5)
    return union(body, neck)


def pouch(width: float, height: float) -> Distance:
    """A bag that is wider in the middle than at its seals."""
    return union(box(width * 0.92, height, 0.05), placed(box(width, height * 0.72, 0.2), 0, 0))
