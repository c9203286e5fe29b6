"""What a report is about: models' answers from one or several places, and what statistics say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.averaging import Array, Rule
from harness.comparison import Comparison, compare_in
from harness.errors import BadInput
from harness.estimates import RESAMPLES, Estimates, bootstrap, estimate, estimates_of
from harness.panel import Panel
from harness.records import Answer
from harness.scoring import Scores, score
from harness.source_files import read_source
from harness.sources import Source, differences

#: The model that daggers refer to, where it is among those of the report; else its first one.
BASE = "internvl3-base"
LEVEL = 0.05  #: of daggers and ties


@dataclass(frozen=True)
class Entry:
    """One row of the report: a model's answers from one source."""

    id: str  #: unique within the report
    model: str
    title: str
    scale: str
    answers: Sequence[Answer]
    source: Source

    @property
    def told(self) -> Mapping[str, Any]:
        """The model's part of the run's manifest; empty where nothing tells of it."""
        found: Mapping[str, Any] = (self.source.manifest or {}).get("models", {}).get(self.model, {})
        return found


@dataclass(frozen=True)
class Subject:
    """The entries and their statistics, each computed once, when asked for.

    What pairs models (``panel``, ``replicates``, ``against``) is there only where all answered the same
    questions, which is to say where it is ``comparable``; elsewhere it raises :class:`BadInput`.

    Args:
        entries: at least one.
        sources: where they are from.
        rule: of averaging.
        resamples: of every interval.
        seed: of the resampling.
        base_model: id of the entry or model that the others are tested against; :data:`BASE` unless given.
    """

    entries: tuple[Entry, ...]
    sources: tuple[Source, ...]
    rule: Rule = "official"
    resamples: int = RESAMPLES
    seed: int = 0
    base_model: str | None = None

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """Entry -> its table of scores."""
        return {entry.id: score(entry.answers, self.rule) for entry in self.entries}

    @cached_property
    def comparable(self) -> bool:
        """Whether all entries answered the same questions."""
        try:
            return bool(self.panel)
        except BadInput:
            return False

    @cached_property
    def panel(self) -> Panel:
        """All entries on the same questions."""
        return Panel({entry.id: entry.answers for entry in self.entries}, self.rule)

    @cached_property
    def replicates(self) -> Array:
        """Bootstrap tables ``(resamples, entries, datasets + 1, 10)``, the same images for every entry."""
        return bootstrap(self.panel, self.resamples, self.seed)

    @cached_property
    def estimates(self) -> dict[str, Estimates]:
        """Entry -> its scores with intervals."""
        if self.comparable:
            return estimates_of(self.panel, self.replicates)
        answers = {entry.id: entry.answers for entry in self.entries}
        return estimate(answers, self.rule, resamples=self.resamples, seed=self.seed)

    @property
    def base(self) -> Entry:
        """The entry that the others are tested against."""
        wanted = self.base_model or BASE
        return next((entry for entry in self.entries if wanted in (entry.model, entry.id)), self.entries[0])

    @property
    def against_base(self) -> dict[str, Comparison]:
        """Entry -> its paired comparison with the base; the base itself has none."""
        return self.against(self.base.id)

    def against(self, base: str) -> dict[str, Comparison]:
        """Entry -> its paired comparison with another one."""
        if base not in self._comparisons:
            first = self.place(base)
            self._comparisons[base] = {
                entry.id: compare_in(self.panel, first, place, self.replicates, alpha=LEVEL, seed=self.seed)
                for place, entry in enumerate(self.entries)
                if place != first
            }
        return self._comparisons[base]

    @cached_property
    def _comparisons(self) -> dict[str, dict[str, Comparison]]:
        return {}

    def place(self, entry: str) -> int:
        """Position of an entry in the panel."""
        return self.panel.models.index(entry)

    @property
    def manifest(self) -> Mapping[str, Any] | None:
        """What is known of benchmark and protocol, by the first source that tells."""
        return next((source.manifest for source in self.sources if source.manifest is not None), None)


def read_subject(
    paths: Sequence[Path], rule: Rule = "official", base: str | None = None, **options: int
) -> Subject:
    """What a report over these runs and answer files is about.

    Args:
        paths: folders of runs, official answer files, baselines.
        rule: of averaging.
        base: the model that the others are tested against.
        options: ``resamples`` and ``seed`` of :class:`Subject`.

    Raises:
        BadInput: one cannot be read, or is of another benchmark than the others; there is no such base.
    """
    sources = tuple(read_source(path) for path in paths)
    first = next((source for source in sources if source.manifest is not None), sources[0])
    for source in sources:
        told = [text for text in differences(first, source) if text.startswith("the benchmark")]
        if told:
            raise BadInput(f"{told[0]}; report them one by one")
    entries = tuple(_entries(sources))
    if base is not None and not any(base in (entry.model, entry.id) for entry in entries):
        raise BadInput(f"--base {base}: use one of {', '.join(entry.id for entry in entries)}")
    return Subject(entries, sources, rule, base_model=base, **options)


def _entries(sources: Sequence[Source]) -> list[Entry]:
    """Every model of every source; those that are there twice carry the name of their source."""
    pairs = [(source, model) for source in sources for model in source.answers]
    counts = Counter(model for _, model in pairs)
    places = Counter(source.path.resolve().name for source in sources)
    entries: list[Entry] = []
    for source, model in pairs:
        told = (source.manifest or {}).get("models", {}).get(model, {})
        path = source.path.resolve()
        place = path.name if places[path.name] == 1 else f"{path.parent.name}/{path.name}"
        twice = counts[model] > 1
        entries.append(
            Entry(
                id=f"{place}:{model}" if twice else model,
                model=model,
                title=f"{told.get('title', model)} ({place})" if twice else told.get("title", model),
                scale=told.get("scale", "-"),
                answers=source.answers[model],
                source=source,
            )
        )
    ids = Counter(entry.id for entry in entries)
    if repeated := [name for name, count in ids.items() if count > 1]:
        raise BadInput(f"{repeated[0]} is named twice; name every run and answer file once")
    return entries
