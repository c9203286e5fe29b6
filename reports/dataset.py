"""A training set in numbers: tables for the terminal, and a page with the paper's figure 7."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.census import COMPONENTS, PUBLISHED_CLASSES, PUBLISHED_QUESTIONS, PUBLISHED_SAMPLES, Census
from harness.errors import BadInput
from harness.jsonfiles import read_json, read_rows, write_text
from harness.subtasks import SUBTASKS
from reports.html import environment, render_html_table
from reports.sunburst import sunburst
from reports.table import Cell, Column, Table

ROWS, MANIFEST = "train.jsonl", "manifest.json"
TITLES = {
    **{name: name.replace("_", " ").capitalize() for name in COMPONENTS},
    **{subtask.key: f"{subtask.group} {subtask.title}" for subtask in SUBTASKS},
}
_TEXTS = ("dataset", "object", "task", "answer")
_PUBLISHED = "Published: the EMIT paper, figure 7."


@dataclass(frozen=True, slots=True)
class Stats:
    """A training set's counts, and its manifest where it has one."""

    name: str
    file: Path
    counts: Mapping[str, Any]
    manifest: Mapping[str, Any] | None

    @property
    def stale(self) -> bool:
        """Whether the manifest tells of other rows than the file holds."""
        return self.manifest is not None and self.manifest.get("counts") != self.counts


def read_stats(place: Path) -> Stats:
    """Count a training set.

    Args:
        place: its folder, or a training file.

    Raises:
        BadInput: there is none, or a line is unfit.
    """
    file = place / ROWS if place.is_dir() else place
    if place.is_dir() and not file.is_file():
        raise BadInput(
            f"{place}: it holds no {ROWS}, so it is no training set; `data build` makes one, `data doctor` "
            "looks at benchmarks"
        )
    census = Census()
    for where, row in read_rows(file):
        wrong = [name for name in _TEXTS if not isinstance(row.get(name), str)]
        if wrong or not isinstance(row.get("options"), dict):
            raise BadInput(f"{where}: it is no sample of a training set; correct {(*wrong, 'options')[0]}")
        census.add(row)
    if not census.tasks:
        raise BadInput(f"{file}: it holds no sample; build a training set first")
    return Stats(file.parent.resolve().name, file, census.as_json(), _manifest(file))


def _manifest(file: Path) -> Mapping[str, Any] | None:
    """The manifest beside a built training file, if it is one."""
    path = file.parent / MANIFEST
    if file.name != ROWS or not path.is_file():
        return None
    content: Any = read_json(path)[0]
    parts = (
        [content.get("counts"), content.get("findings"), content.get("not_asked")]
        if isinstance(content, dict)
        else [0]
    )
    if not all(isinstance(part, dict) for part in parts):
        raise BadInput(f"{path}: it is no manifest of a training set; build it again")
    return dict(content)


def stats_tables(stats: Stats) -> tuple[Table, ...]:
    """Samples and questions beside the published ones, letters, products, and what was left out."""
    counts = stats.counts
    tables = [
        _beside("samples", "Samples", counts["by_component"], PUBLISHED_SAMPLES, counts["samples"]),
        _beside("questions", "Questions", counts["by_task"], PUBLISHED_QUESTIONS, counts["questions"]),
        _letters(counts["letters"]),
        _products(counts["by_object"]),
    ]
    return (*tables, *((_findings(stats.manifest),) if stats.manifest else ()))


def _plain(key: str, title: str, *, numeric: bool = True) -> Column:
    return Column(key, title, numeric=numeric)


def _number(value: Any) -> Cell:
    return Cell(f"{value:,}", value) if isinstance(value, int) else Cell("-")


def _beside(
    name: str, title: str, here: Mapping[str, int], published: Mapping[str, int], whole: int
) -> Table:
    columns = (_plain("kind", title, numeric=False), _plain("here", "Here"), _plain("published", "Published"))
    keys = [key for key in TITLES if key in here or key in published]
    rows = [(Cell(TITLES[key]), _number(here.get(key, 0)), _number(published.get(key))) for key in keys]
    rows.append((Cell("All"), _number(whole), _number(sum(published.values()))))
    return Table(name, title, columns, tuple(rows), (_PUBLISHED,))


def _letters(letters: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Table:
    used = sorted({name for by in letters.values() for found in by.values() for name in found})
    columns = (
        _plain("task", "Right answers", numeric=False),
        _plain("options", "Options"),
        *(_plain(letter, letter) for letter in used),
    )
    rows = [
        (Cell(TITLES.get(task, task)), Cell(options), *(_number(found.get(letter)) for letter in used))
        for task, by_options in letters.items()
        for options, found in by_options.items()
    ]
    return Table("letters", "Letters of the right answers", columns, tuple(rows))


def _products(by_object: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = (
        _plain("product", "Product", numeric=False),
        _plain("samples", "Samples"),
        _plain("questions", "Questions"),
        _plain("defects", "Kinds of defect", numeric=False),
    )
    rows = []
    for name, found in by_object.items():
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in found["defects"].items())
        rows.append((Cell(name), _number(found["samples"]), _number(found["questions"]), Cell(kinds or "-")))
    note = f"{len(by_object):,} products; {PUBLISHED_CLASSES} published."
    return Table("products", "Products", columns, tuple(rows), (note,))


def _findings(manifest: Mapping[str, Any]) -> Table:
    """What building left out, noted, and could not ask."""
    columns = (
        _plain("what", "What", numeric=False),
        _plain("name", "Name", numeric=False),
        _plain("count", "Count"),
    )
    found = manifest.get("findings", {})
    parts = {
        "Left out": found.get("left_out", {}),
        "Noted": found.get("noted", {}),
        "Not asked": manifest.get("not_asked", {}),
    }
    rows = [(Cell(t), Cell(name), _number(n)) for t, part in parts.items() for name, n in part.items()]
    rows = rows or [(Cell("Nothing"), Cell("-"), _number(None))]
    return Table("findings", "What building found", columns, tuple(rows))


def write_page(stats: Stats, out: Path) -> Path:
    """Write the page, self-contained; returns its path."""
    tables = stats_tables(stats)
    page = environment().get_template("dataset.html.jinja").render(
        name=stats.name,
        counts=stats.counts,
        sunburst=sunburst(stats.counts["tree"], TITLES, f"Composition of the training set {stats.name}"),
        tables=[(table, render_html_table(table)) for table in tables],
        provenance=_provenance(stats.manifest),
    )  # fmt: skip
    write_text(out, page)
    return out


def _provenance(manifest: Mapping[str, Any] | None) -> str:
    if manifest is None:
        return ""
    return json.dumps({k: v for k, v in manifest.items() if k != "counts"}, indent=2, ensure_ascii=False)
