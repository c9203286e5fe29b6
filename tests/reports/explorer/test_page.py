"""The page as a file: complete without a script, closed to everything from outside, the same every time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.subtasks import SUBTASKS
from reports.explorer import write_page
from reports.explorer.page import assets
from reports.subject import Subject
from reports.tables import tables_of
from tests.reports.explorer.test_data import HOSTILE
from tests.reports.explorer.worlds import answers_of, manifest, questions, subject_of, synthetic


class Elements(HTMLParser):
    """Start tags with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in self.texts:
            self.texts[self.cdata_elem][-1] += data


def written(subject: Subject, out: Path) -> str:
    return write_page(subject, tables_of(subject), out).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(synthetic(), tmp_path_factory.mktemp("page"))


def test_the_page_lies_where_it_should_and_is_the_same_again(tmp_path: Path) -> None:
    subject = synthetic()
    first = write_page(subject, tables_of(subject), tmp_path / "one")
    assert first == tmp_path / "one/report/index.html"
    second = write_page(subject, tables_of(subject), tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()


def test_the_policy_lets_in_this_style_and_this_script_only(page: str) -> None:
    found = Elements(page)
    ((policy,),) = (
        [a["content"] for t, a in found.found if a.get("http-equiv") == "Content-Security-Policy"],
    )
    assert policy == assets().policy
    run = [
        text
        for (_, attributes), text in zip(
            [pair for pair in found.found if pair[0] == "script"], found.texts["script"], strict=True
        )
        if "type" not in attributes
    ]
    for kind, texts in (("script", run), ("style", found.texts["style"])):
        (text,) = texts
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    assert "base-uri 'none'; form-action 'none'" in policy


def test_nothing_is_inline_or_from_elsewhere(page: str) -> None:
    for tag, attributes in Elements(page).found:
        assert not any(name == "style" or name.startswith("on") for name in attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    css = assets().css
    assert "@import" not in css and set(re.findall(r"url\(([^)]*)\)", css)) == {"#heat"}
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", assets().script
    )


def test_figures_are_sound_and_tell_what_they_show(page: str) -> None:
    charts = re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', page, re.DOTALL)
    assert [re.search(r'class="chart (\w+)"', chart).group(1) for chart in charts] == [
        "forest",
        "radar",
        "bars",
    ]  # type: ignore[union-attr]
    for chart in charts:
        root = ElementTree.fromstring(chart)
        title, description = (root.find(name) for name in ("title", "desc"))
        assert title is not None and description is not None
        assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {description.attrib['id']}"
        assert "Model-A" in (description.text or "")
        assert "Mini world: not comparable" in "".join(root.itertext())
    radar = ElementTree.fromstring(charts[1])
    dashes = [line.get("stroke-dasharray") for line in radar.iter("path") if line.get("class") == "line"]
    assert len(set(dashes)) == 3
    assert all(subtask.title in "".join(radar.itertext()) for subtask in SUBTASKS)


def test_the_world_is_told(tmp_path: Path) -> None:
    asked = questions(40)
    given = [answers_of(name, asked, 0.6, seed) for seed, name in enumerate("mn")]
    for world, words in (("mini", "Mini world"), ("real", "Real world")):
        text = written(subject_of(given, manifest(world)), tmp_path / world)
        assert f'<p class="world {world}"><b>{words}</b>' in text
        assert ("not comparable with published numbers" in text) == (world == "mini")
    text = written(subject_of(given), tmp_path / "files")
    assert "World not known" in text and "Mini world" not in text


@pytest.mark.parametrize("count", [1, 2, 12])
def test_any_number_of_models_fits(count: int, tmp_path: Path) -> None:
    page = written(synthetic(40, count), tmp_path)
    assert ('id="matrix"' in page) == (count > 1)
    assert page.count('class="series" data-model') == count


def test_models_that_answered_other_questions_are_not_compared(tmp_path: Path) -> None:
    asked = questions(40)
    subject = subject_of([answers_of("m", asked, 0.6, 0), answers_of("n", asked[:60], 0.5, 1)], manifest())
    page = written(subject, tmp_path)
    assert 'id="matrix"' not in page and "points above" not in page


@dataclass(frozen=True)
class Found:
    audit: str = "text-only"
    title: str = "Without <images>"
    sentence: str = "What the texts alone give away."
    columns: tuple[str, ...] = ("Model", "Accuracy")
    rows: tuple[tuple[object, ...], ...] = (("EMIT", 31.25), ("<b>", None))
    n_questions: int = 1234


def test_audits_stand_beside_the_tables(tmp_path: Path) -> None:
    subject = synthetic(20, 1)
    page = write_page(subject, tables_of(subject), tmp_path, audits=[Found()]).read_text()
    for told in ("Without &lt;images&gt;", "give away.", "31.25", "&lt;b&gt;", "1,234 questions"):
        assert told in page


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Whatever a name, a key, a question or an answer holds, the page has the elements it should have."""
    asked = questions(20)
    plain = answers_of("m", asked, 0.6, 0)
    wanted = [tag for tag, _ in Elements(written(subject_of([plain], manifest()), tmp_path / "plain")).found]
    for i, text in enumerate(HOSTILE):
        given = [
            replace(
                answer,
                question=text,
                text=text * 9000,
                reason=text,
                options=dict.fromkeys(answer.options, text),
                key=answer.key.replace("product_00", text.replace("/", "")),
            )
            for answer in plain
        ]
        told = manifest() if "\ud800" in text else manifest(name=text)
        titles = ["x"] if "\ud800" in text else [text]
        page = written(subject_of([given], told, titles=titles), tmp_path / str(i))
        assert [tag for tag, _ in Elements(page).found] == wanted, text
        data = re.search(r'<script type="application/json" id="columns">(.*?)</script>', page)
        assert data is not None
        assert json.loads(data.group(1))["models"][0]["title"] == titles[0]


def test_a_plain_run_is_quick(tmp_path: Path) -> None:
    """What stands at the end of every run of the mini world: about a second, and less than a megabyte."""
    page = written(synthetic(266), tmp_path)
    assert len(page) < 1_000_000
