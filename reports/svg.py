"""Drawing as text: elements of an SVG, and the marks by which ten models are told apart without colour."""

from __future__ import annotations

import math
from html import escape

#: Models beyond this many begin the colours again, with other marks and dashes.
COLOURS = 10
#: Of lines, in SVG units; the first is solid.
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2", "1 3", "12 4", "6 2 2 2 2 2", "3 6", "10 2 4 2", "4 4")
_MARKS = ("circle", "square", "up", "diamond", "down", "plus", "hexagon", "cross", "star")


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element; ``inside`` is SVG already, attributes are escaped, and ``class_`` is ``class``.

    >>> tag("g", tag("path", d="M0 0"), class_="a<b")
    '<g class="a&lt;b"><path d="M0 0"/></g>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    return f"<{name}{said}>{''.join(inside)}</{name}>" if inside else f"<{name}{said}/>"


def words(text: str, x: float, y: float, **attributes: object) -> str:
    """Text at a place."""
    return tag("text", escape(text), x=x, y=y, **attributes)


def drawing(
    width: float,
    height: float,
    title: str,
    description: str,
    *inside: str,
    name: str,
    narrow: bool,
) -> str:
    """A whole SVG with what a screen reader says of it.

    Args:
        width: of its view box.
        height: of its view box.
        title: in a few words.
        description: what it shows, in sentences.
        inside: its elements.
        name: unique in the page, but for its other layout.
        narrow: whether this is the layout for a phone.
    """
    label = f"{name}-narrow" if narrow else name
    return tag(
        "svg",
        tag("title", escape(title), id=f"{label}-title"),
        tag("desc", escape(description), id=f"{label}-desc"),
        *inside,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{label}-title {label}-desc",
        class_=f"chart {name} {'narrow' if narrow else 'wide'}",
    )


def series(place: int) -> str:
    """Class of the elements of one model; the first part is its colour, the second for the script."""
    return f"s{place % COLOURS} m{place}"


def dash(place: int) -> str:
    """Dashes of a model's lines."""
    return DASHES[place % len(DASHES)]


def mark(place: int, x: float, y: float, size: float = 4.5, *, hollow: bool = False) -> str:
    """A model's mark at a point; its shape tells models of one colour apart."""
    shape = _MARKS[place % len(_MARKS)]
    kind = "mark hollow" if hollow else "mark"
    return tag("path", d=_shape(shape, x, y, size), class_=kind)


def swatch(place: int) -> str:
    """A model's line and mark, for a legend."""
    line = tag("line", x1=1, x2=33, y1=8, y2=8, class_="line", stroke_dasharray=dash(place))
    return tag(
        "svg", line, mark(place, 17, 8), viewBox="0 0 34 16", width=34, height=16,
        class_=f"swatch {series(place)}", aria_hidden="true",
    )  # fmt: skip


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _polygon(x: float, y: float, radii: tuple[float, ...], turn: float) -> str:
    angles = [turn + 2 * math.pi * i / len(radii) for i in range(len(radii))]
    points = [
        f"{x + r * math.sin(a):.2f} {y - r * math.cos(a):.2f}" for r, a in zip(radii, angles, strict=True)
    ]
    return f"M{'L'.join(points)}Z"


def _shape(name: str, x: float, y: float, size: float) -> str:
    if name == "circle":
        return (
            f"M{x - size:.2f} {y:.2f}a{size:g} {size:g} 0 1 0 {2 * size:g} 0"
            f"a{size:g} {size:g} 0 1 0 {-2 * size:g} 0Z"
        )
    if name in ("plus", "cross"):
        inner, outer = size * 0.52, size * 1.2
        corner = math.atan(0.38)
        arm = [math.pi / 2 * i for i in range(4)]
        turn = math.pi / 4 if name == "cross" else 0.0
        points = []
        for angle in arm:
            for r, a in ((outer, angle - corner), (outer, angle + corner), (inner, angle + math.pi / 4)):
                points.append(f"{x + r * math.sin(a + turn):.2f} {y - r * math.cos(a + turn):.2f}")
        return f"M{'L'.join(points)}Z"
    radii, turn = {
        "square": ((size * 1.25,) * 4, math.pi / 4),
        "diamond": ((size * 1.3,) * 4, 0.0),
        "up": ((size * 1.35,) * 3, 0.0),
        "down": ((size * 1.35,) * 3, math.pi),
        "hexagon": ((size * 1.15,) * 6, 0.0),
        "star": ((size * 1.5, size * 0.65) * 5, 0.0),
    }[name]
    return _polygon(x, y, radii, turn)
