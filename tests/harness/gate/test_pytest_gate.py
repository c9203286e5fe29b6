"""The gate as tests of pytest, in a project of somebody else's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import run_cli
from tests.harness.gate.test_check import good, worse

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def folders(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    made = {
        "good": make_run(root / "good", {"m": good}),
        "bad": make_run(root / "bad", {"m": worse}),
        "few": make_run(root / "few", {"m": good}, limit=20),
    }
    made["file"] = root / "base.json"
    run_cli(["check", str(made["good"]), "--baseline", str(made["file"]), "--update"])
    return made


def run(pytester: pytest.Pytester, *arguments: object) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *map(str, arguments))


def test_a_good_run_passes(pytester: pytest.Pytester, folders: dict[str, Path]) -> None:
    found = run(pytester, "--emit-run", folders["good"], "--emit-baseline", folders["file"], "-v")
    found.assert_outcomes(passed=9)  # seven subtasks, the average, and that the run is complete
    found.stdout.fnmatch_lines(["*test_score*m-average*PASSED*"])


def test_a_regression_says_what_changed(pytester: pytest.Pytester, folders: dict[str, Path]) -> None:
    found = run(pytester, "--emit-run", folders["bad"], "--emit-baseline", folders["file"])
    assert found.ret == 1
    assert found.parseoutcomes()["failed"] >= 1
    found.stdout.fnmatch_lines(
        [
            "-* points, regression: m, Average: *",
            "*80.00 to 75.00, interval*",
            "*images that changed most:*",
            "*.png: 1 lost, 0 gained*",
        ]
    )
    assert "Traceback" not in found.stdout.str()


def test_what_cannot_be_decided_fails_unless_told_to_skip(
    pytester: pytest.Pytester, folders: dict[str, Path]
) -> None:
    asked = ("--emit-run", folders["few"], "--emit-baseline", folders["few"])
    assert run(pytester, *asked).parseoutcomes() == {"failed": 4, "passed": 1}
    assert run(pytester, *asked, "--emit-inconclusive", "skip").parseoutcomes() == {"skipped": 4, "passed": 1}


def test_fixtures_for_assertions_of_ones_own(pytester: pytest.Pytester, folders: dict[str, Path]) -> None:
    file = pytester.makepyfile(
        """
        from harness import score

        def test_my_floor(emit_run):
            assert score(emit_run.answers["m"]).rows["average"]["average"] > 70

        def test_my_verdict(emit_check):
            assert emit_check.verdict == "pass"
        """
    )
    found = run(pytester, file, "--emit-run", folders["good"], "--emit-baseline", folders["file"])
    found.assert_outcomes(passed=11)
    run(pytester, file, "--emit-run", folders["good"]).assert_outcomes(passed=1, skipped=1)
    run(pytester, file).assert_outcomes(skipped=2)


def test_wrong_usage_is_one_sentence(pytester: pytest.Pytester, folders: dict[str, Path]) -> None:
    found = run(pytester, "--emit-run", folders["good"], "--emit-baseline", "nowhere")
    assert found.ret == 4
    found.stderr.fnmatch_lines(["ERROR: nowhere: no such file or folder*"])
    assert run(pytester, "--emit-baseline", folders["good"]).ret == 4
