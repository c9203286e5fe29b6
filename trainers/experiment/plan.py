"""An experiment's plan: a TOML file with the arms, their seeds, and what is asked of them.

Arms differ in recipe, preset, settings and mode and in nothing else: benchmark, training set, base and the
settings of ``[settings]`` are those of the plan.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import BadInput
from harness.records import MODES, Mode

#: Folders of an experiment's results that are no arm's.
RESERVED = ("again", "experiment.json", "figures", "results", "stage1", "strata.json.gz", "tables")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
#: A field's annotation -> its type in the file, and what a sentence calls that.
_TYPES = {
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
    "Mapping[str, Any]": (dict, "a table"),
}
Record = TypeVar("Record", "Arm", "Evaluation", "Strata", "Comparison")


@dataclass(frozen=True)
class Arm:
    """One row of the experiment."""

    id: str
    title: str
    recipe: str = ""  #: of ``emit-bench train``; empty: the base as it is
    seeds: int = 1  #: 0, 1, …: the same seeds draw the same order of questions in every arm
    preset: str = "paper"
    settings: Mapping[str, Any] = field(default_factory=dict)  #: as ``--set``, over those of the plan
    ships: str = ""  #: the model id whose weights the arm's median seed becomes
    mode: str = ""  #: how it is to answer, where that is not the plan's way: as it was taught

    def __post_init__(self) -> None:
        _require(bool(_NAME.fullmatch(self.id)), f"arm {self.id!r}", "small letters, digits, dots and dashes")
        _require(bool(self.title.strip()), f"arm {self.id}: title", "a text")
        _require(self.seeds > 0, f"arm {self.id}: seeds", "1 or more")
        _require(bool(self.recipe) or self.seeds == 1, f"arm {self.id}: seeds", "1, for the base has one")
        _require(self.mode in ("", *MODES), f"arm {self.id}: mode", f"one of {', '.join(MODES)}")
        _require(self.id not in RESERVED, f"arm {self.id!r}", f"another name than {', '.join(RESERVED)}")
        if not self.recipe:
            told = {"settings": self.settings, "ships": self.ships, "preset": self.preset != "paper"}
            ignored = next((name for name, value in told.items() if value), "")
            _require(not ignored, f"arm {self.id}: {ignored}", "left away, for the base is not trained")
        _require(
            "seed" not in self.settings, f"arm {self.id}: settings", "without `seed`; `seeds` counts them"
        )


@dataclass(frozen=True)
class Evaluation:
    """What every arm is asked."""

    benchmark: str = "mini"
    data: str = ""  #: the benchmark's folder, where it needs one
    protocol: str = "emit"
    mode: Mode = "think"
    limit: int = 0  #: questions; 0: all

    def __post_init__(self) -> None:
        _require(self.mode in MODES, "evaluation: mode", f"one of {', '.join(MODES)}")
        _require(self.limit >= 0, "evaluation: limit", "0 or more")


@dataclass(frozen=True)
class Strata:
    """How hard each question is: the share of right answers that one arm draws before stage 2."""

    arm: str
    draws: int = 8  #: answers drawn a question, at temperature 1

    def __post_init__(self) -> None:
        _require(self.draws > 0, "strata: draws", "1 or more")


@dataclass(frozen=True)
class Comparison:
    """A claim that is fixed beforehand: ``better`` scores higher on average than ``worse``."""

    better: str
    worse: str
    primary: bool = True  #: whether it is one of those that Holm corrects for each other

    def __post_init__(self) -> None:
        _require(self.better != self.worse, f"comparisons: {self.better}", "compared with another arm")


@dataclass(frozen=True)
class Plan:
    """The whole experiment."""

    path: Path
    name: str
    title: str
    training: str  #: the benchmark whose training set is learnt from
    data: str  #: a training file of one's own; empty: what the benchmark brings
    base: str  #: a folder or hub id; empty: the world's own
    settings: Mapping[str, Any]
    arms: tuple[Arm, ...]
    evaluation: Evaluation
    strata: Strata | None
    comparisons: tuple[Comparison, ...]


def read_plan(path: Path) -> Plan:
    """A plan from its file.

    Raises:
        BadInput: it cannot be read, or a field is missing, unknown or out of range; the sentence names it.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise BadInput(
            f"{path}: it is no readable plan ({said}); docs/plans.md tells what one holds"
        ) from error
    try:
        return _plan(path, table)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _plan(path: Path, table: Mapping[str, Any]) -> Plan:
    known = {"name", "title", "training", "data", "base", "settings", "arms", "evaluation", "strata"}
    known |= {"comparisons"}
    if unknown := sorted(set(table) - known):
        raise BadInput(f"there is no field {unknown[0]!r}; use {', '.join(sorted(known))}")
    _require("name" in table, "name", "given: small letters, digits, dots and dashes")
    texts = {name: table.get(name, "") for name in ("name", "title", "training", "data", "base")}
    for name, value in texts.items():
        _require(isinstance(value, str), name, "a text")
    _require(bool(_NAME.fullmatch(texts["name"])), "name", "small letters, digits, dots and dashes")
    arms = tuple(_record(Arm, one, _called(one, i)) for i, one in enumerate(_tables(table, "arms"), 1))
    _require(bool(arms), "arms", "a list of tables, at least one")
    ids = [arm.id for arm in arms]
    _require_different("id", ids)
    _require_different("title", [arm.title for arm in arms])
    comparisons = tuple(_record(Comparison, one, "comparisons") for one in _tables(table, "comparisons"))
    pairs = [frozenset((one.better, one.worse)) for one in comparisons]
    _require(len(set(pairs)) == len(pairs), "comparisons", "of different pairs of arms")
    strata = _record(Strata, table["strata"], "strata") if "strata" in table else None
    named = [name for one in comparisons for name in (one.better, one.worse)]
    named += [strata.arm] if strata else []
    for name in named:
        _require(name in ids, f"the arm {name!r}", f"one of {', '.join(ids)}")
    untrained = [arm.id for arm in arms if not arm.recipe]
    _require(strata is None or strata.arm not in untrained, "strata: arm", "one with a recipe")
    settings = table.get("settings", {})
    _require(isinstance(settings, dict), "settings", "a table of keys of `train --set`")
    _require("seed" not in settings, "settings", "without `seed`; an arm's `seeds` counts them")
    return Plan(
        path=path,
        **{**texts, "training": texts["training"] or "mini"},
        settings=flat(settings),
        arms=arms,
        evaluation=_record(Evaluation, table.get("evaluation", {}), "evaluation"),
        strata=strata,
        comparisons=comparisons,
    )


