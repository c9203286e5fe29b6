"""A run as one self-contained HTML page, and its tables in every format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.renderers import render_csv, render_latex, render_markdown, render_text
from reports.table import Cell, Column, Table, by_dataset, comparison, number

if TYPE_CHECKING:
    from harness.records import Answer
    from harness.scoring import Scores

WORLDS = {
    "mini": "Mini world: rendered images and miniature models. Not comparable with published numbers.",
    "real": "Real world.",
}
FORMATS = {
    "text": (".txt", render_text),
    "markdown": (".md", render_markdown),
    "csv": (".csv", render_csv),
    "latex": (".tex", render_latex),
}


@lru_cache(maxsize=1)
def environment() -> Any:
    """The templates; everything put into them is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_html_table(table: Table) -> str:
    """The table as an HTML fragment, everything escaped."""
    return str(environment().get_template("table.html.jinja").render(table=table))


def _loaded(told: Mapping[str, Any]) -> str:
    """How a model was loaded, where that is not the usual way; empty where it is."""
    parts = [
        f"weights in {told['quantize']}" if told.get("quantize") else "",
        f"computed in {told['dtype']}" if told.get("dtype", "auto") != "auto" else "",
        f"with the adapter {told['adapter']}" if told.get("adapter") else "",
        "" if told.get("backend") in (None, "transformers") else f"by the backend {told['backend']}",
    ]
    return ", ".join(part for part in parts if part)


def run_notes(manifest: Mapping[str, Any], scores: Mapping[str, Scores]) -> tuple[str, ...]:
    """What stands under every table of a run: world, size, protocol with its hash, scoring rule."""
    benchmark, protocol = manifest["benchmark"], manifest["protocol"]
    some = next(iter(scores.values()))
    notes = [
        WORLDS.get(benchmark["world"], benchmark["world"]),
        f"Benchmark {benchmark['name']}, {some.n_questions:,} questions; scoring rule {some.rule}.",
        f"Protocol {protocol['name']} ({protocol['mode']}, {protocol['shots']}-shot), "
        f"sha256 {protocol['digest'][:16]}.",
    ]
    if manifest["status"] != "finished":
        notes.append("The run is not finished: these are its answers so far.")
    small = [name for name, told in manifest["models"].items() if told.get("weights_of") == "mini"]
    if benchmark["world"] == "real" and small:
        notes.append(f"Miniature models, for trying things out; these are no results: {', '.join(small)}.")
    notes += [f"{name}: {said}." for name, told in manifest["models"].items() if (said := _loaded(told))]
    silent = ", ".join(f"{model} {s.n_unanswered}" for model, s in scores.items() if s.n_unanswered)
    if silent:
        notes.append(f"Questions without a letter: {silent}.")
    return tuple(notes)


def outcome_table(
    titles: Mapping[str, str], answers: Mapping[str, tuple[Answer, ...]], notes: tuple[str, ...] = ()
) -> Table:
    """How many questions of each model ended how."""
    kinds = ("answered", "unparsed", "failed")
    columns = (
        Column("model", "Model", numeric=False),
        *(Column(k, k.capitalize(), ranked=False) for k in kinds),
    )
    rows = []
    for model, title in titles.items():
        ended = [str(answer.outcome) for answer in answers[model]]
        rows.append((Cell(title), *(_count(ended.count(kind)) for kind in kinds)))
    return Table("outcomes", "Outcomes", columns, tuple(rows), notes)


def work_table(
    titles: Mapping[str, str], manifest: Mapping[str, Any], notes: tuple[str, ...] = ()
) -> Table | None:
    """The exact work each model did in this run, from the manifest's counters."""
    described = manifest["models"]  # of a run that was cut off, those that came to their end
    counters = {model: described.get(model, {}).get("counters") or {} for model in titles}
    # What no model counted once would only make the table wider.
    keys = list(dict.fromkeys(key for found in counters.values() for key, count in found.items() if count))
    if not keys:
        return None
    columns = (
        Column("model", "Model", numeric=False),
        *(Column(key, key.replace("_", " ").capitalize(), ranked=False) for key in keys),
    )
    rows = []
    for model, title in titles.items():
        values = (counters[model].get(key) for key in keys)
        rows.append((Cell(title), *(_count(value) for value in values)))
    return Table(
        "work",
        "Work done",
        columns,
        tuple(rows),
        (*notes, "Counted, not estimated, over all answers of this table."),
    )


def _count(value: float | None) -> Cell:
    """Whole numbers with thousands separated, others with one decimal."""
    if value is None:
        return number(None)
    return Cell(f"{value:,}" if isinstance(value, int) else f"{value:,.1f}", value)


def run_tables(out: Path) -> tuple[dict[str, Any], tuple[Table, ...]]:
    """A run's manifest and its tables, the comparison first.

    Raises:
        BadInput: the folder is no run's, or holds no answer.
    """
    from harness.errors import BadInput
    from harness.run import read_run
    from harness.scoring import AVERAGE, by_chance, score

    manifest, answers = read_run(out)
    answers = {model: given for model, given in answers.items() if given}
    if not answers:
        raise BadInput(f"{out}: the run holds no answer, so there is nothing to report; run it again first")
    scores = {model: score(given) for model, given in answers.items()}
    described = manifest["models"]
    titles = {model: described.get(model, {}).get("title", model) for model in scores}
    scales = {model: described.get(model, {}).get("scale", "-") for model in scores}
    notes = run_notes(manifest, scores)
    guessed = by_chance(next(iter(answers.values()))).rows[AVERAGE][AVERAGE]
    chance = f"Guessing is expected to score {guessed:.2f} on average."
    tables = [comparison(titles, scores, scales, (*notes, chance))]
    tables += [by_dataset(model, titles[model], found, notes) for model, found in scores.items()]
    tables.append(outcome_table(titles, answers, notes))
    work = work_table(titles, manifest, notes)
    return manifest, (*tables, *((work,) if work else ()))


def write_report(
    run: Path,
    out: Path | None = None,
    formats: tuple[str, ...] = ("html", *FORMATS),
    renderers: Mapping[str, tuple[str, Callable[[Table], str]]] = FORMATS,
) -> list[Path]:
    """Write a run's tables and page.

    Args:
        run: the run's folder.
        out: where to; the run's folder unless given.
        formats: ``html``, which is the page, and names of ``renderers``.
        renderers: format -> suffix and function of a table's file; the built-in ones unless given.

    Returns:
        What was written.
    """
    from harness.jsonfiles import write_text

    out = run if out is None else out
    manifest, tables = run_tables(run)
    written = []
    for name in formats:
        if name == "html":
            continue
        suffix, render = renderers[name]
        for table in tables:
            path = out / "tables" / f"{table.name}{suffix}"
            write_text(path, render(table))
            written.append(path)
    if "html" in formats:
        page = (
            environment()
            .get_template("run.html.jinja")
            .render(
                manifest=manifest,
                world=WORLDS.get(manifest["benchmark"]["world"], manifest["benchmark"]["world"]),
                tables=[(table, render_html_table(table)) for table in tables],
                provenance=json.dumps(manifest, indent=2, ensure_ascii=False),
            )
        )
        path = out / "report" / "index.html"
        write_text(path, page)
        written.append(path)
    return written
