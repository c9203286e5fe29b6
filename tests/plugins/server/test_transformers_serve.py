"""Runs against a real server that we did not write: `transformers serve` with a tiny random LLaVA."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli import run_cli
from harness.errors import ExitCode
from tests import transformers_serve

pytestmark = pytest.mark.slow
for needed in transformers_serve.NEEDED:
    pytest.importorskip(needed)

LIMIT = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The server's address and the model's name."""
    with transformers_serve.served(tmp_path_factory.mktemp("model")) as place:
        yield place


@pytest.fixture
def command(
    served: tuple[str, str], mmad_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    url, name = served
    monkeypatch.setenv("NO_PROXY", "*")
    given = ["run", "--models", "served", "--weights", f"served={name}", "--backend", "server"]
    given += ["--base-url", url, "--data", str(mmad_folder), "--limit", str(LIMIT), "--backend-arg"]
    return [*given, "attempts=2", "--format", "json"]


def rows(out: Path) -> list[tuple[str, str, int, int]]:
    with sqlite3.connect(out / "answers.sqlite") as db:
        found = db.execute("SELECT key, text, prompt_tokens, completion_tokens FROM answers ORDER BY key")
        return list(found)


def test_a_run(command: list[str], tmp_path: Path) -> None:
    """A random model states no letter; what it says is stored, counted, and the same the next time."""
    for name, concurrency in (("one", "1"), ("three", "3")):
        out = ["--out", str(tmp_path / name), "--concurrency", concurrency, "--mode", "direct"]
        assert run_cli([*command, *out]) == ExitCode.OK
    first, second = rows(tmp_path / "one"), rows(tmp_path / "three")
    assert first == second and LIMIT - 5 <= len(first) <= LIMIT
    assert all(text.strip() and prompt > 100 and 0 < said <= 16 for _, text, prompt, said in first)
    assert len({text for _, text, _, _ in first}) > 3  # it sees pictures and questions
    record = json.loads((tmp_path / "one/manifest.json").read_text())["models"]["served"]
    assert record["failed"] == 0
    assert record["counters"]["prompt_tokens"] == sum(row[2] for row in first)
    assert record["counters"]["completion_tokens"] == sum(row[3] for row in first)


def test_log_probabilities_are_not_offered(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out"), "--mode", "logits"]
    assert run_cli([*command, *out]) == ExitCode.USAGE
    assert "--mode logits needs them: use --mode direct" in capsys.readouterr().err
