"""A benchmark's own training set, built from its raw datasets on first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.cache import cached_folder
from harness.errors import BadInput
from harness.lookup import find
from harness.plugins import Registry
from harness.raw import RawSources
from harness.records import TrainingSource
from trainers.dataset.build import VERSION, Settings, build
from trainers.dataset.describing.plan import PlanSettings
from trainers.dataset.describing.writing import write_with_describer
from trainers.dataset.encoders import open_encoder
from trainers.dataset.inspection import cache_folder
from trainers.dataset.output import ROWS
from trainers.dataset.sources import read_sources
from trainers.dataset.texts import Texts, read_knowledge, read_texts

Record = TypeVar("Record", Settings, PlanSettings)


def prepared(source: TrainingSource, registry: Registry) -> TrainingSource:
    """The source with its file built, in the cache, if it was not there yet.

    Raises:
        BadInput: what it names cannot be read, or a setting is unknown.
    """
    raw = source.content
    if isinstance(raw, Path):
        return source
    known = {field.name for kind in (Settings, PlanSettings) for field in fields(kind)}
    unknown = sorted(set(raw.settings) - known)
    if unknown:
        raise BadInput(f"training set {raw.name}: there is no setting {unknown[0]!r}")

    def make(folder: Path) -> None:
        click.echo(f"emit-bench: building the training set {raw.name}, once", err=True)
        _build(raw, registry, folder)

    places = [[layout, str(root.resolve())] for layout, root in (*raw.sources, *raw.text_sources)]
    about = json.dumps(
        [
            VERSION,
            raw.seed,
            raw.encoder,
            raw.describer,
            sorted(raw.settings.items()),
            places,
            str(raw.knowledge),
        ]
    )
    name = f"{raw.name}-training-set-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    return replace(source, content=cached_folder(name, make) / "set" / ROWS)


def _build(raw: RawSources, registry: Registry, folder: Path) -> None:
    datasets = read_sources(raw.sources, registry.layouts)
    text_datasets = read_sources(raw.text_sources, registry.layouts)
    texts = Texts({}, ())
    if raw.describer is not None:
        written = write_with_describer(
            datasets,
            text_datasets,
            read_knowledge(raw.knowledge) if raw.knowledge is not None else {},
            find(registry.describers, raw.describer, "describer"),
            folder / "texts",
            raw.seed,
            _settings(PlanSettings(), raw.settings),
        )
        if written.missing:
            task, checked = written.missing[0]
            raise BadInput(
                f"training set {raw.name}: {len(written.missing)} texts are missing; {task}: {checked.reason}"
            )
        texts = read_texts(folder / "texts")
    build(
        datasets,
        folder / "set",
        replace(_settings(Settings(), raw.settings), seed=raw.seed),
        open_encoder(raw.encoder),
        cache_folder(),
        text_datasets=text_datasets,
        texts=texts,
        link=True,
    )


def _settings(default: Record, said: Mapping[str, str]) -> Record:
    """A record of settings from texts, as a plugin gives them."""
    values: dict[str, Any] = {}
    for field in fields(default):
        if field.name not in said:
            continue
        text, kind = said[field.name], type(getattr(default, field.name))
        values[field.name] = text.lower() in ("true", "1", "yes") if kind is bool else kind(text)
    return replace(default, **values)
