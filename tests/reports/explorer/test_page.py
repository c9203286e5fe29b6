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
from reports.explorer.audits import audit_tables
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

    @property
    def hrefs(self) -> list[str | None]:
        return [attributes["href"] for _, attributes in self.found if "href" in attributes]

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
    assert [kind for chart in charts for kind in re.findall(r'class="chart ([\w ]+)"', chart)] == [
        f"{name} {layout}" for name in ("forest", "radar", "bars") for layout in ("wide", "narrow")
    ]
    for chart in charts:
        root = ElementTree.fromstring(chart)
        title, description = (root.find(name) for name in ("title", "desc"))
        assert title is not None and description is not None
        assert root.attrib["aria-labelledby"] == f"{title.attrib['id']} {description.attrib['id']}"
        assert "Model-A" in (description.text or "")
        assert "Mini world: not comparable" in "".join(root.itertext())
    radar = ElementTree.fromstring(charts[2])
    dashes = [line.get("stroke-dasharray") for line in radar.iter("path") if line.get("class") == "line"]
    assert len(set(dashes)) == 3
    assert all(subtask.title in "".join(radar.itertext()) for subtask in SUBTASKS)


def test_narrow_figures_keep_their_words_inside(page: str) -> None:
    """A phone's drawings are no wider than it; no text begins or ends outside, at six units a letter."""
    narrow = re.findall(r'<svg viewBox="[^"]*" role="img"[^>]* narrow".*?</svg>', page, re.DOTALL)
    assert len(narrow) == 3
    for chart in narrow:
        root = ElementTree.fromstring(chart)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        assert width <= 380
        for text in root.iter("text"):
            long = 6 * len(text.text or "")
            x, y, anchor = float(text.attrib["x"]), float(text.attrib["y"]), text.get("text-anchor", "start")
            left = x - {"start": 0, "middle": long / 2, "end": long}[anchor]
            assert left >= 0 and left + long <= width and 0 < y <= height, text.text


def test_a_note_stands_with_its_table(tmp_path: Path) -> None:
    subject = synthetic(20, 2)
    one, two, *_ = (
        replace(table, notes=("Of both.", f"Of {i}.")) for i, table in enumerate(tables_of(subject))
    )
    page = write_page(subject, (one, two), tmp_path).read_text()
    articles = dict(re.findall(r'<article class="\w+" id="([\w-]+)">(.*?)</article>', page, re.DOTALL))
    assert "Of 0." in articles[one.name] and "Of 1." in articles[two.name]
    assert page.count("Of 0.") == page.count("Of 1.") == page.count("Of both.") == 1
    (aside,) = re.findall(r"<aside.*?</aside>", page, re.DOTALL)
    assert "Of both." in aside and page.index(aside) < page.index('id="figures"')


def test_how_the_run_went_comes_last_and_folded(page: str) -> None:
    tables = page[page.index('id="tables"') : page.index('id="figures"')]
    (fold,) = re.findall(r'<details class="card fold" id="ledger">.*?</details>', tables, re.DOTALL)
    assert 'id="outcomes"' in fold and tables.count('id="outcomes"') == 1 and "in an error (failed)" in fold
    assert 'id="comparison"' in tables[: tables.index(fold)] and "<article" not in tables.split(fold)[1]


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


def test_audits_have_a_section_and_an_entry(tmp_path: Path) -> None:
    subject = synthetic(20, 1)
    page = write_page(subject, tables_of(subject), tmp_path, audits=[Found()]).read_text()
    section = page[page.index('<section id="audits"') : page.index('<section id="drill"')]
    for told in ("text-only: without &lt;images&gt;", "give away.", "&lt;b&gt;", "1,234 questions"):
        assert told in section
    assert '<a href="#audits">Audits</a>' in page
    without = write_page(subject, tables_of(subject), tmp_path).read_text()
    assert "#audits" not in Elements(without).hrefs and 'id="audits"' not in without


def test_audits_come_in_their_order_with_both_names() -> None:
    names = ("other", "repeat", "blind", "reference", "positions")
    titles = [table.title for table in audit_tables([Found(audit=name, title="OCR off") for name in names])]
    assert titles == [f"{name}: OCR off" for name in ("positions", "reference", "blind", "repeat", "other")]


def test_numbers_of_an_audit_stand_under_their_headings(tmp_path: Path) -> None:
    """Floats get two decimals, nothing a dash; numbers that an audit wrote stand to the right too."""
    found = Found(
        columns=("Model", "Reference", "Questions", "Score", "Change", "95 % interval", "Empty"),
        rows=(
            ("EMIT", "similar (the run)", 1937, 57.754, None, None, None),
            ("EMIT", "none", 12, 0.0, "-0.24", "48.7 to 54.5", None),
        ),
    )
    (table,) = audit_tables([found])
    assert [numeric for _, numeric in table.columns] == [False, False, True, True, True, True, False]
    assert table.rows[0] == ("EMIT", "similar (the run)", "1,937", "57.75", "-", "-", "-")
    assert table.rows[1] == ("EMIT", "none", "12", "0.00", "\u22120.24", "48.7 to 54.5", "-")
    subject = synthetic(20, 1)
    page = write_page(subject, tables_of(subject), tmp_path, audits=[found]).read_text()
    section = page[page.index('<section id="audits"') : page.index('<section id="drill"')]
    assert "None" not in section
    assert section.count('<th class="number" scope="col">') == 4 and section.count('<td class="number">') == 8


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Whatever a name, a key, a question or an answer holds, the page has the elements it should have."""
    asked = questions(20)
    plain = answers_of("m", asked, 0.6, 0)
    wanted = [tag for tag, _ in Elements(written(subject_of([plain], manifest()), tmp_path / "plain")).found]
    for i, text in enumerate(HOSTILE):
        given = [
            answer._replace(
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
