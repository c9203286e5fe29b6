from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.errors import ExitCode
from harness.mmad import read_mmad
from harness.records import Response
from harness.run import execute
from harness.scoring import COLUMNS
from harness.subtasks import SUBTASK_KEYS
from tests.builders import write_distribution, write_mmad
from tests.harness.scripted import Scripted, no_plugins, planned


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A benchmark folder and the folder of a finished run on it."""
    folder = tmp_path_factory.mktemp("cli")
    root = write_mmad(folder / "mmad")
    assert (
        run_cli(["run", "--models", "random-choice", "--data", str(root), "--out", str(folder / "run")]) == 0
    )
    return root, folder / "run"


def test_run_prints_the_table_and_says_what_it_shows(finished, tmp_path: Path, capsys) -> None:
    root, _ = finished
    arguments = ["run", "--models", "random-*", "--data", str(root), "--out", str(tmp_path / "x")]
    assert run_cli(arguments) == ExitCode.OK
    shown = capsys.readouterr()
    assert "Random choice" in shown.out and "Average" in shown.out
    assert "108 questions on 24 images; scoring rule official." in shown.out
    assert "Protocol emit (think, 1-shot), sha256 " in shown.out
    assert "108/108" in shown.err and "108/108" not in shown.out


def test_run_json_is_one_document(finished, capsys) -> None:
    root, out = finished
    command = ["run", "--models", "random-choice", "--data", str(root), "--out", str(out), "--format", "json"]
    assert run_cli(command) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert (shown["benchmark"], shown["world"], shown["protocol"]) == ("mmad", "real", "emit")
    assert shown["models"]["random-choice"]["n_questions"] == 108


def test_the_same_command_twice_uses_the_same_folder(finished, tmp_path: Path, monkeypatch, capsys) -> None:
    root, _ = finished
    monkeypatch.chdir(tmp_path)
    command = ["run", "--models", "random-choice", "--data", str(root), "--mode", "think", "--limit", "40"]
    assert run_cli(command) == run_cli(command) == ExitCode.OK
    folder = tmp_path / "runs/mmad-emit-think-limit40"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["models"]["random-choice"]["reused"] == manifest["benchmark"]["questions"] <= 40
    assert manifest["protocol"]["mode"] == "think" and manifest["limit"] == 40


def test_score_of_a_run_and_of_its_answer_file_agree(finished, capsys) -> None:
    _, out = finished
    assert run_cli(["score", str(out), "--format", "json"]) == ExitCode.OK
    of_run = json.loads(capsys.readouterr().out)
    assert run_cli(["score", str(out / "answers/random-choice.json"), "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == of_run
    assert set(of_run) == {"rule", "n_questions", "n_unanswered", "rows"}
    assert tuple(of_run["rows"]["average"]) == COLUMNS
    for rule in ("strict", "pooled"):
        assert run_cli(["score", str(out), "--rule", rule]) == ExitCode.OK
        shown = capsys.readouterr().out
        assert f"random-choice ({rule}: 108 questions, 0 unanswered)" in shown
        assert "Benchmark mmad of the real world; protocol emit (think, 1-shot), sha256 " in shown


def test_several_models_are_scored_each_by_itself(finished, tmp_path: Path, capsys) -> None:
    root, _ = finished
    one, two = Scripted(), Scripted(respond=lambda letter: Response("A", 1, 1))
    run = planned(tmp_path / "two", read_mmad(root), two.spec("two"), one.spec("one"))
    execute(run, no_plugins())
    assert run_cli(["score", str(tmp_path / "two"), "--format", "json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == ["models"] and list(shown["models"]) == ["two", "one"]  # as the command named them
    for name, table in shown["models"].items():
        file = tmp_path / f"two/answers/{name}.json"
        assert run_cli(["score", str(file), "--format", "json"]) == ExitCode.OK
        assert json.loads(capsys.readouterr().out) == table
    assert shown["models"]["one"] != shown["models"]["two"]
    assert run_cli(["score", str(tmp_path / "two")]) == ExitCode.OK
    table = capsys.readouterr().out
    assert table.index("two (official: 108") < table.index("one (official: 108")


@pytest.mark.parametrize("command", ["models", "plugins", "benchmarks", "protocols"])
def test_lists(command: str, capsys) -> None:
    assert run_cli([command, "--format", "json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)
    assert run_cli([command]) == ExitCode.OK
    table = capsys.readouterr().out
    for row in rows:
        assert (row["id"] if command == "models" else row["name"]) in table


def test_doctor(finished, tmp_path: Path, capsys) -> None:
    root, _ = finished
    assert run_cli(["data", "doctor", str(root), "--deep"]) == ExitCode.OK
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    bad = write_mmad(tmp_path / "bad", lambda t, r: t.update({"a/b": {}, "c/d/e.png": 3}))
    assert run_cli(["data", "doctor", str(bad), "--format", "json"]) == ExitCode.USAGE
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["problems"]) == 2 and shown["published_counts"]["VisA"]["object_analysis"] == 2806
    assert set(SUBTASK_KEYS[1:]) < set(shown["published_counts"]["VisA"])


WRONG = [
    (["run", "--models", "randm"], "there is no model 'randm'"),
    (["run", "--models", "random-choice", "--data", "/nowhere"], "/nowhere: no such folder; point --data"),
    (["run", "--models", "random-choice", "--protocol", "emitt"], "no protocol 'emitt'; did you mean emit?"),
    (["run", "--models", "random-choice", "--protocol", "no.toml"], "no.toml: not a readable protocol file"),
    (["run", "--models", "random-choice", "--benchmark", "mmmad"], "no benchmark 'mmmad'; did you mean mmad"),
    (["run", "--models", "random-choice", "--backend", "tensorflow"], "there is no backend 'tensorflow'"),
    (["run", "--models", "random-choice", "--shots", "9"], "9 is not in the range 0<=x<=8"),
    (
        ["run", "--models", "random-choice", "--weights", "x", "--data", "{root}"],
        "--weights x: write a model's id",
    ),
    (
        ["run", "--models", "emit", "--weights", "emit=a", "--weights", "emit=b", "--data", "{root}"],
        "--weights emit=b: emit is given twice",
    ),
    (["run", "--models", "random-choice", "--limit", "0"], "0 is not in the range"),
    (["run"], "Missing option '--models'"),
    (["score", "/nowhere"], "/nowhere: no such file or folder"),
    (["score", "{run}", "--rule", "exact"], "no scoring rule 'exact'; use one of official, strict, pooled"),
    (["score", "{root}"], "there is no manifest.json; name the folder"),
    (["score", "{root}/mmad.json"], "an answer file is a list"),
    (["data", "doctor", "/nowhere"], "/nowhere: no such folder"),
    (["fly"], "No such command 'fly'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=[" ".join(w[0])[:60] for w in WRONG])
def test_wrong_use_is_one_sentence_and_exit_code_2(
    finished, arguments, sentence, capsys, monkeypatch
) -> None:
    monkeypatch.delenv("EMIT_BENCH_DATA", raising=False)
    root, out = finished
    filled = [argument.format(root=root, run=out) for argument in arguments]
    assert run_cli(filled) == ExitCode.USAGE == 2
    shown = capsys.readouterr()
    assert sentence in shown.err and "Traceback" not in shown.err and shown.out == ""


def test_every_exit_code_has_its_number() -> None:
    assert [(code.name, code.value) for code in ExitCode] == [
        ("OK", 0),
        ("REGRESSION", 1),
        ("USAGE", 2),
        ("NOTHING", 3),
        ("INCONCLUSIVE", 4),
        ("FAILED_ITEMS", 5),
        ("INTERNAL", 70),
    ]


def test_nothing_to_ask_is_3_and_failures_are_5(finished, tmp_path: Path, capsys) -> None:
    def mute(table, root):
        for entry in table.values():
            entry["conversation"] = []

    empty = write_mmad(tmp_path / "empty", mute)
    common = ["run", "--models", "random-choice", "--out", str(tmp_path / "x"), "--data"]
    assert run_cli([*common, str(empty)]) == ExitCode.NOTHING
    said = capsys.readouterr().err
    assert "nothing was evaluated" in said and "plugin failed" not in said
    assert run_cli(["report", str(tmp_path / "x")]) == ExitCode.USAGE
    assert "the run holds no answer" in capsys.readouterr().err
    broken = write_mmad(
        tmp_path / "broken", lambda t, r: (r / "VisA/candle/test/bad/001.png").write_bytes(b"no image")
    )
    assert run_cli([*common, str(broken)]) == ExitCode.FAILED_ITEMS
    assert "random-choice: 4.6% of its questions failed, 1.0% are allowed" in capsys.readouterr().err
    assert run_cli([*common, str(broken), "--max-failed", "0.05"]) == ExitCode.OK


def test_references_of_the_other_kind_are_never_silent(tmp_path: Path, capsys) -> None:
    def spoil(table, root):
        for entry in list(table.values())[:3]:
            entry["random_templates"] = []

    root = write_mmad(tmp_path / "mmad", spoil)
    command = ["run", "--models", "random-choice", "--data", str(root), "--out", str(tmp_path / "out")]
    said = "3 images list no random reference; references of the other kind are shown"
    for options, counted in (
        (["--protocol", "mmad"], 3),
        ([], 0),
        (["--protocol", "mmad", "--shots", "0"], 0),
    ):
        assert run_cli([*command, *options]) == ExitCode.OK
        assert (said in capsys.readouterr().err) == bool(counted)
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["benchmark"]["substituted_references"] == counted


UNWRITABLE = [
    (
        ["run", "--models", "random-choice", "--data", "{root}", "--out", "{root}/mmad.json/x"],
        "Not a directory",
    ),
    (["data", "mini", "{root}/mmad.json/x"], "Not a directory"),
    (["report", "{run}", "--out", "{root}/mmad.json"], "; check the path"),
]


@pytest.mark.parametrize(("arguments", "sentence"), UNWRITABLE, ids=["run", "mini", "report"])
def test_places_that_cannot_be_written_are_one_sentence(finished, arguments, sentence, capsys) -> None:
    root, out = finished
    filled = [argument.format(root=root, run=out) for argument in arguments]
    assert run_cli(filled) == ExitCode.USAGE
    shown = capsys.readouterr().err
    assert sentence in shown and "mmad.json" in shown and shown.count("\n") == 1
    assert (root / "mmad.json").is_file()


def test_a_cache_that_cannot_be_made_names_its_variable(finished, monkeypatch, capsys) -> None:
    root, _ = finished
    monkeypatch.setenv("EMIT_BENCH_CACHE", str(root / "mmad.json"))
    assert run_cli(["run", "--models", "random-choice"]) == ExitCode.USAGE
    assert "set EMIT_BENCH_CACHE to another one" in capsys.readouterr().err


def test_an_unexpected_exception_is_70_without_a_traceback(finished, monkeypatch, capsys) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("a bug")

    monkeypatch.setattr("harness.run.read_run", broken)
    assert run_cli(["score", str(finished[1])]) == ExitCode.INTERNAL
    shown = capsys.readouterr()
    assert "internal error: AttributeError: a bug" in shown.err and "Traceback" not in shown.err
    assert run_cli(["--debug", "score", str(finished[1])]) == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_says_that_the_command_can_be_repeated(monkeypatch, finished, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.run.read_run", interrupted)
    assert run_cli(["score", str(finished[1])]) == ExitCode.INCONCLUSIVE
    assert "continues where it stopped" in capsys.readouterr().err


def program(*arguments: str, path: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, **options)


def test_a_broken_plugin_is_named_and_everything_else_works(tmp_path: Path, finished) -> None:
    folder = write_distribution(
        tmp_path / "site", "acme", {"bad": "acme_bad"}, {"acme_bad": "import nonsense_x"}
    )
    listed = program("plugins", "--format", "json", path=folder)
    assert listed.returncode == 0
    (row,) = (row for row in json.loads(listed.stdout) if row["name"] == "bad")
    assert (row["distribution"], row["version"], row["state"]) == ("acme", "1.2", "quarantined")
    assert "No module named 'nonsense_x'" in row["error"]
    scored = program("score", str(finished[1]), path=folder)
    assert scored.returncode == 0 and "random-choice" in scored.stdout
    assert "plugin 'bad' of acme 1.2 is left out: ModuleNotFoundError" in scored.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom harness.cli import run_cli\nassert run_cli(['--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'vllm', 'pandas', 'numpy', 'PIL', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_is_quick() -> None:
    """Under 0.3 s where click and the list of entry points take 0.06; a ratio, for machines differ."""
    least = [sys.executable, "-c", "import click, importlib.metadata as m; m.entry_points()"]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for ours in (True, False) * 8:
        before = os.times()
        done = program("--help") if ours else subprocess.run(least, check=True)
        assert done.returncode == 0
        after = os.times()
        # Of the processor; the least of several is what neighbours on the same cores stretch least.
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        seconds[ours].append(spent)
    assert min(seconds[True]) < 5 * min(seconds[False])
