"""pytest options of ``emit-bench``: the conformance suite for authors of model plugins.

Loaded by pytest wherever the package is installed, so it imports nothing heavy.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.conformance.checks import Subject

_SUITE = Path(__file__).parent / "conformance" / "suite.py"
_SUBJECTS = pytest.StashKey["list[Subject]"]()


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


def pytest_configure(config: pytest.Config) -> None:
    """With ``--emit-conformance``, the suite is all that is collected unless files are named too."""
    if config.getoption("--emit-conformance") is None:
        return
    config.stash[_SUBJECTS] = _subjects(config)
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        config.args.append(str(_SUITE))
    else:
        config.args = [str(_SUITE)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run of each check for each model."""
    if metafunc.module.__name__.rpartition(".")[2] == "suite" and "subject" in metafunc.fixturenames:
        subjects = metafunc.config.stash[_SUBJECTS]
        ids = [subject.spec.id for subject in subjects]
        metafunc.parametrize("subject", subjects, ids=ids, indirect=True)


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
