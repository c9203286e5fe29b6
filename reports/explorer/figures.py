"""The page's figures, as SVG that needs no script: averages with intervals, a radar, grouped bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from harness.averaging import AVERAGE
from harness.estimates import Estimate
from harness.subtasks import SUBTASKS
from reports.svg import dash, drawing, mark, series, tag, words

Scale: TypeAlias = Callable[[float], float]  #: percent -> place in the drawing
#: Width of the narrow drawings: about that of a phone, so that letters keep their size.
PHONE = 380.0
HEADS = (*((subtask.key, subtask.group, subtask.title) for subtask in SUBTASKS), (AVERAGE, "", "Average"))


@dataclass(frozen=True, slots=True)
class Line:
    """One model as the figures show it."""

    place: int  #: among the subject's entries: decides colour, mark and dash
    title: str
    scale: str
    estimates: Mapping[str, Estimate | None]  #: column -> score over all datasets
    tied: bool = False  #: best on average, or not told apart from the best


def forest(lines: Sequence[Line], chance: float | None, note: str, *, narrow: bool = False) -> str:
    """Averages with their intervals, the best first.

    Args:
        lines: the models.
        chance: what guessing is expected to score.
        note: written into the drawing, so that it is not passed on without.
        narrow: for a phone: names and numbers stand above their intervals.
    """
    found = [(line, e) for line in lines if (e := line.estimates[AVERAGE]) is not None]
    found.sort(key=lambda pair: -pair[1].value)
    if not found:
        return ""
    width, left, right, step = (PHONE, 12.0, 12.0, 46.0) if narrow else (860.0, 210.0, 170.0, 34.0)
    top = 26.0
    floor, ceiling = _limits([*(e.low for _, e in found), chance], [e.high for _, e in found])
    bottom = top + step * len(found) + (6 if narrow else 0)

    def at(value: float) -> float:
        return left + (value - floor) / (ceiling - floor) * (width - left - right)

    parts = []
    best = found[0][1]
    if len(found) > 1:
        band = at(best.low)
        parts.append(
            tag("rect", x=band, y=top - 8, width=at(best.high) - band, height=bottom - top + 8, class_="band")
        )
    for value in range(floor, ceiling + 1, 5 if ceiling - floor <= 30 else 10):
        parts.append(tag("line", x1=at(value), x2=at(value), y1=top - 8, y2=bottom, class_="grid"))
        parts.append(words(f"{value}", at(value), bottom + 18, class_="tick", text_anchor="middle"))
    if chance is not None:
        parts.append(tag("line", x1=at(chance), x2=at(chance), y1=top - 8, y2=bottom, class_="chance"))
        inside = min(max(at(chance), 30), width - 30)
        parts.append(words("guessing", inside, top - 13, class_="tick", text_anchor="middle"))
    row = _narrow_row if narrow else _wide_row
    for place, (line, e) in enumerate(found):
        parts.append(row(line, e, top + step * (place + 0.5), at, width - right))
    below = bottom + 40
    parts.append(words("Average accuracy (%)", left, below, class_="note"))
    if note:
        below += 20 if narrow else 0
        where = {"x": left} if narrow else {"x": width, "text_anchor": "end"}
        parts.append(tag("text", escape(note), y=below, class_="note", **where))
    told = "; ".join(f"{line.title} {e.value:.1f} ({e.low:.1f} to {e.high:.1f})" for line, e in found)
    title = "Average accuracy with 95 % intervals"
    return drawing(width, below + 6, title, f"{told}. {note}", *parts, name="forest", narrow=narrow)


def _wide_row(line: Line, e: Estimate, y: float, at: Scale, right: float) -> str:
    """Name, interval and numbers in one line."""
    kind = "name strong" if line.tied else "name"
    return tag(
        "g",
        *_interval(line, e, y, at),
        words(_short(line.title), 190.0, y + 4.5, class_=kind, text_anchor="end"),
        words(f"{e.value:.1f}", right + 52, y + 4.5, class_=kind, text_anchor="end"),
        words(f"{e.low:.1f} to {e.high:.1f}", right + 64, y + 4.5, class_="tick"),
        class_=series(line.place),
    )


def _narrow_row(line: Line, e: Estimate, y: float, at: Scale, right: float) -> str:
    """Name and numbers above the interval."""
    kind = "name strong" if line.tied else "name"
    return tag(
        "g",
        *_interval(line, e, y + 12, at),
        words(_short(line.title), 12.0, y - 4, class_=kind),
        words(f"{e.value:.1f}", right - 84, y - 4, class_=kind, text_anchor="end"),
        words(f"{e.low:.1f} to {e.high:.1f}", right, y - 4, class_="tick", text_anchor="end"),
        class_=series(line.place),
    )


def _short(title: str) -> str:
    return title if len(title) <= 24 else f"{title[:23]}…"


def _interval(line: Line, e: Estimate, y: float, at: Scale) -> tuple[str, ...]:
    return (
        tag("title", f"{escape(line.title)}: {e.value:.2f} ({e.low:.2f} to {e.high:.2f}), {e.n:,} questions"),
        tag("line", x1=at(e.low), x2=at(e.high), y1=y, y2=y, class_="whisker wide"),
        tag("line", x1=at(e.low), x2=at(e.low), y1=y - 5, y2=y + 5, class_="whisker"),
        tag("line", x1=at(e.high), x2=at(e.high), y1=y - 5, y2=y + 5, class_="whisker"),
        mark(line.place, at(e.value), y, 5.5, hollow=not line.tied),
    )


def radar(lines: Sequence[Line], note: str, *, narrow: bool = False) -> str:
    """All subtasks around a circle, from 0 in the middle to 100 %: the paper's figure 1."""
    heads = [head for head in HEADS[:-1] if any(line.estimates[head[0]] for line in lines)]
    if len(heads) < 3:
        return ""
    width, height, radius = (PHONE, 306.0, 92.0) if narrow else (640.0, 470.0, 172.0)
    cx, cy = width / 2, height / 2 - 6

    def point(place: int, percent: float, beyond: float = 0) -> tuple[float, float]:
        angle = 2 * math.pi * place / len(heads)
        r = radius * percent / 100 + beyond
        return cx + r * math.sin(angle), cy - r * math.cos(angle)

    parts = []
    for ring in (20, 40, 60, 80, 100):
        corners = [point(i, ring) for i in range(len(heads))]
        parts.append(tag("path", d=_path(corners, closed=True), class_="grid"))
        if ring < 100 and not (narrow and ring % 40):
            parts.append(words(f"{ring}", cx + 5, cy - radius * ring / 100 - 3, class_="tick"))
    for i, (_, group, title) in enumerate(heads):
        x, y = point(i, 100)
        parts.append(tag("line", x1=cx, y1=cy, x2=x, y2=y, class_="grid"))
        x, y = point(i, 100, 9 if narrow else 16)
        anchor = "middle" if abs(x - cx) < 20 else "start" if x > cx else "end"
        y += -8 if y < cy - radius / 2 else 8 if y > cy + radius / 2 else 0
        parts.append(words(group, x, y - 2, class_="tick", text_anchor=anchor))
        parts.append(words(title, x, y + 13, class_="name", text_anchor=anchor))
    for line in lines:
        found = [(i, e.value) for i, head in enumerate(heads) if (e := line.estimates[head[0]]) is not None]
        corners = [point(i, value) for i, value in found]
        told = ", ".join(f"{heads[i][1]} {heads[i][2]} {value:.1f}" for i, value in found)
        whole = len(found) == len(heads)
        parts.append(
            tag(
                "g",
                tag("title", escape(f"{line.title}: {told}")),
                tag("path", d=_path(corners, closed=whole), class_="line", stroke_dasharray=dash(line.place)),
                *(mark(line.place, x, y, 3.4 if narrow else 4.2) for x, y in corners),
                class_=series(line.place),
            )
        )
    parts.append(words(note, width / 2, height - 4, class_="note", text_anchor="middle"))
    told = f"Models: {'; '.join(line.title for line in lines)}. {note}"
    return drawing(
        width, height, "Accuracy by subtask, as a radar", told, *parts, name="radar", narrow=narrow
    )


