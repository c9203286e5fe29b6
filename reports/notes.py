"""What stands under the tables: which world, benchmark, protocol and rule, and what was unusual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.averaging import AVERAGE
from harness.scoring import by_chance
from harness.sources import protocol_words
from harness.text import number_of
from reports.subject import Entry, Subject

WORLDS = {
    "mini": "Mini world: rendered images and miniature models. Not comparable with published numbers.",
    "real": "Real world.",
}
UNKNOWN = "Answer files: which benchmark, world or protocol they are of is not known."


def context(subject: Subject) -> tuple[str, ...]:
    """What every table says: world, benchmark, protocol, rule, and what is unusual about the models."""
    first = subject.entries[0]
    some = subject.scores[first.id]
    images = len({answer.key for answer in first.answers})
    asked = f"{number_of(some.n_questions, 'question')} on {number_of(images, 'image')}"
    asked += f"; scoring rule {some.rule}."
    if not subject.comparable:
        counts = ", ".join(f"{e.title} {subject.scores[e.id].n_questions:,}" for e in subject.entries)
        asked = f"questions asked: {counts}; scoring rule {some.rule}."
    manifest = subject.manifest
    notes = []
    if manifest is None:
        notes += [UNKNOWN, f"{asked[0].upper()}{asked[1:]}"]
    else:
        benchmark = manifest["benchmark"]
        notes.append(WORLDS.get(benchmark["world"], benchmark["world"]))
        digest = f" (sha256 {benchmark['digest'][:16]})"
        notes.append(f"Benchmark {benchmark['name']}{digest}, {asked}")
    notes += dict.fromkeys(_protocols(subject))
    notes += _unfinished(subject)
    notes += _models(subject)
    return tuple(notes)


def row_context(subject: Subject) -> dict[str, str]:
    """The same in columns, where all rows have it in common."""
    scores = subject.scores[subject.entries[0].id]
    told = {"Rule": scores.rule, "Questions": str(scores.n_questions) if subject.comparable else ""}
    manifest = subject.manifest
    if manifest is None:
        return told
    protocols = {source.protocol_digest for source in subject.sources}
    digest = manifest["protocol"]["digest"][:16] if len(protocols) == 1 else ""
    benchmark = manifest["benchmark"]
    return {
        "World": benchmark["world"],
        "Benchmark": f"{benchmark['name']} {benchmark['digest'][:16]}",
        "Protocol": f"{manifest['protocol']['name']} {digest}".strip() if digest else "",
        **told,
    }


def footnotes(subject: Subject) -> tuple[str, ...]:
    """Everything that a score needs beside it to be judged or repeated."""
    notes = [*context(subject)]
    if not subject.comparable:
        notes.append("The models have not answered the same questions, so nothing is ranked or tested.")
    silent = [(e.title, subject.scores[e.id].n_unanswered) for e in subject.entries]
    told = ", ".join(f"{title} {count:,}" for title, count in silent if count)
    if told:
        notes.append(f"Questions without a letter: {told}.")
    if subject.comparable and (chance := guessed(subject)) is not None:
        notes.append(f"Guessing is expected to score {chance:.2f} on average.")
    notes.append(
        f"Intervals: 95 %, {subject.resamples:,} bootstrap resamples of images (seed {subject.seed}); they "
        "tell what other images of the same kind would give, not what another training would."
    )
    return tuple(notes)


def guessed(subject: Subject) -> float | None:
    """What guessing scores; None where no entry tells the options: baselines and some answer files do not."""
    for entry in subject.entries:
        if all(len(answer.options) > 1 for answer in entry.answers):
            return by_chance(entry.answers, subject.rule).rows[AVERAGE][AVERAGE]
    return None


def _protocols(subject: Subject) -> Iterator[str]:
    """One sentence a protocol; with its sources where there are several."""
    told: dict[str, list[str]] = {}
    for source in subject.sources:
        if source.manifest is None:
            continue
        words = protocol_words(source.manifest["protocol"])
        seeded = (
            f", seed {source.manifest['seed']}" if "seed" in source.manifest else ""
        )  # a baseline is silent
        sentence = f"{words[:1].upper()}{words[1:]}{seeded}"
        told.setdefault(sentence, []).append(source.path.resolve().name)
    for sentence, places in told.items():
        where = f" ({', '.join(places)})" if len(told) > 1 else ""
        yield f"{sentence}{where}."
    if told and any(source.manifest is None for source in subject.sources):
        bare = [source.path.name for source in subject.sources if source.manifest is None]
        yield f"Without a word on benchmark or protocol: {', '.join(bare)}."


def _unfinished(subject: Subject) -> Iterator[str]:
    for source in subject.sources:
        if not source.finished:
            which = f" {source.path.resolve().name}" if len(subject.sources) > 1 else ""
            yield f"The run{which} is not finished: these are its answers so far."


def _models(subject: Subject) -> Iterator[str]:
    """Miniature models in the real world, and how models were loaded where that is not the usual way."""
    small = []
    for entry in subject.entries:
        world = (entry.source.manifest or {}).get("benchmark", {}).get("world")
        if world == "real" and entry.told.get("weights_of") == "mini":
            small.append(entry.model)
    if small:
        yield f"Miniature models, for trying things out; these are no results: {', '.join(small)}."
    for entry in subject.entries:
        if said := _loaded(entry):
            yield f"{entry.id}: {said}."


def _loaded(entry: Entry) -> str:
    """How a model was loaded, where that is not the usual way; empty where it is."""
    told: Mapping[str, Any] = entry.told
    other = told.get("weights") if told.get("weights_of", "mini") is None else None
    parts = [
        f"weights {other}" if other else "",
        f"weights in {told['quantize']}" if told.get("quantize") else "",
        f"computed in {told['dtype']}" if told.get("dtype", "auto") != "auto" else "",
        f"with the adapter {told['adapter']}" if told.get("adapter") else "",
        "" if told.get("backend") in (None, "transformers") else f"by the backend {told['backend']}",
    ]
    return ", ".join(part for part in parts if part)
