"""The gate as tests: one a model and score. Collected by ``pytest --emit-run RUN --emit-baseline FILE``."""

from __future__ import annotations

import pytest

from harness.gate.outputs import failure
from harness.gate.verdict import Check, Judged


def test_score(emit_judged: Judged, pytestconfig: pytest.Config) -> None:
    """The score is as good as the baseline's, within its margin."""
    if emit_judged.verdict == "inconclusive" and pytestconfig.getoption("--emit-inconclusive") == "skip":
        pytest.skip(f"inconclusive: {emit_judged.reason}")
    if emit_judged.verdict != "pass":
        pytest.fail(failure(emit_judged), pytrace=False)


def test_complete(emit_check: Check) -> None:
    """The run came to its end, and few questions failed."""
    if emit_check.incomplete:
        pytest.fail("; ".join(emit_check.notes), pytrace=False)
