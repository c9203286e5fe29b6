"""Figures of an experiment: drawings that stand alone, in light and in dark, without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from harness.averaging import AVERAGE
from harness.replication import SeedDifference
from reports.experiment.findings import STRATUM_TITLES, Claim, Findings
from reports.svg import tag, words

WIDTH = 860.0
_LEFT, _RIGHT, _TOP = 304.0, 24.0, 44.0
_ROW, _GAP = 26.0, 12.0
#: A browser draws an SVG file apart from the page around it, so it brings its colours along.
_STYLE = """
text { font: 13px system-ui, "Segoe UI", sans-serif; fill: #1c2430; }
.head { font-weight: 600; } .tick { fill: #5b6675; font-size: 12px; }
.grid { stroke: #dfe4ea; } .zero { stroke: #5b6675; stroke-dasharray: 4 3; }
.run { fill: #0e7490; fill-opacity: .55; } .mean { stroke: #1c2430; stroke-width: 3; }
.whisker { stroke: #0e7490; stroke-width: 2; }
.told { fill: #0e7490; } .open { fill: #fff; stroke: #0e7490; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6ebf2; } .tick { fill: #9aa7b8; } .grid { stroke: #2c3644; } .zero { stroke: #9aa7b8; }
  .run { fill: #5cc8de; } .mean { stroke: #e6ebf2; } .whisker { stroke: #5cc8de; } .told { fill: #5cc8de; }
  .open { fill: #10161e; stroke: #5cc8de; }
}
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a figure: its name, and what is drawn at its height on the scale."""

    name: str
    draw: Callable[[Callable[[float], float], float], Sequence[str]]
    told: str  #: for a screen reader
    head: bool = False  #: a heading above others, with nothing drawn


def experiment_figures(findings: Findings) -> dict[str, str]:
    """Name -> SVG: ``runs``, and as far as there are comparisons ``claims`` and ``strata``."""
    figures = {"runs": _runs(findings)}
    claims = [claim for claim in findings.claims if _is_known(claim.found)]
    if claims:
        figures["claims"] = _claims(claims)
    if known := [claim for claim in findings.strata_claims if _is_known(claim.found)]:
        figures["strata"] = _strata(findings, [claim for claim in known if claim.primary] or known)
    return figures


def _runs(findings: Findings) -> str:
    """Every run's average as a point, every arm's mean as a bar."""
    rows, values = [], []
    for arm in findings.arms:
        found = [float(value) for value in findings.runs.values(arm.id, AVERAGE)]
        mean = sum(found) / len(found)
        values += found
        told = f"{arm.title}: {', '.join(f'{value:.1f}' for value in sorted(found))}, mean {mean:.1f}"
        rows.append(_Row(arm.title, _points(found, mean, told), told))
    return _figure("Average accuracy (%) of every run; bars are means over seeds", rows, values)


def _points(
    values: Sequence[float], mean: float, told: str
) -> Callable[[Callable[[float], float], float], Sequence[str]]:
    def draw(at: Callable[[float], float], y: float) -> Sequence[str]:
        return (
            tag("title", escape(told)),
            *(tag("circle", cx=at(value), cy=y, r=5, class_="run") for value in values),
            tag("line", x1=at(mean), x2=at(mean), y1=y - 9, y2=y + 9, class_="mean"),
        )

    return draw


def _claims(claims: Sequence[Claim]) -> str:
    """Differences with their intervals; those that hold are filled."""
    rows = []
    for primary, head in ((True, "Primary"), (False, "Secondary")):
        chosen = [claim for claim in claims if claim.primary == primary]
        if chosen:
            rows.append(_Row(head, lambda at, y: (), "", head=True))
        for claim in chosen:
            told = f"{claim.title}: {_told(claim.found)}, {claim.verdict}"
            rows.append(_Row(claim.title, _interval(claim.found, told, claim.told), told))
    return _figure(
        "Difference of averages (points) with 95 % intervals over seeds and images; filled: told from 0",
        rows,
        [0.0, *(end for claim in claims for end in (claim.found.low, claim.found.high))],
    )


def _strata(findings: Findings, claims: Sequence[Claim]) -> str:
    """Where a difference lies: by how often a question was answered correctly before stage 2."""
    rows, ends = [], [0.0]
    for claim in claims:
        rows.append(_Row(claim.title.replace(" > ", " - "), lambda at, y: (), "", head=True))
        for title, one in zip(STRATUM_TITLES, findings.in_strata(claim), strict=True):
            if one is None or not _is_known(one):
                continue
            told = f"{claim.title}, {title}: {_told(one)}"
            ends += [one.low, one.high]
            filled = claim.finished and (one.low > 0 or one.high < 0)
            rows.append(_Row(title, _interval(one, told, filled), told))
    return _figure(
        "Difference of accuracies (points) by how often a question was answered correctly before stage 2",
        rows,
        ends,
    )


def _is_known(one: SeedDifference) -> bool:
    return not math.isnan(one.low)


def _told(one: SeedDifference) -> str:
    return f"{one.delta:+.2f} ({one.low:+.2f} to {one.high:+.2f})"


def _interval(
    one: SeedDifference, told: str, filled: bool
) -> Callable[[Callable[[float], float], float], Sequence[str]]:
    def draw(at: Callable[[float], float], y: float) -> Sequence[str]:
        return (
            tag("title", escape(told)),
            tag("line", x1=at(one.low), x2=at(one.high), y1=y, y2=y, class_="whisker"),
            tag("circle", cx=at(one.delta), cy=y, r=5, class_="told" if filled else "open"),
        )

    return draw


def _figure(title: str, rows: Sequence[_Row], values: Sequence[float]) -> str:
    """A scale along the bottom, a title above, and a row for each."""
    step = next(s for s in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0) if s * 12 >= max(values) - min(values))
    floor, ceiling = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    ceiling = max(ceiling, floor + step)

    def at(value: float) -> float:
        return _LEFT + (value - floor) / (ceiling - floor) * (WIDTH - _LEFT - _RIGHT)

    heights, y = [], _TOP
    for i, row in enumerate(rows):
        y += _GAP if row.head and i else 0
        heights.append(y + _ROW / 2)
        y += _ROW
    parts = [words(title, 12.0, 22.0, class_="head")]
    for i in range(round((ceiling - floor) / step) + 1):
        value = floor + i * step
        kind = "zero" if value == 0 and floor < 0 else "grid"
        parts.append(tag("line", x1=at(value), x2=at(value), y1=_TOP, y2=y, class_=kind))
        parts.append(words(f"{value:g}", at(value), y + 18, class_="tick", text_anchor="middle"))
    for row, height in zip(rows, heights, strict=True):
        name = row.name if len(row.name) <= 40 else f"{row.name[:39]}\u2026"
        where = {"class_": "head"} if row.head else {"text_anchor": "end"}
        parts.append(words(name, 12.0 if row.head else _LEFT - 14, height + 4.5, **where))
        if not row.head:
            parts.append(tag("g", *row.draw(at, height)))
    described = "; ".join(row.told for row in rows if row.told)
    return (
        tag(
            "svg",
            tag("title", escape(title), id="title"),
            tag("desc", escape(described), id="desc"),
            tag("style", _STYLE),
            *parts,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {WIDTH:g} {y + 30:g}",
            width=f"{WIDTH:g}",
            role="img",
            aria_labelledby="title desc",
        )
        + "\n"
    )