def bars(lines: Sequence[Line], note: str, *, narrow: bool = False) -> str:
    """Grouped bars with intervals: one group a subtask, and the average apart; in rows on a phone."""
    heads = [head for head in HEADS if any(line.estimates[head[0]] for line in lines)]
    width, height, columns = (PHONE, 206.0, 3) if narrow else (1160.0, 330.0, len(heads))
    rows = [heads[start : start + columns] for start in range(0, len(heads), columns)]
    parts = [
        part
        for i, row in enumerate(rows)
        for part in _bar_row(lines, row, Box(height * i, width, height), columns)
    ]
    below = height * len(rows) + 14
    parts.append(words(note, width, below, class_="note", text_anchor="end"))
    told = (
        f"Accuracy in percent, with 95 % intervals. Models: {'; '.join(line.title for line in lines)}. {note}"
    )
    return drawing(width, below + 6, "Accuracy by subtask, as bars", told, *parts, name="bars", narrow=narrow)


@dataclass(frozen=True, slots=True)
class Box:
    """Where a row of bars stands, from the left edge."""

    top: float
    width: float
    height: float


def _bar_row(
    lines: Sequence[Line], heads: Sequence[tuple[str, str, str]], box: Box, columns: int
) -> list[str]:
    """Groups of bars beside each other, with their scale."""
    left, apart, base = 34.0, 18.0, box.top + box.height - 44
    group = (box.width - left - apart) / columns
    bar = min(34.0, (group - 16) / max(len(lines), 1))

    def at(value: float) -> float:
        return base - value / 100 * (box.height - 60)

    parts = []
    for value in range(0, 101, 20):
        parts.append(tag("line", x1=left, x2=box.width, y1=at(value), y2=at(value), class_="grid"))
        parts.append(words(f"{value}", left - 8, at(value) + 4, class_="tick", text_anchor="end"))
    for i, (key, above, title) in enumerate(heads):
        middle = left + group * (i + 0.5) + (apart if key == AVERAGE else 0)
        if key == AVERAGE and i:
            x = middle - group / 2 - apart / 2
            parts.append(tag("line", x1=x, x2=x, y1=at(100), y2=base + 8, class_="divider"))
        parts.append(words(title, middle, base + 22, class_="name", text_anchor="middle"))
        parts.append(words(above, middle, base + 38, class_="tick", text_anchor="middle"))
        start = middle - bar * len(lines) / 2
        for j, line in enumerate(lines):
            if (e := line.estimates[key]) is not None:
                parts.append(_bar(line, e, start + bar * j, bar, at, f"{above} {title}".strip()))
    return parts


