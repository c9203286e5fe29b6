"""The report as one HTML page that opens from disk, with a sibling folder of pictures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from harness.averaging import AVERAGE, COLUMNS
from harness.jsonfiles import write_text
from harness.subtasks import OBJECT_SUBTASKS, SUBTASKS
from reports.explorer import figures
from reports.explorer.audits import AuditResult, audit_tables
from reports.explorer.catalogue import Catalogue
from reports.explorer.data import CHUNK, chunks, columns, inert, pack, wordings
from reports.explorer.drill import METRICS, drill
from reports.explorer.groups import dimensions
from reports.explorer.matrix import matrices
from reports.explorer.pictures import FOLDER, find_gallery, heat_scales, show
from reports.notes import UNKNOWN, WORLDS, guessed
from reports.ranking import ranks
from reports.subject import Subject
from reports.svg import swatch
from reports.table import Table
from reports.tables import DATASETS

#: Tables for who wants to know how the run went; not results.
LEDGER = ("outcomes", "work")
STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parents[1] / "templates"
STYLES = (TEMPLATES / "base.css", STATIC / "page.css", STATIC / "questions.css")
SCRIPTS = tuple(STATIC / f"{name}.js" for name in ("page", "columns", "drill", "list", "item", "main"))
TITLES = {AVERAGE: "Average", **{s.key: f"{s.group} {s.title}".lower().capitalize() for s in SUBTASKS}}


@dataclass(frozen=True, slots=True)
class Assets:
    """The page's one style and one script, and the policy that lets nothing else in."""

    css: str
    script: str

    @property
    def policy(self) -> str:
        """The content security policy: both by their hashes, pictures from files beside it, nothing else."""
        return (
            f"default-src 'none'; script-src '{_hash(self.script)}'; style-src '{_hash(self.css)}'; "
            "img-src 'self' file: data:; base-uri 'none'; form-action 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )


def assets() -> Assets:
    """Read and join the files that the page is made with."""
    script = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    css = "\n".join(path.read_text(encoding="utf-8") for path in STYLES)
    return Assets(css, f'"use strict";\n(() => {{\n{script}\n}})();\n')


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write_page(
    subject: Subject,
    tables: Sequence[Table],
    out: Path,
    *,
    data: Path | None = None,
    audits: Sequence[AuditResult] = (),
) -> Path:
    """Write ``report/index.html`` and its pictures.

    Args:
        subject: what the report is about.
        tables: the first is the comparison.
        out: the folder that gets the folder ``report``.
        data: the benchmark's folder, for its images; where the run found it unless given. What is not at hand
            is left out of the page.
        audits: what audits of the benchmark found.

    Returns:
        The page.

    Raises:
        BadInput: ``data`` is no benchmark, or another one.
    """
    from reports.html import environment

    folder = out / "report"
    shown = show(subject, find_gallery(subject, data), folder / FOLDER)
    catalogue = Catalogue(subject)
    found = dimensions(catalogue, shown)
    made = assets()
    content = {
        "assets": made,
        "subject": subject,
        "manifest": subject.manifest,
        "world": _world(subject),
        "facts": _facts(subject, catalogue),
        "headline": _headline(subject),
        "parts": _parts(tables),
        "notes": _shared_notes(tables),
        "matrices": matrices(subject),
        "titles": TITLES,
        "audits": audit_tables(audits),
        "columns": inert(_columns(subject, catalogue, found, shown)),
        "wordings": pack(wordings(catalogue)),
        "drill": pack(drill(catalogue, found, subject.rule)),
        "chunks": chunks(catalogue, shown),
        "provenance": _provenance(subject),
        **_figures(subject),
    }
    page = environment().get_template("report.html.jinja").render(content)
    path = folder / "index.html"
    write_text(path, page)
    return path


@dataclass(frozen=True, slots=True)
class Part:
    """A table as the page shows it."""

    table: Table
    html: str
    notes: tuple[str, ...]  #: that no other table has


def _parts(tables: Sequence[Table]) -> dict[str, list[Part]]:
    """The tables by where they stand: open, or below one of two folds."""
    from reports.html import render_html_table

    shared = frozenset(_shared_notes(tables))
    found: dict[str, list[Part]] = {"open": [], "dataset": [], "ledger": []}
    for table in tables:
        place = "dataset" if table.name.startswith(DATASETS) else "ledger" if table.name in LEDGER else "open"
        own = tuple(dict.fromkeys(note for note in table.footnotes if note not in shared))
        found[place].append(Part(table, render_html_table(table), own))
    return found


def _shared_notes(tables: Sequence[Table]) -> list[str]:
    """Notes of several tables, which stand once below all of them; the others stand below their own."""
    counts = Counter(note for table in tables for note in dict.fromkeys(table.footnotes))
    return [note for note, count in counts.items() if count > 1 or len(tables) == 1]


def _columns(subject: Subject, catalogue: Catalogue, found: Any, shown: Any) -> dict[str, Any]:
    """The columns, and what the script says around them."""
    return {
        "models": [{"id": e.id, "title": e.title, "scale": e.scale} for e in subject.entries],
        "metrics": [{"key": key, "title": TITLES[key]} for key in METRICS],
        "subtasks": [{"key": s.key, "title": TITLES[s.key]} for s in SUBTASKS],
        "chunk": CHUNK,
        "heat": heat_scales(shown, len(subject.entries)),
        "alone": _asked_alone(subject),
        **columns(catalogue, found, shown),
    }


def _asked_alone(subject: Subject) -> list[int]:
    """Subtasks that the protocol asks about with the query alone, where a reference is shown for others."""
    protocol = (subject.manifest or {}).get("protocol", {})
    alone = OBJECT_SUBTASKS if protocol.get("object_images") == "query" else ()
    return [i for i, subtask in enumerate(SUBTASKS) if subtask.key in alone]


def _world(subject: Subject) -> dict[str, str]:
    """Key, badge and sentence of the world that the numbers are of."""
    if subject.manifest is None:
        return {"key": "unknown", "title": "World not known", "sentence": UNKNOWN, "short": ""}
    world = str(subject.manifest["benchmark"]["world"])
    short = "Mini world: not comparable with published numbers" if world == "mini" else ""
    return {
        "key": world if world in WORLDS else "unknown",
        "title": f"{world.capitalize()} world",
        "sentence": WORLDS.get(world, world).removeprefix(f"{world.capitalize()} world").lstrip(":. "),
        "short": short,
    }


def _facts(subject: Subject, catalogue: Catalogue) -> list[tuple[str, str, str]]:
    """What the numbers are of: name, value, and what is said in small behind it."""
    facts = []
    if subject.manifest is not None:
        benchmark, protocol = subject.manifest["benchmark"], subject.manifest["protocol"]
        facts += [
            ("Benchmark", str(benchmark["name"]), f"sha256 {benchmark['digest'][:16]}"),
            (
                "Protocol",
                f"{protocol['name']}, {protocol['mode']}, {protocol['shots']}-shot",
                f"sha256 {protocol['digest'][:16]}",
            ),
        ]
    facts += [
        ("Questions", f"{len(catalogue.questions):,}", f"on {len(catalogue.images):,} images"),
        ("Models", f"{len(subject.entries)}", ""),
        ("Scoring rule", subject.rule, ""),
    ]
    if subject.manifest is not None and "seed" in subject.manifest:
        facts.append(("Seed", str(subject.manifest["seed"]), ""))
    facts.append(("Intervals", "95 %", f"{subject.resamples:,} resamples of images, seed {subject.seed}"))
    if not all(source.finished for source in subject.sources):
        facts.append(("State", "not finished", "these are the answers so far"))
    return facts


def _tied(subject: Subject) -> set[str]:
    """The entries that are best on average or cannot be told from the best."""
    if len(subject.entries) < 2 or not subject.comparable:
        return {entry.id for entry in subject.entries}
    at = COLUMNS.index(AVERAGE)
    panel = subject.panel
    found = ranks(panel.percentages()[:, -1, at], subject.replicates[:, :, -1, at], freedom=panel.freedom)
    if not any(found):
        return {entry.id for entry in subject.entries}
    return {name for name, rank in zip(subject.panel.models, found, strict=True) if rank == 1}


def _headline(subject: Subject) -> str:
    """The result in a sentence."""
    found = [(e, s) for e in subject.entries if (s := subject.estimates[e.id].rows[AVERAGE][AVERAGE])]
    if not found:
        return ""
    found.sort(key=lambda pair: -pair[1].value)
    (entry, best), others = found[0], found[1:]
    said = f"{entry.title} scores {best.value:.1f} % averaged over the subtasks "
    said += f"({best.low:.1f} to {best.high:.1f})"
    if not others or not subject.comparable:
        return f"{said}."
    tied = [other.title for other, _ in others if other.id in _tied(subject)]
    if tied and len(tied) == len(others):
        return f"{said}; no model can be told from another on average."
    if tied:
        return f"{said}; it cannot be told from {_listed(tied)}."
    second, runner = others[0]
    return f"{said}, {best.value - runner.value:.1f} points above {second.title}, the next."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _figures(subject: Subject) -> dict[str, Any]:
    """The drawings, and the legend that they share."""
    tied = _tied(subject)
    lines = [
        figures.Line(i, entry.title, entry.scale, subject.estimates[entry.id].rows[AVERAGE], entry.id in tied)
        for i, entry in enumerate(subject.entries)
    ]
    note = _world(subject)["short"]
    chance = guessed(subject)
    return {
        "legend": [(line, swatch(line.place)) for line in lines],
        **{
            name: draw(narrow=False) + draw(narrow=True)  # the style shows the one that fits
            for name, draw in {
                "forest": partial(figures.forest, lines, chance, note),
                "radar": partial(figures.radar, lines, note),
                "bars": partial(figures.bars, lines, note),
            }.items()
        },
    }


def _provenance(subject: Subject) -> list[tuple[str, str]]:
    """Name and manifest of every source that has one."""
    found: list[tuple[str, Mapping[str, Any]]] = [
        (source.path.resolve().name, source.manifest) for source in subject.sources if source.manifest
    ]
    return [(name, json.dumps(manifest, indent=2, ensure_ascii=False)) for name, manifest in found]
