"""What a gate demands: margins, levels and sizes, from ``[tool.emit-bench.check]`` or a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from harness.averaging import RULES, Rule
from harness.comparison import METRICS
from harness.errors import BadInput
from harness.panel import CLUSTERS, Cluster

PROJECT_FILE = "pyproject.toml"
_TABLE = "tool.emit-bench.check"


@dataclass(frozen=True)
class Policy:
    """The demands on a run.

    ``strict`` is the default rule: under ``official`` a model that falls silent on hard questions gains.
    """

    margin: float = 1.0  #: points that a score may lose
    alpha: float = 0.05  #: level of the tests; intervals have confidence 1 - alpha
    minimum_questions: int = 50  #: fewer, and a score is not judged
    max_failed: float = 0.01  #: share of a model's questions that may have failed
    rule: Rule = "strict"
    cluster: Cluster = "image"
    models: tuple[str, ...] = ()  #: that have to be in the run; those of the baseline unless given
    margins: Mapping[str, float] = field(default_factory=dict)  #: metric -> margin, for all models
    by_model: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  #: model -> metric -> margin

    def margin_of(self, model: str, metric: str) -> float:
        """Points that this score of this model may lose: the most particular demand counts."""
        own = self.by_model.get(model, {})
        return own.get(metric, own.get("margin", self.margins.get(metric, self.margin)))

    def with_options(self, **options: Any) -> Policy:
        """The same with what the command line says; None leaves a field alone."""
        given = {name: value for name, value in options.items() if value is not None}
        if "margin" in given:  # said now and for this check: it replaces every margin of the file
            given |= {"margins": {}, "by_model": {}}
        return replace(self, **given)


def find_policy(file: Path | None = None, folder: Path | None = None) -> Policy:
    """The policy of a file, else of the nearest ``pyproject.toml`` that has one, else the default.

    Args:
        file: a TOML file, with the keys at its top or under ``[tool.emit-bench.check]``.
        folder: where the search upwards starts; the current folder unless given.

    Raises:
        BadInput: the file is missing or broken, or holds an unknown key or a wrong value.
    """
    if file is not None:
        content = _read(file)
        table = _section(content)
        return _policy(file, content if table is None else table)
    start = (folder or Path.cwd()).resolve()
    for place in (start, *start.parents):
        path = place / PROJECT_FILE
        if path.is_file():
            table = _section(_read(path))
            if table is not None:
                return _policy(path, table)
    return Policy()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path}: there is no such policy file; correct --policy") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: it cannot be read as TOML ({error}); correct the file") from error


def _section(content: Mapping[str, Any]) -> Any:
    found: Any = content
    for name in _TABLE.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _policy(path: Path, table: Any) -> Policy:
    if not isinstance(table, Mapping):
        raise BadInput(f"{path}: [{_TABLE}] must be a table; correct the file")
    known = {f.name.replace("_", "-"): f.name for f in fields(Policy) if f.name != "by_model"}
    given: dict[str, Any] = {}
    for key, value in table.items():
        if key == "model":
            given["by_model"] = _by_model(path, value)
            continue
        if key not in known:
            raise BadInput(f"{path}: {_TABLE}.{key} is unknown; use {', '.join(known)} or model.NAME")
        _require(path, key, value)
        given[known[key]] = tuple(value) if key == "models" else value
    return Policy(**given)


def _by_model(path: Path, table: Any) -> dict[str, Mapping[str, float]]:
    if not isinstance(table, Mapping) or not all(isinstance(part, Mapping) for part in table.values()):
        raise BadInput(f"{path}: {_TABLE}.model must hold one table a model, such as [{_TABLE}.model.emit]")
    for model, margins in table.items():
        _require_margins(path, f"model.{model}", margins, ("margin", *METRICS))
    return dict(table)


def _require_margins(path: Path, name: str, table: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(table, Mapping):
        raise BadInput(f"{path}: {_TABLE}.{name} must be a table of margins; correct the file")
    for key, value in table.items():
        if key not in keys:
            raise BadInput(f"{path}: {_TABLE}.{name}.{key} is unknown; use {', '.join(keys)}")
        if not _is_number(value, 0, 100):
            raise BadInput(f"{path}: {_TABLE}.{name}.{key} is {value!r}; it must be points from 0 to 100")


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _require(path: Path, key: str, value: Any) -> None:
    if key == "margins":
        _require_margins(path, key, value, METRICS)
        return
    checks: dict[str, tuple[bool, str]] = {
        "margin": (_is_number(value, 0, 100), "points from 0 to 100"),
        "alpha": (_is_number(value, 1e-6, 0.5), "a number from 0.000001 to 0.5"),
        "minimum-questions": (type(value) is int and value >= 1, "a whole number from 1"),
        "max-failed": (_is_number(value, 0, 1), "a share from 0 to 1"),
        "rule": (value in RULES, f"one of {', '.join(RULES)}"),
        "cluster": (value in CLUSTERS, f"one of {', '.join(CLUSTERS)}"),
        "models": (
            isinstance(value, list) and all(isinstance(name, str) for name in value),
            "a list of model ids",
        ),
    }
    good, wanted = checks[key]
    if not good:
        raise BadInput(f"{path}: {_TABLE}.{key} is {value!r}; it must be {wanted}")
