"""The example of the plugin author's page, installed by pip and used from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import write_mmad

ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str, path: Path | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=environment, timeout=110
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has built and installed the example, without a network."""
    target = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    done = python("-m", "pip", "install", *options, str(ROOT / "docs/example_plugin"))
    assert done.returncode == 0, done.stderr
    return target


def test_it_is_listed_with_its_version(installed: Path, tmp_path: Path) -> None:
    done = python("-m", "harness.cli", "plugins", "--format", "json", path=installed, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    (plugin,) = (row for row in json.loads(done.stdout) if row["name"] == "first-option")
    assert plugin["distribution"] == "emit-bench-first-option" and plugin["version"] == "1.0.0"
    assert plugin["state"] == "active" and plugin["hooks"] == ["commands", "models", "run_finished"]


@pytest.mark.parametrize("mode", ["direct", "think"])
def test_its_model_observer_and_command_work(installed: Path, tmp_path: Path, mode: str) -> None:
    root = write_mmad(tmp_path / "mmad")
    models = ["--models", "first-option,random-choice", "--mode", mode]
    command = ["run", *models, "--data", str(root), "--out", "run", "--format", "json"]
    done = python("-m", "harness.cli", *command, path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scored = json.loads(done.stdout)["models"]["first-option"]
    assert (scored["n_questions"], scored["n_unanswered"]) == (108, 0)
    answers = json.loads((tmp_path / "run/answers/first-option.json").read_text(encoding="utf-8"))
    assert {entry["gpt_answer"] for entry in answers} == {"A"}

    left = (tmp_path / "run/letters.csv").read_text(encoding="utf-8")
    assert left.splitlines()[:2] == ["model,letter,answers", "first-option,A,108"]
    done = python("-m", "harness.cli", "letters", "run", path=installed, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, left)


def test_nothing_heavy_comes_in_with_it(installed: Path, tmp_path: Path) -> None:
    probe = (
        "import sys; from harness.cli import run_cli; run_cli(['models']); "
        "print(sorted({'torch', 'transformers', 'pandas', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = python("-c", probe, path=installed, cwd=tmp_path)
    assert "first-option" in done.stdout and done.stderr.strip() == "[]"
