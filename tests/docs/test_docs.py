"""The pages say what is: commands parse, hooks are listed, codes and figures are those of the program."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
import pytest

from harness import extract_letter, hookspecs
from harness.cli import make_cli, run_cli
from harness.errors import ExitCode
from harness.hookspecs import ENTRY_POINT_GROUP
from harness.mmad import read_mmad
from harness.plugins import Registry, load_registry
from harness.protocol import Protocol, protocol_from_table
from harness.scoring import RULES
from harness.subtasks import SUBTASK_KEYS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = ROOT / "docs/example_plugin"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language, ``""`` for those without."""
    return [text for name, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(program: str) -> Iterator[Any]:
    """Every command line of a program in a page's blocks, as a test parameter."""
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.splitlines():
                words = shlex.split(line, comments=True) if re.match(r"[\w./]", line) else []
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if " ".join(words).startswith(program):
                    arguments = words[len(program.split()) :]
                    yield pytest.param(arguments, id=f"{page.name}: {' '.join(arguments)}"[:90])


def example() -> ModuleType:
    """The example plugin's module, imported from where it lies."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLE / "emit_bench_first_option.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table_rows(page: Path, head: str) -> list[list[str]]:
    """The rows of the table whose head line starts with ``head``, a list of cells each."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


@pytest.fixture
def silent_cli(monkeypatch: pytest.MonkeyPatch) -> tuple[click.Group, Registry, list[dict[str, Any]]]:
    """The command line with all plugins and the example's; it parses for real, and its commands only note."""
    registry, called = load_registry(), []
    cli = make_cli(registry)
    example().emit_bench_commands(cli)

    def silence(command: click.Command) -> None:
        monkeypatch.setattr(command, "callback", lambda **given: called.append(given))
        for child in getattr(command, "commands", {}).values():
            silence(child)

    for command in cli.commands.values():
        silence(command)
    return cli, registry, called


@pytest.mark.parametrize("arguments", list(commands("emit-bench")))
def test_commands_in_pages_parse(silent_cli: Any, arguments: list[str]) -> None:
    cli, registry, called = silent_cli
    cli.main(arguments, prog_name="emit-bench", standalone_mode=False)
    given = called[-1]
    if given.get("models"):
        ids = [*registry.models, *(spec.id for spec in example().emit_bench_models())]
        for pattern in given["models"].split(","):
            assert any(re.fullmatch(pattern.replace("*", ".*"), name) for name in ids)
        assert given["benchmark"] in (None, *registry.benchmarks)
        assert given["protocol"] in registry.protocols or given["protocol"].endswith(".toml")
        assert all(pair.partition("=")[0] in registry.models for pair in given["weights"])
    if given.get("rule"):
        assert given["rule"] in RULES
    if "formats" in given:
        assert set(given["formats"].split(",")) <= set(registry.renderers)


def test_the_readme_shows_every_command(silent_cli: Any) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cli, _, _ = silent_cli
    built_in = set(make_cli(Registry()).commands)
    named = {f"emit-bench {name}" for name in cli.commands if name in built_in}
    named |= {f"emit-bench data {name}" for name in getattr(cli.commands["data"], "commands", {})}
    assert not {name for name in named if name not in text}


@pytest.mark.parametrize("arguments", list(commands("python -m")))
def test_modules_in_pages_take_these_options(arguments: list[str]) -> None:
    name, *rest = arguments
    if name == "pytest":
        plugin = (ROOT / "harness/pytest_plugin.py").read_text(encoding="utf-8")
        options = [word for word in rest if word.startswith("--emit-")]
        assert all(f'"{option}"' in plugin for option in options)
        assert options or (ROOT / rest[0]).exists()
        return
    module = ROOT / name.replace(".", "/")
    module = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    source = module.read_text(encoding="utf-8")
    for option in (word for word in rest if word.startswith("--")):
        assert f'"{option}"' in source


def test_options_named_in_prose_exist(silent_cli: Any) -> None:
    cli, _, _ = silent_cli

    def options(command: click.Command) -> set[str]:
        own = {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
        return own.union(*(options(child) for child in getattr(command, "commands", {}).values()))

    known = options(cli) | {"--help"}
    known |= {
        f"--{name}"
        for module in (ROOT / "trainers/pretraining").glob("*.py")
        for name in re.findall(r'add_argument\(\s*"--([\w-]+)"', module.read_text(encoding="utf-8"))
    }
    pytest_options = (ROOT / "harness/pytest_plugin.py").read_text(encoding="utf-8")
    known |= {f"--{name}" for name in re.findall(r'addoption\(\s*"--([\w-]+)"', pytest_options)}
    for page in PAGES:
        prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        named = {
            option for code in re.findall(r"`([^`\n]+)`", prose) for option in re.findall(r"--[a-z-]+", code)
        }
        assert named <= known, page.name


def test_every_hook_is_on_the_plugin_authors_page() -> None:
    hooks = {name for name, value in vars(hookspecs).items() if hasattr(value, f"{ENTRY_POINT_GROUP}_spec")}
    assert len(hooks) >= 10
    page = ROOT / "docs/plugins.md"
    listed = {row[0].strip("`") for row in table_rows(page, "| hook |")}
    assert listed == hooks
    text = " ".join([page.read_text(encoding="utf-8"), (EXAMPLE / "emit_bench_first_option.py").read_text()])
    assert set(re.findall(r"\bemit_bench_(?!first_option)\w+", text)) <= hooks


def test_the_page_shows_the_example_as_it_is() -> None:
    page = ROOT / "docs/plugins.md"
    assert (EXAMPLE / "emit_bench_first_option.py").read_text(encoding="utf-8") in blocks(page, "python")
    assert (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8") in blocks(page, "toml")


def test_exit_codes_are_those_of_the_program() -> None:
    rows = table_rows(ROOT / "README.md", "| code |")
    assert {(int(code), name) for code, name, _ in rows} == {(code.value, code.name) for code in ExitCode}


def test_scoring_rules_are_those_of_the_program() -> None:
    rows = table_rows(ROOT / "README.md", "| `--rule` |")
    assert tuple(row[0].split()[0].strip("`") for row in rows) == RULES


def test_the_readme_shows_what_the_guesser_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one table in the README is what its command prints; it changes with the mini world's version."""
    (shown,) = (block for block in blocks(ROOT / "README.md", "") if "Random choice" in block)
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert run_cli(["run", "--models", "random-choice", "--out", "runs/guess"]) == ExitCode.OK
    assert capsys.readouterr().out == shown, "paste what the command prints into README.md"


def test_protocol_fields_are_documented() -> None:
    rows = table_rows(ROOT / "docs/protocol.md", "| field |")
    assert {row[0].strip("`") for row in rows} == set(Protocol.__dataclass_fields__)
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in SUBTASK_KEYS)


def test_the_protocol_on_the_page_works(mmad_folder: Path) -> None:
    (source,) = blocks(ROOT / "docs/protocol.md", "toml")
    protocol = protocol_from_table(tomllib.loads(source), "docs/protocol.md")
    benchmark = read_mmad(mmad_folder)
    (group,) = protocol.plan(benchmark.items[1], benchmark.knowledge)
    texts = [part for part in group.content if isinstance(part, str)]
    assert texts == ["A good product: ", "\nThe product to inspect: ", "\nAnswer with one letter."]
    assert group.prompts[0].text == "\nIs there any defect in the object?\nA. No.\nB. Yes.\n"


def test_the_extractor_reads_what_the_page_says() -> None:
    options = {"A": "Scratch.", "B": "Hole.", "C": "Stain.", "D": "Dent."}
    rows = table_rows(ROOT / "docs/protocol.md", "| response |")
    assert len(rows) > 10
    read = {said: extract_letter(said.strip("`"), options) or "none" for said, _ in rows}
    assert read == {said: letter for said, letter in rows}


def test_presets_are_those_of_the_page() -> None:
    from emit_model import PRESETS
    from emit_model.heat_maps import Fuse, Outside

    rows = table_rows(ROOT / "docs/emit_model.md", "| field |")
    for column, name in ((1, "paper"), (2, "release")):
        for field, value in asdict(PRESETS[name]).items():
            plain = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            plain = plain.lower() if isinstance(value, bool) else plain
            (cell,) = (row[column] for row in rows if row[0] == f"`{field}`")
            assert cell.strip("`") == plain, (name, field)
    assert len(rows) == len(asdict(PRESETS["paper"]))
    text = (ROOT / "docs/emit_model.md").read_text(encoding="utf-8")
    assert all(f"`{choice}`" in text for choice in (*get_args(Outside), *get_args(Fuse)))


def test_model_code_on_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it in order, with a tiny base in place of the real one."""
    from tests import tiny

    tiny.save(tmp_path / "base", *tiny.internvl())
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    for source in blocks(ROOT / "docs/emit_model.md", "python"):
        source = source.replace("OpenGVLab/InternVL3-8B-hf", "base")
        source = source.replace('PRESETS["paper"]', 'PRESETS["paper"].scaled(depth=4, grid=4)')
        exec(compile(source, "docs/emit_model.md", "exec"), space)
    assert capsys.readouterr().out.split("\n")[0] == "torch.Size([1, 1, 32, 32])"
    assert (tmp_path / "emit-untrained/config.json").is_file()
    assert space["heat"].shape == (1, 1, 4, 4)
    assert space["model"].hints(space["heat"]).shape[1] == space["model"].config.placeholders == 8 + 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_names_on_pages_exist(page: Path) -> None:
    for source in blocks(page, "python"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module
    for module_name, name in re.findall(
        r"`(harness(?:\.\w+)*)\.(\w+)(?:\(|`)", page.read_text(encoding="utf-8")
    ):
        assert hasattr(importlib.import_module(module_name), name), f"{module_name}.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_on_pages_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", _BLOCK.sub("", text)):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target
    sources = ("harness", "plugins", "emit_model", "trainers", "reports", "tests", "docs")
    for name in re.findall(rf"`((?:{'|'.join(sources)})/[\w/.-]+)`", text):
        assert (ROOT / name).exists() or name == "plugins/mini_weights/", name
