"""The registry: finds plugins, keeps the broken ones apart, and answers "which models are there?".

Built-ins and other packages come in through the same entry-point group. A plugin that cannot be imported,
does not fit the hook specifications, raises in a hook, or names what another plugin already provides is
quarantined: it is listed with its distribution and error, and everything else works.

>>> from harness.plugins import load_registry
>>> "random-choice" in load_registry().models
True
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import pluggy

from harness import hookspecs
from harness.errors import BadInput
from harness.hookspecs import (
    ENTRY_POINT_GROUP,
    BackendSpec,
    BenchmarkSpec,
    DescriberSpec,
    LayoutSpec,
    ModelSpec,
    RecipeSpec,
    RendererSpec,
)
from harness.lookup import find, suggest
from harness.protocol import Protocol
from harness.records import LoadRequest, Model

if TYPE_CHECKING:
    import click

OWN_DISTRIBUTION = "emit-bench"

#: Hook that provides specs -> their type, and the attribute that names one.
_PROVIDERS: dict[str, tuple[type[Any], str]] = {
    "emit_bench_models": (ModelSpec, "id"),
    "emit_bench_benchmarks": (BenchmarkSpec, "name"),
    "emit_bench_protocols": (Protocol, "name"),
    "emit_bench_backends": (BackendSpec, "name"),
    "emit_bench_recipes": (RecipeSpec, "name"),
    "emit_bench_layouts": (LayoutSpec, "name"),
    "emit_bench_describers": (DescriberSpec, "name"),
    "emit_bench_renderers": (RendererSpec, "name"),
}

#: Names become arguments and file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point of the group, and how it fared."""

    name: str
    origin: str  #: the module it names
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    state: Literal["active", "quarantined"] = "active"
    error: str = ""

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}"


class _Unfit(Exception):
    """A plugin does not fit; the message says why."""


