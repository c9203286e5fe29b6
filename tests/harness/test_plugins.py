from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click
import pytest

from harness import BadInput
from harness.hookspecs import ENTRY_POINT_GROUP
from harness.plugins import Registry
from tests.builders import write_distribution

MODEL = """
from harness.hookspecs import ModelSpec, hookimpl

@hookimpl
def emit_bench_models():
    return [ModelSpec({id!r}, "Title", "family", "summary", lambda request: None, lambda request: {{}})]
"""

Install = Callable[..., Registry]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with plugins on sys.path; the registry then has them and the built-ins."""

    def make(modules: dict[str, str], name: str = "acme-plugins") -> Registry:
        points = {module.removeprefix("acme_"): module for module in modules}
        folder = write_distribution(tmp_path / name, name, points, modules)
        monkeypatch.syspath_prepend(str(folder))
        for module in modules:
            monkeypatch.delitem(sys.modules, module, raising=False)
        return Registry(metadata.entry_points(group=ENTRY_POINT_GROUP))

    return make


def state(registry: Registry, name: str) -> tuple[str, str]:
    (plugin,) = (plugin for plugin in registry.plugins if plugin.name == name)
    return plugin.state, plugin.error


def test_built_ins_come_through_the_same_door() -> None:
    registry = Registry()
    assert {"mmad", "random-choice"} <= {plugin.name for plugin in registry.plugins}
    assert "random-choice" in registry.models and "mmad" in registry.benchmarks
    assert {"emit", "mmad"} <= set(registry.protocols)


def test_an_installed_plugin_is_found_with_its_origin(install: Install) -> None:
    registry = install({"acme_model": MODEL.format(id="acme")})
    assert "acme" in registry.models
    (plugin,) = (plugin for plugin in registry.plugins if plugin.name == "model")
    assert (plugin.distribution, plugin.version, plugin.state) == ("acme-plugins", "1.2", "active")
    assert plugin.hooks == ("emit_bench_models",)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise SystemExit(1)", "SystemExit"),
        ("def broken(:", "SyntaxError"),
        (MODEL.replace("def emit_bench_models", "def emit_bench_model").format(id="x"), "did you mean"),
        (MODEL.replace("models()", "models(colour)").format(id="x"), "PluginValidationError"),
        (MODEL.replace("return [", "return [3, ").format(id="x"), "gives a int, not a ModelSpec"),
        (MODEL.replace("return", "raise OSError('disk') #").format(id="x"), "OSError: disk"),
        (MODEL.format(id="random-choice"), "'random-choice' is already provided by plugin 'random-choice'"),
        (MODEL.format(id="../x"), "a name is letters"),
    ],
)
def test_a_broken_plugin_is_quarantined_and_the_rest_works(install: Install, source: str, error: str) -> None:
    registry = install({"acme_bad": source, "acme_fine": MODEL.format(id="fine")})
    found, said = state(registry, "bad")
    assert found == "quarantined" and error in said
    assert {"fine", "random-choice"} <= set(registry.models)
    assert registry.models["random-choice"].title == "Random choice"
    assert "x" not in registry.models
    assert any(plugin.name == "bad" for plugin in registry.quarantined)


def test_two_outsiders_with_one_model_id(install: Install) -> None:
    registry = install({"acme_a": MODEL.format(id="same"), "acme_b": MODEL.format(id="same")})
    assert state(registry, "a")[0] == "active"
    assert "already provided by plugin 'a' of acme-plugins 1.2" in state(registry, "b")[1]


def test_commands_may_be_added_but_not_replaced(install: Install) -> None:
    source = (
        "import click\nfrom harness.hookspecs import hookimpl\n"
        "@hookimpl\ndef emit_bench_commands(cli):\n    cli.add_command(click.Command({name!r}))\n"
    )
    registry = install({"acme_new": source.format(name="new"), "acme_old": source.format(name="run")})
    original = click.Command("run")
    cli = click.Group(commands={"run": original})
    registry.add_commands(cli)
    assert {"run", "new"} <= set(cli.commands) and cli.commands["run"] is original
    assert state(registry, "old") == ("quarantined", "it replaces the command 'run'")


def test_an_observer_that_raises_is_left_out_from_then_on(install: Install) -> None:
    source = (
        "from harness.hookspecs import hookimpl\ncalls = []\n"
        "@hookimpl\ndef emit_bench_run_started(run):\n    calls.append(run)\n    raise KeyError('x')\n"
    )
    registry = install({"acme_watch": source})
    (broken,) = registry.notify("emit_bench_run_started", run=1)
    assert broken.name == "watch" and "KeyError" in broken.error
    assert registry.notify("emit_bench_run_started", run=2) == ()
    assert sys.modules["acme_watch"].calls == [1]


def test_models_are_selected_by_id_glob_and_all(install: Install) -> None:
    registry = install({"acme_a": MODEL.format(id="zebra-1"), "acme_b": MODEL.format(id="zebra-2")})

    def ids(patterns: str) -> list[str]:
        return [spec.id for spec in registry.select_models(patterns)]

    assert ids("zebra-2, zebra-1") == ["zebra-2", "zebra-1"]
    assert ids("zebra-*,zebra-1") == ["zebra-1", "zebra-2"]
    assert set(ids("all")) == set(registry.models)
    with pytest.raises(BadInput, match="there is no model 'zebra-3'; did you mean zebra-2 or zebra-1"):
        ids("zebra-3")
    with pytest.raises(BadInput, match=r"there is no model 'nothing\*'"):
        ids("nothing*")
    with pytest.raises(BadInput, match="no model is named"):
        ids(" , ")