def _bar(line: Line, e: Estimate, x: float, width: float, at: Scale, title: str) -> str:
    middle, inner = x + width / 2, max(width - 3, 2.0)
    cap = min(4.0, inner / 3)
    return tag(
        "g",
        tag(
            "title",
            escape(f"{line.title}, {title}: {e.value:.2f} ({e.low:.2f} to {e.high:.2f}), {e.n:,} questions"),
        ),
        tag(
            "rect",
            x=x + (width - inner) / 2,
            y=at(e.value),
            width=inner,
            height=max(at(0) - at(e.value), 0.5),
            class_="bar",
        ),
        tag("line", x1=middle, x2=middle, y1=at(e.low), y2=at(e.high), class_="whisker"),
        tag("line", x1=middle - cap, x2=middle + cap, y1=at(e.low), y2=at(e.low), class_="whisker"),
        tag("line", x1=middle - cap, x2=middle + cap, y1=at(e.high), y2=at(e.high), class_="whisker"),
        mark(line.place, middle, at(e.value), min(4.2, inner / 2.6)),
        class_=series(line.place),
    )


def _path(points: Sequence[tuple[float, float]], *, closed: bool) -> str:
    if not points:
        return "M0 0"
    return f"M{'L'.join(f'{x:.2f} {y:.2f}' for x, y in points)}{'Z' if closed else ''}"


def _limits(lows: Sequence[float | None], highs: Sequence[float]) -> tuple[int, int]:
    """Tens that enclose everything."""
    floor = 10 * math.floor(min(low for low in lows if low is not None) / 10)
    ceiling = 10 * math.ceil(max(highs) / 10)
    return max(floor, 0), min(max(ceiling, floor + 10), 100)
