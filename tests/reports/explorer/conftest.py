"""A browser, and a page of three models on a benchmark with images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.mmad import read_mmad
from harness.records import Answer, Outcome
from harness.store import PlanRow, Spoken, Store
from reports.explorer import write_page
from reports.subject import Subject
from reports.tables import tables_of
from tests.builders import write_mmad
from tests.reports.explorer.browsing import Visit, visit
from tests.reports.explorer.test_data import HOSTILE
from tests.reports.explorer.test_pictures import grey
from tests.reports.explorer.worlds import manifest, subject_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Path]:
    """Three models on a benchmark with images, masks and a heat map, and the page of it."""
    folder = tmp_path_factory.mktemp("run")
    data = write_mmad(folder / "data")
    benchmark = read_mmad(data)
    rng = np.random.default_rng(5)
    answers = []
    for model, share in (("m", 0.8), ("n", 0.5), ("o", 0.4)):
        given = []
        for item in benchmark.items:
            for q in item.questions:
                letters = list(q.options)
                letter = q.answer if rng.random() < share else letters[int(rng.integers(len(letters)))]
                logs = {found: -0.1 if found == letter else -3.0 for found in letters}
                about = (
                    model,
                    item.key,
                    q.number,
                    q.subtask,
                    q.raw_type,
                    q.text,
                    q.options,
                    q.answer,
                    letter,
                )
                given.append(Answer(*about, Outcome.ANSWERED, f"I say {letter}", "", logs, 9, 4))
        given[0] = given[0]._replace(text="".join(HOSTILE) * 5000, letter=None, outcome=Outcome.UNPARSED)
        answers.append(given)
    item = benchmark.items[0]
    with Store.open(folder / "answers.sqlite") as store:
        row = PlanRow(0, item.key, item.questions[0], "answer", "work")
        store.save(
            "m", [row], {"answer": Spoken("A", Outcome.ANSWERED)}, [], {"work": grey([[0, 99], [200, 9]])}
        )
    titles = ["<img src=x onerror=alert(1)>", "Second", "\u202ethird"]
    told = manifest("real", root=str(data), digest=benchmark.digest)
    subject = subject_of(answers, told, folder, titles=titles)
    return subject, write_page(subject, tables_of(subject), folder / "out")


@pytest.fixture
def opened(browser: Any, run: tuple[Subject, Path]) -> Iterator[Visit]:
    """The page, which at the end must not have complained, nor looked outside."""
    found = visit(browser, run[1])
    yield found
    assert found.said == [] and found.strangers == []
    found.page.context.close()
