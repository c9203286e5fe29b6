"""The describer and a real server that we did not write: `transformers serve` with a tiny random LLaVA."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.errors import ExitCode
from harness.plugins import load_registry
from tests import transformers_serve
from tests.trainers.dataset.describing import world
from trainers.dataset.describing.command import describe
from trainers.dataset.texts import read_texts

pytestmark = pytest.mark.slow
for needed in transformers_serve.NEEDED:
    pytest.importorskip(needed)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The server's address and the model's name."""
    with transformers_serve.served(tmp_path_factory.mktemp("model")) as place:
        yield place


def test_a_real_server_takes_our_requests(
    served: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model says words in no order: a reply is a text, or has a fault of the text's own."""
    url, model = served
    monkeypatch.setenv("NO_PROXY", "*")
    root = world.write(tmp_path / "raw")
    out = tmp_path / "texts"
    arguments = [f"mpdd={root}/MPDD", f"--text-source=mvtec-ad={root}/MVTec-AD", *world.FEW]
    arguments += ["--knowledge", f"{root}/domain_knowledge.json", "--endpoint", url, "--model", model]
    arguments += ["--out", str(out), "--max-tokens", "40", "--attempts", "2", "--max-failed", "1"]
    done = CliRunner().invoke(describe, arguments, obj=load_registry(), standalone_mode=False)
    assert done.return_value in (ExitCode.OK, ExitCode.INCONCLUSIVE), done.stderr
    record = json.loads((out / "describe.json").read_text())
    planned = sum(row["planned"] for row in record["texts"].values())
    assert planned == world.N_KNOWLEDGE + world.N_OBJECT
    of_the_text = {"cut", "empty", "too-short", "too-long", "markup", "control-character", "refused"}
    assert {one["fault"] for one in record["missing"]} <= of_the_text
    assert len(record["missing"]) < planned / 2
    tokens = record["tokens"]
    assert planned <= tokens["replies"] <= 2 * planned
    assert tokens["prompt_tokens"] > 100 * planned  # pictures and words were read
    assert 0 < tokens["completion_tokens"] <= 40 * tokens["replies"]
    assert len(read_texts(out).descriptions) == sum(
        record["texts"][kind]["written"] for kind in ("defect-text", "normal-text")
    )


def test_a_real_server_refuses_another_model(served: tuple[str, str], tmp_path: Path) -> None:
    """Each request is rejected for itself, with what the server says."""
    url, _ = served
    root = world.write(tmp_path / "raw")
    arguments = [f"mpdd={root}/MPDD", "--endpoint", url, "--model", "gpt-x", "--out", str(tmp_path / "texts")]
    done = CliRunner().invoke(describe, arguments, obj=load_registry(), standalone_mode=False)
    assert done.return_value == ExitCode.FAILED_ITEMS
    assert re.search(r"answers 400: Server is pinned to .*\[rejected\]", done.stderr)