def _called(table: Any, number: int) -> str:
    """What a sentence calls an arm that is not read yet."""
    named = table.get("id") if isinstance(table, dict) else None
    return f"arm {named}" if isinstance(named, str) and named else f"arm number {number}"


def _tables(table: Mapping[str, Any], name: str) -> list[Any]:
    found = table.get(name, [])
    _require(isinstance(found, list), name, "a list of tables")
    return list(found)


def _record(kind: type[Record], table: Any, where: str) -> Record:
    """A table as a record: every field known and of its type."""
    _require(isinstance(table, dict), where, "a table")
    kinds = {one.name: one.type for one in fields(kind)}
    if unknown := sorted(set(table) - set(kinds)):
        raise BadInput(f"{where}: there is no field {unknown[0]!r}; use {', '.join(kinds)}")
    for name, value in table.items():
        wanted, words = _TYPES.get(str(kinds[name]), (str, "a text"))
        _require(type(value) is wanted, f"{where}: {name}", words)
    bare = [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]
    for name in bare:
        _require(name in table, f"{where}: {name}", "given")
    given: Any = {key: flat(value) if isinstance(value, dict) else value for key, value in table.items()}
    return kind(**given)


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys, whether the file has them dotted or as tables.

    >>> flat({"grpo": {"beta": 0.01}, "seed": 1})
    {'grpo.beta': 0.01, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        parts = {f"{key}.{name}": one for name, one in flat(value).items()} if isinstance(value, dict) else {}
        for name, part in (parts or {key: value}).items():
            _require(name not in found, f"settings: {name}", "given once")
            found[name] = part
    return found


def _require_different(field: str, values: Sequence[str]) -> None:
    twice = next((value for value in values if values.count(value) > 1), None)
    _require(twice is None, "arms", f"of different {field}s; two have {twice!r}")


def _require(good: bool, what: str, wanted: str) -> None:
    if not good:
        raise BadInput(f"{what} must be {wanted}")
