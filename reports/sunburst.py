"""A tree of counts as rings of an inline SVG, as in the paper's figure 7."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Tree = Mapping[str, "Tree | int"]

SIZE = 640  #: of the drawing, in SVG units
#: Inner and outer radius of each ring.
RINGS = ((82, 152), (154, 244), (246, 314))
#: One hue a branch of the first ring; told apart in both colour schemes and in common colour blindness.
HUES = ("#c2410c", "#0b6e4f", "#64748b", "#d97706", "#0e7490", "#94a3b8")
_LEAST = 0.035  #: share of the circle below which a piece has no words in it


def total(tree: Tree | int) -> int:
    """The sum over a tree's leaves."""
    return tree if isinstance(tree, int) else sum(total(branch) for branch in tree.values())


def sunburst(tree: Tree, titles: Mapping[str, str], label: str) -> str:
    """An SVG of three rings; each piece has its path, number and share as a tooltip.

    Args:
        tree: three levels of names, then numbers.
        titles: name -> what to write in its stead.
        label: what a screen reader says the drawing is.
    """
    whole = total(tree)
    pieces: list[str] = []
    for hue, (name, branch) in zip(HUES * len(tree), tree.items(), strict=False):
        start = sum(total(other) for other in list(tree.values())[: list(tree).index(name)])
        _draw({name: branch}, start, whole, 0, (), hue, titles, pieces)
    half = SIZE // 2
    return (
        f'<svg viewBox="{-half} {-half} {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}" role="img" '
        f'aria-label="{escape(label)}" font-size="13" text-anchor="middle">\n'
        + "\n".join(pieces)
        + f'\n<text y="-4" font-size="26" font-weight="700" fill="currentColor">{whole:,}</text>'
        '\n<text y="18" fill="currentColor">questions</text>\n</svg>'
    )


def _draw(
    branches: Tree,
    start: int,
    whole: int,
    depth: int,
    above: Sequence[str],
    hue: str,
    titles: Mapping[str, str],
    pieces: list[str],
) -> None:
    """Add the pieces of one ring, and those that lie on them."""
    for turn, (name, branch) in enumerate(branches.items()):
        count = total(branch)
        path = (*above, titles.get(name, name))
        opacity = (1.0, 0.72, 0.45)[depth] - (0.12 if turn % 2 else 0.0)
        told = escape(f"{' / '.join(path)}: {count:,} ({100 * count / whole:.1f} %)")
        shape = _arc(start / whole, (start + count) / whole, *RINGS[depth])
        pieces.append(
            f'<path d="{shape}" fill="{hue}" fill-opacity="{opacity:.2f}" stroke="var(--paper)" '
            f'stroke-width="0.7"><title>{told}</title></path>'
        )
        if depth < 2 and count / whole >= _LEAST:
            pieces.append(_words(path[-1], (start + count / 2) / whole, sum(RINGS[depth]) / 2, depth))
        if not isinstance(branch, int):
            _draw(branch, start, whole, depth + 1, path, hue, titles, pieces)
        start += count


def _point(share: float, radius: float) -> str:
    """A point on a circle, clockwise from the top."""
    angle = 2 * math.pi * share
    return f"{radius * math.sin(angle):.2f} {-radius * math.cos(angle):.2f}"


def _arc(start: float, end: float, inner: float, outer: float) -> str:
    """A piece of a ring between two shares of the circle."""
    if end - start >= 1:
        end = start + 0.99999  # an arc to its own start is none
    large = int(end - start > 0.5)
    return (
        f"M{_point(start, outer)} A{outer} {outer} 0 {large} 1 {_point(end, outer)} "
        f"L{_point(end, inner)} A{inner} {inner} 0 {large} 0 {_point(start, inner)} Z"
    )


def _words(text: str, share: float, radius: float, depth: int) -> str:
    """The words of a piece in its middle, along the radius where they would not fit across."""
    x, y = _point(share, radius).split()
    turn = share * 360 - 90
    turn += 180 if 90 < turn < 270 else 0
    fill = "#ffffff" if depth == 0 else "currentColor"
    lines = text.split(" ", 1)
    first = -0.25 if len(lines) == 2 else 0.35
    spans = "".join(
        f'<tspan x="0" dy="{first if i == 0 else 1.1:.2f}em">{escape(line)}</tspan>'
        for i, line in enumerate(lines)
    )
    place = f"translate({x} {y}) rotate({turn:.1f})"
    return f'<text transform="{place}" font-size="10.5" fill="{fill}">{spans}</text>'
