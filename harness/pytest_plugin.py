"""pytest options of ``emit-bench``: the conformance suite for authors of model plugins, and the gate.

Loaded by pytest wherever the package is installed, so it imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.conformance.checks import Subject
    from harness.gate.verdict import Check
    from harness.sources import Source

_SUITE = Path(__file__).parent / "conformance" / "suite.py"
_GATE = Path(__file__).parent / "gate" / "suite.py"
_SUBJECTS = pytest.StashKey["list[Subject]"]()
_RUN = pytest.StashKey["Source"]()
_CHECK = pytest.StashKey["Check"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the suite."""
    group = parser.getgroup("emit-bench", "conformance of model plugins")
    group.addoption(
        "--emit-conformance", metavar="MODELS", help="Check these models (ids, globs, all), and nothing else."
    )
    group.addoption(
        "--emit-weights", action="append", default=[], metavar="NAME=PATH", help="Other weights for a model."
    )
    group.addoption("--emit-backend", default="transformers", help="What runs the models.")
    group.addoption("--emit-base-url", action="append", default=[], help="A server's address.")
    group.addoption("--emit-device", default="auto", help="Such as cpu or cuda:0.")
    group.addoption("--emit-dtype", default="auto", help="Such as float32 or bfloat16.")
    group.addoption("--emit-world", default="mini", choices=("mini", "real"), help="Whose default weights.")
    group.addoption("--emit-modes", default="direct,think,logits", help="Answer modes that they support.")
    gate = parser.getgroup("emit-bench-gate", "regression gate of emit-bench")
    gate.addoption("--emit-run", metavar="RUN", help="The run to be judged; fixture emit_run.")
    gate.addoption(
        "--emit-baseline", metavar="RUN|FILE", help="Judge --emit-run against it, one test a model and score."
    )
    gate.addoption("--emit-policy", metavar="FILE", help="[tool.emit-bench.check] unless given.")
    gate.addoption(
        "--emit-inconclusive", choices=("fail", "skip"), default="fail", help="What undecided scores do."
    )


def pytest_configure(config: pytest.Config) -> None:
    """With ``--emit-conformance`` or a baseline, only their suite is collected unless files are named."""
    suites = []
    if config.getoption("--emit-conformance") is not None:
        config.stash[_SUBJECTS] = _subjects(config)
        suites.append(_SUITE)
    if config.getoption("--emit-run") is not None:
        _read_run(config)
        if _CHECK in config.stash:
            suites.append(_GATE)
        elif not suites and config.args_source is not pytest.Config.ArgsSource.ARGS and _nothing(config):
            raise pytest.UsageError(
                "--emit-run alone judges nothing: add --emit-baseline FILE, or name tests that use emit_run"
            )
    elif config.getoption("--emit-baseline") is not None:
        raise pytest.UsageError("--emit-baseline needs --emit-run RUN, the run to be judged")
    if not suites:
        return
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args = [*(config.args if named else ()), *map(str, suites)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run of each check for each model, and of the gate's test for each score."""
    suite = metafunc.module.__name__.rpartition(".")[2] == "suite"
    if suite and "subject" in metafunc.fixturenames:
        subjects = metafunc.config.stash[_SUBJECTS]
        ids = [subject.spec.id for subject in subjects]
        metafunc.parametrize("subject", subjects, ids=ids, indirect=True)
    if "emit_judged" in metafunc.fixturenames:
        if _CHECK not in metafunc.config.stash:
            raise pytest.UsageError("emit_judged needs --emit-run and --emit-baseline")
        judged = metafunc.config.stash[_CHECK].judged
        metafunc.parametrize("emit_judged", judged, ids=[f"{one.model}-{one.test.metric}" for one in judged])


@pytest.fixture(scope="session")
def emit_run(request: pytest.FixtureRequest) -> Source:
    """The answers of ``--emit-run``: ``emit_run.answers[model]``, to be scored or looked at."""
    if _RUN not in request.config.stash:
        pytest.skip("--emit-run is not given")
    return request.config.stash[_RUN]


@pytest.fixture(scope="session")
def emit_check(request: pytest.FixtureRequest) -> Check:
    """The verdicts of ``--emit-run`` against ``--emit-baseline``."""
    if _CHECK not in request.config.stash:
        pytest.skip("--emit-run and --emit-baseline are not given")
    return request.config.stash[_CHECK]


def _nothing(config: pytest.Config) -> bool:
    """Whether there is no test here that could use the run."""
    folders = [Path(name) for name in config.getini("testpaths")] or [config.invocation_params.dir]
    return not any(next(folder.rglob("test_*.py"), None) for folder in folders if folder.is_dir())


def _read_run(config: pytest.Config) -> None:
    from harness.errors import BadInput
    from harness.gate.policy import find_policy
    from harness.gate.verdict import check
    from harness.source_files import read_source

    try:
        config.stash[_RUN] = run = read_source(Path(config.getoption("--emit-run")))
        baseline = config.getoption("--emit-baseline")
        if baseline is not None:
            file = config.getoption("--emit-policy")
            policy = find_policy(Path(file) if file else None)
            config.stash[_CHECK] = check(run, read_source(Path(baseline)), policy)
    except BadInput as error:
        raise pytest.UsageError(str(error)) from error


def _subjects(config: pytest.Config) -> list[Subject]:
    from harness.conformance.checks import Subject
    from harness.errors import BadInput
    from harness.loading_options import pairs
    from harness.plugins import load_registry
    from harness.records import MODES, LoadRequest

    try:
        models = load_registry().select_models(config.getoption("--emit-conformance"))
        weights = pairs("--emit-weights", config.getoption("--emit-weights"))
    except BadInput as error:
        raise pytest.UsageError(str(error)) from error
    asked = config.getoption("--emit-modes").split(",")
    modes = tuple(mode for mode in MODES if mode in asked)
    if not modes or set(asked) - set(MODES):
        raise pytest.UsageError(f"--emit-modes {','.join(asked)}: use some of {', '.join(MODES)}")
    urls = tuple(config.getoption("--emit-base-url"))
    subjects = [
        Subject(
            spec,
            LoadRequest(
                world=config.getoption("--emit-world"),
                weights=weights.get(spec.id),
                backend=config.getoption("--emit-backend"),
                device=config.getoption("--emit-device"),
                dtype=config.getoption("--emit-dtype"),
                resources={"base_urls": urls} if urls else {},
            ),
            modes,
        )
        for spec in models
    ]
    for subject in subjects:
        try:
            subject.spec.fingerprint(subject.request)
        except BadInput as error:  # missing weights are no broken promise
            raise pytest.UsageError(str(error)) from error
    return subjects