class Registry:
    """All plugins that work, and what they provide.

    Args:
        entry_points: where plugins come from; those of the installed packages unless given.
    """

    def __init__(self, entry_points: Iterable[metadata.EntryPoint] | None = None) -> None:
        self.manager = pluggy.PluginManager(ENTRY_POINT_GROUP)
        self.manager.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        found = metadata.entry_points(group=ENTRY_POINT_GROUP) if entry_points is None else entry_points
        for entry_point in sorted(found, key=_load_order):
            self._admit(entry_point)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin found, the quarantined among them, after all have been asked what they provide."""
        _ = self._provided
        return tuple(self._plugins.values())

    @property
    def quarantined(self) -> tuple[Plugin, ...]:
        """The plugins known so far not to work."""
        return tuple(plugin for plugin in self._plugins.values() if plugin.state == "quarantined")

    @property
    def models(self) -> Mapping[str, ModelSpec]:
        """Model id -> model."""
        return self._provided["emit_bench_models"]

    @property
    def benchmarks(self) -> Mapping[str, BenchmarkSpec]:
        """Benchmark name -> benchmark."""
        return self._provided["emit_bench_benchmarks"]

    @property
    def protocols(self) -> Mapping[str, Protocol]:
        """Protocol name -> protocol."""
        return self._provided["emit_bench_protocols"]

    @property
    def backends(self) -> Mapping[str, BackendSpec]:
        """Backend name -> backend."""
        return self._provided["emit_bench_backends"]

    @property
    def recipes(self) -> Mapping[str, RecipeSpec]:
        """Recipe name -> training recipe."""
        return self._provided["emit_bench_recipes"]

    @property
    def layouts(self) -> Mapping[str, LayoutSpec]:
        """Layout name -> layout of a raw dataset."""
        return self._provided["emit_bench_layouts"]

    @property
    def describers(self) -> Mapping[str, DescriberSpec]:
        """Describer name -> offline describer."""
        return self._provided["emit_bench_describers"]

    @property
    def renderers(self) -> Mapping[str, RendererSpec]:
        """Renderer name -> renderer."""
        return self._provided["emit_bench_renderers"]

    def select_models(self, patterns: str | Iterable[str]) -> tuple[ModelSpec, ...]:
        """The models that ``--models`` names: ids, ``all``, or globs, each once, in the order given.

        Raises:
            BadInput: an id is unknown or a glob matches nothing.
        """
        words = patterns.split(",") if isinstance(patterns, str) else patterns
        wanted = [word.strip() for word in words if word.strip()]
        chosen: dict[str, ModelSpec] = {}
        for pattern in wanted:
            glob = "*" if pattern == "all" else pattern
            matching = [name for name in self.models if fnmatch.fnmatchcase(name, glob)]
            if not matching:
                find(self.models, pattern, "model")
            chosen.update((name, self.models[name]) for name in matching)
        if not chosen:
            raise BadInput("no model is named; pass --models with an id, a glob or all")
        return tuple(chosen.values())

    def add_commands(self, cli: click.Group) -> None:
        """Let every plugin add sub-commands; one that fails or replaces a command is quarantined."""
        for name in list(self._plugins):
            if self._plugins[name].state == "quarantined":
                continue
            before = dict(cli.commands)
            try:
                self._call(name, "emit_bench_commands", cli=cli)
                replaced = sorted(key for key in before if cli.commands.get(key) is not before[key])
                if replaced:
                    raise _Unfit(f"it replaces the command {replaced[0]!r}")
            except (Exception, SystemExit) as error:
                cli.commands = before
                self._quarantine(name, error)

    def notify(self, hook: str, **arguments: Any) -> tuple[Plugin, ...]:
        """Call an observer hook of every plugin; returns the plugins that raised, now quarantined."""
        failed = []
        for name in list(self._plugins):
            if self._plugins[name].state == "quarantined" or hook not in self._plugins[name].hooks:
                continue
            try:
                self._call(name, hook, **arguments)
            except Exception as error:
                failed.append(self._quarantine(name, error))
        return tuple(failed)

    def _admit(self, entry_point: metadata.EntryPoint) -> None:
        distribution = entry_point.dist
        plugin = Plugin(
            name=entry_point.name,
            origin=entry_point.value,
            distribution=distribution.name if distribution else "unknown",
            version=distribution.version if distribution else "unknown",
        )
        if plugin.name in self._plugins:
            other = self._plugins[plugin.name]
            error = f"its name is taken by {other}"
            self._plugins[f"{plugin.name} ({plugin.distribution})"] = replace(
                plugin, state="quarantined", error=error
            )
            return
        self._plugins[plugin.name] = plugin
        try:
            self.manager.register(entry_point.load(), plugin.name)
            callers = self.manager.get_hookcallers(self.manager.get_plugin(plugin.name)) or []
            unknown = [caller.name for caller in callers if not caller.has_spec()]
            if unknown:
                raise _Unfit(suggest(f"there is no hook {unknown[0]!r}", unknown[0], dir(hookspecs)))
        except (Exception, SystemExit) as error:
            self._quarantine(plugin.name, error)
        else:
            hooks = tuple(sorted(caller.name for caller in callers))
            self._plugins[plugin.name] = replace(plugin, hooks=hooks)

    def _quarantine(self, name: str, error: BaseException) -> Plugin:
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        said = str(error).strip().splitlines()
        text = said[0] if said else "no message"
        reason = text if isinstance(error, _Unfit) else f"{type(error).__name__}: {text}"
        self._plugins[name] = replace(self._plugins[name], state="quarantined", error=reason)
        return self._plugins[name]

    def _call(self, name: str, hook: str, **arguments: Any) -> list[Any]:
        """Call one plugin's implementation of a hook."""
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name and plugin]
        caller = self.manager.subset_hook_caller(hook, others)
        results: list[Any] = caller(**arguments)
        return results

    @cached_property
    def _provided(self) -> dict[str, dict[str, Any]]:
        provided: dict[str, dict[str, Any]] = {hook: {} for hook in _PROVIDERS}
        owners: dict[tuple[str, str], str] = {}
        for name in list(self._plugins):
            if self._plugins[name].state == "quarantined":
                continue
            try:
                offered = {hook: self._offers(name, hook) for hook in _PROVIDERS}
                for hook, specs in offered.items():
                    for key in specs:
                        if (hook, key) in owners:
                            kind = _PROVIDERS[hook][0].__name__.removesuffix("Spec").lower()
                            raise _Unfit(f"{kind} {key!r} is already provided by {owners[hook, key]}")
            except (Exception, SystemExit) as error:
                self._quarantine(name, error)
                continue
            for hook, specs in offered.items():
                provided[hook].update(specs)
                owners.update(((hook, key), str(self._plugins[name])) for key in specs)
        return provided

    def _offers(self, name: str, hook: str) -> dict[str, Any]:
        kind, attribute = _PROVIDERS[hook]
        specs: dict[str, Any] = {}
        if hook not in self._plugins[name].hooks:
            return specs
        for offered in self._call(name, hook):
            for spec in offered:
                if not isinstance(spec, kind):
                    raise _Unfit(f"{hook} gives a {type(spec).__name__}, not a {kind.__name__}")
                key = getattr(spec, attribute)
                if not _NAME.fullmatch(key):
                    raise _Unfit(
                        f"{hook} gives {key!r}: a name is letters, digits, dots, dashes, underscores"
                    )
                if key in specs:
                    raise _Unfit(f"{hook} gives {key!r} twice")
                specs[key] = spec
        return specs


def _load_order(entry_point: metadata.EntryPoint) -> tuple[bool, str, str]:
    """Built-ins first, so that nobody replaces one by being found earlier."""
    distribution = entry_point.dist.name if entry_point.dist else ""
    return distribution != OWN_DISTRIBUTION, distribution, entry_point.name


def load_model(spec: ModelSpec, request: LoadRequest, registry: Registry) -> Model:
    """Load a model, if its backend can run here.

    Raises:
        BadInput: the backend is unknown or lacks something, or the model cannot be loaded.
    """
    if spec.backends:
        missing = find(registry.backends, request.backend, "backend").available()
        if missing:
            raise BadInput(f"backend {request.backend!r} cannot run here: {missing}")
    return spec.load(request)


@lru_cache(maxsize=1)
def load_registry() -> Registry:
    """The registry of this process, made on first use."""
    return Registry()
