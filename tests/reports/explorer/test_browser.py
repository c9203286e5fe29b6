"""The page in a browser, as people use it: opened from disk, without a network, by mouse and keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from tests.reports.explorer.test_data import HOSTILE
from tests.reports.explorer.test_pictures import grey
from tests.reports.explorer.worlds import manifest, subject_of, synthetic

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
LIMITS = {"open": 2.0, "filter": 0.2}  #: seconds
#: Seconds for opening, and for every filter, search and sort with the rows that it shows.
TIMED = """() => {
        const took = { open: performance.getEntriesByType("navigation")[0].loadEventEnd / 1000 };
        const time = (name, act) => {
          const start = performance.now();
          act();
          document.body.getBoundingClientRect(); // the new rows are laid out as well
          took[name] = (performance.now() - start) / 1000;
        };
        const put = (id, value) => {
          const field = document.getElementById(id);
          field.value = value;
          field.dispatchEvent(new Event(id === "search" ? "input" : "change", { bubbles: true }));
        };
        const tries = { "f-dataset": ["1", ""], "f-kind": ["2", ""], "f-subtask": ["0", ""],
          "f-condition": ["normal", ""], "f-preset": ["none-right", "disagree", "no-letter", "duel", ""],
          search: ["localization", "product_0 crack", ""], "drill-model": ["3"],
          "matrix-metric": ["defect_analysis"] };
        for (const [id, values] of Object.entries(tries)) {
          for (const value of values) time(`${id}=${value}`, () => put(id, value));
        }
        const heads = document.querySelectorAll(".head button");
        heads.forEach((button, i) => time(`sort ${i}`, () => button.click()));
        return took;
      }"""


@dataclass
class Visit:
    """A page that was opened, and what it did that it should not."""

    page: Any
    said: list[str]
    asked_for: list[str]

    @property
    def strangers(self) -> list[str]:
        """Addresses asked for that are no files or data."""
        return [url for url in self.asked_for if not url.startswith(("file:", "data:"))]

    def rows(self) -> list[str]:
        return list(self.page.eval_on_selector_all(".row", "rows => rows.map((row) => row.textContent)"))

    def count(self) -> int:
        return int(self.page.text_content("#count").split()[0].replace(",", ""))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        found = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield found
        found.close()


def visit(browser: Any, path: Path, address: str = "", **options: Any) -> Visit:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    found = Visit(page, [], [])
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("dialog", lambda dialog: (found.said.append("alert"), dialog.dismiss()))
    page.on("request", lambda request: found.asked_for.append(request.url))
    page.goto(path.as_uri() + address)
    page.wait_for_selector("html[data-ready]", timeout=30_000)
    return found


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
        given[0] = replace(given[0], text="".join(HOSTILE) * 5000, letter=None, outcome=Outcome.UNPARSED)
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


def test_the_page_opens_from_disk_and_fits(opened: Visit) -> None:
    page = opened.page
    assert opened.count() == 108
    for width in (1280, 1100, 800, 420, 360):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.eval_on_selector_all("h1, h2", "all => all.length") >= 6


def test_a_phone_has_room_for_figures_and_rows(opened: Visit) -> None:
    """Figures are whole, the search is wide, and a row tells image, question and answers without overlap."""
    page = opened.page
    page.set_viewport_size({"width": 420, "height": 900})
    for chart in page.locator(".chart.narrow").all():
        box = chart.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 420 and box["width"] > 300
    assert not page.locator(".chart.wide:visible").count()
    assert page.locator("#search").bounding_box()["width"] > 300
    page.click(".row >> nth=1", trial=True)
    for line in (".head", ".row >> nth=1"):
        cells = page.locator(line).locator("> span:visible")
        boxes = [cell.bounding_box() for cell in cells.all()]
        assert len(boxes) == (4 if line == ".head" else 5)
        for i, one in enumerate(boxes):
            assert one["width"] > 20 and one["x"] + one["width"] <= 420
            for other in boxes[i + 1 :]:
                apart = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
                assert (
                    apart
                    or one["y"] + one["height"] <= other["y"]
                    or other["y"] + other["height"] <= one["y"]
                )
    assert page.locator(".row .key-of").nth(1).bounding_box()["width"] > 200
    tops = [row.bounding_box()["y"] for row in page.locator(".row").all()[:3]]
    assert tops[1] - tops[0] == tops[2] - tops[1] == 82
    page.keyboard.press("/")
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.wait_for_selector(".row.current")
    grid, last = page.locator("#list").bounding_box(), page.locator(".row.current").bounding_box()
    assert last["y"] + last["height"] <= grid["y"] + grid["height"] + 1
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_function("document.querySelector('.row').offsetHeight === 36")


def test_filters_find_what_they_say(opened: Visit, run: tuple[Subject, Path]) -> None:
    page, subject = opened.page, run[0]
    right = subject.panel.right
    tables = [{(a.key, a.number): a.letter for a in entry.answers} for entry in subject.entries]
    letters = np.array([[table[question] for question in subject.panel.questions] for table in tables])
    silent = letters == None  # noqa: E711
    differ = [len({letter for letter in column if letter}) > 1 for column in letters.T]
    expected = {
        "none-right": (~right).all(0), "all-right": right.all(0), "disagree": np.array(differ),
        "no-letter": silent.any(0), "duel": ~right[0] & right[1],
    }  # fmt: skip
    for preset, wanted in expected.items():
        page.select_option("#f-preset", preset)
        assert opened.count() == wanted.sum(), preset
    page.click("button[type=reset]")
    assert opened.count() == right.shape[1]
    for name, wanted in (("right", right[1]), ("wrong", ~right[1] & ~silent[1]), ("silent", silent[1])):
        page.evaluate("document.querySelector('#by-model').open = true")
        page.select_option("#f-models select[data-model='1']", name)
        assert opened.count() == wanted.sum(), name
    page.click("button[type=reset]")
    normal = sum("good" in key for key, _ in subject.panel.questions)
    page.select_option("#f-condition", "normal")
    assert opened.count() == normal
    page.fill("#search", "BOTTLE kind of")
    assert opened.count() == sum("bottle" in key and "good" in key for key, _ in subject.panel.questions) // 4
    page.fill("#search", "nothing has this in it")
    assert opened.count() == 0 and "No question" in page.text_content("#list")
    assert page.evaluate("location.hash").startswith("#?")


def test_products_follow_the_dataset(opened: Visit) -> None:
    page = opened.page
    page.select_option("#f-dataset", label="VisA")
    options = page.eval_on_selector_all("#f-object option", "all => all.map((one) => one.textContent)")
    assert options == ["any", "candle", "pcb1"]
    page.select_option("#f-object", label="candle")
    assert opened.count() == 18
    page.select_option("#f-dataset", label="GoodsAD")
    assert page.input_value("#f-object") == "" and opened.count() == 18


def test_columns_sort_up_down_and_back(opened: Visit) -> None:
    page = opened.page
    before = opened.rows()
    head = page.locator(".head [aria-sort] button", has_text="Right")
    orders = []
    for _ in range(3):
        head.click()
        orders.append([int(row.split("/3")[0][-1]) for row in opened.rows()])
    assert orders[0] == sorted(orders[0]) and orders[1] == sorted(orders[1], reverse=True)
    assert opened.rows() == before


def test_a_question_shows_its_pictures_and_what_the_models_said(opened: Visit) -> None:
    page = opened.page
    page.select_option("#f-condition", "anomalous")
    page.select_option("#f-subtask", label="Defect localization")
    page.click(".row >> nth=0")
    page.wait_for_selector("dialog[open] .model")
    captions = page.eval_on_selector_all("dialog figcaption", "all => all.map((one) => one.textContent)")
    assert captions == ["Reference", "Query", "Ground truth"]
    page.wait_for_function("[...document.querySelectorAll('dialog img')].every((one) => one.naturalWidth)")
    assert page.locator("dialog .options li").count() == 4
    assert page.locator("dialog .options li.right em").text_content() == "the right answer"
    assert page.locator("dialog .model").count() == 3
    assert page.locator("dialog .probabilities").count() == 3
    widths = page.eval_on_selector_all(
        "dialog .model:first-child .probabilities .fill, dialog .model .probabilities .fill",
        "all => all.slice(0, 4).map((one) => parseFloat(one.style.width))",
    )
    assert sum(widths) == pytest.approx(100, abs=0.1)


def test_the_heat_map_lies_over_the_query(opened: Visit) -> None:
    page = opened.page
    page.click(".row >> nth=0")
    page.wait_for_selector("dialog img.heat")
    page.wait_for_function("document.querySelector('dialog img.heat').naturalWidth === 2")
    assert "highest here 0.78" in page.text_content("dialog .scale")
    page.click("dialog figcaption button")
    assert (
        page.eval_on_selector("dialog img.heat", "one => getComputedStyle(one).imageRendering") == "pixelated"
    )


def test_the_keyboard_does_everything(opened: Visit) -> None:
    page = opened.page
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("candle")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "list" and opened.count() == 18
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-2"
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    place = page.locator("dialog .place")
    assert place.text_content() == "2 of 18"
    for key, wanted in (("j", 3), ("ArrowRight", 4), ("k", 3), ("ArrowLeft", 2)):
        page.keyboard.press(key)
        playwright.expect(place).to_have_text(f"{wanted} of 18")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("End")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-17"


def test_an_address_brings_back_filters_and_question(browser: Any, run: tuple[Subject, Path]) -> None:
    first = visit(browser, run[1])
    first.page.select_option("#f-dataset", label="VisA")
    first.page.fill("#search", "defect")
    first.page.locator(".head button", has_text="Right").click()
    first.page.click(".row >> nth=2")
    first.page.wait_for_selector("dialog[open] .model")
    first.page.wait_for_function("location.hash.includes('item=')")
    address, title = first.page.evaluate("location.hash"), first.page.text_content("dialog .place")
    second = visit(browser, run[1], address)
    second.page.wait_for_selector("dialog[open] .model")
    assert second.page.text_content("dialog .place") == title and second.count() == first.count()
    assert second.page.evaluate("location.hash") == address
    second.page.evaluate(
        "location.hash = '#?dataset=none&model.x=right&item=nothing:1&a=77&sort=constructor'"
    )
    second.page.wait_for_function("document.querySelector('#count').textContent.startsWith('108')")
    assert first.said == second.said == []


def closed(page: Any) -> None:
    page.wait_for_selector("dialog:not([open])", state="attached")


def test_back_closes_a_question_and_stays_in_the_report(browser: Any, run: tuple[Subject, Path]) -> None:
    """Opening is a step in the browser's history, going from question to question is none."""
    found = visit(browser, run[1])
    page = found.page
    page.select_option("#f-dataset", label="VisA")
    before, steps = page.evaluate("location.hash"), page.evaluate("history.length")
    page.click(".row >> nth=1")
    page.wait_for_function("location.hash.includes('item=')")
    page.keyboard.press("j")
    playwright.expect(page.locator("dialog .place")).to_have_text(f"3 of {found.count()}")
    last = page.evaluate("location.hash")
    assert page.evaluate("history.length") == steps + 1
    page.go_back()
    closed(page)
    assert page.evaluate("location.hash") == before and found.count() == 36
    page.go_forward()
    page.wait_for_selector("dialog[open] .model")
    assert page.evaluate("location.hash") == last
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.click("dialog [aria-label^=Close]")):
        close()
        closed(page)
        page.wait_for_function("wanted => location.hash === wanted", arg=before)
        assert page.evaluate("history.length") == steps + 1  # what was opened is ahead, not piled up
        page.keyboard.press("Enter")
        page.wait_for_function("location.hash.includes('item=')")
    page.keyboard.press("Escape")  # opened again before the step back has been taken
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .model")
    page.wait_for_function("location.hash.includes('item=') && history.state?.item")
    assert found.said == []


def test_a_question_that_came_with_the_address_closes_too(browser: Any, run: tuple[Subject, Path]) -> None:
    first = visit(browser, run[1])
    first.page.click(".row >> nth=3")
    first.page.wait_for_function("location.hash.includes('item=')")
    second = visit(browser, run[1], first.page.evaluate("location.hash"))
    second.page.wait_for_selector("dialog[open] .model")
    steps = second.page.evaluate("history.length")
    second.page.keyboard.press("Escape")
    second.page.wait_for_function("location.hash === '#questions'")
    assert second.page.evaluate("history.length") == steps and second.said == []


@pytest.mark.parametrize(
    ("address", "message", "left"),
    [
        ("#?dataset=Nowhere&preset=none-right", "has no dataset Nowhere; that filter was left out.", None),
        ("#?dataset=Nowhere&model.x=right", "no dataset Nowhere, no model x; these filters were", 108),
        ("#?preset=constructor&sort=constructor", "no filter of answers constructor, no column", 108),
        ("#?colour=red", "has no filter colour; that", 108),
        ("#?dataset=GoodsAD&object=candle", "has no product candle in this dataset; that filter", 18),
        ("#?item=nothing:1", "This report has no question nothing:1.", 108),
        ("#?dataset=VisA", "", 36),
    ],
)
def test_what_an_address_asks_for_in_vain_is_said(
    browser: Any, run: tuple[Subject, Path], address: str, message: str, left: int | None
) -> None:
    found = visit(browser, run[1], address)
    told = found.page.locator("#left-out")
    assert told.is_visible() == bool(message) and message in told.text_content()
    assert left is None or found.count() == left
    found.page.select_option("#f-subtask", "0")
    assert not told.is_visible() and found.said == []
    found.page.context.close()


def test_the_slash_brings_the_results_into_sight(opened: Visit) -> None:
    page = opened.page
    page.keyboard.press("/")
    page.keyboard.type("candle")
    page.wait_for_timeout(300)
    title = page.locator("#questions-title").bounding_box()
    assert 0 < title["y"] < 120
    assert page.locator(".row >> nth=3").bounding_box()["y"] < 900
    assert page.evaluate("document.activeElement.id") == "search"


def test_groups_that_tell_nothing_apart_are_not_drawn(opened: Visit) -> None:
    """One size of image and one kind of defect: a normal image has none, but is still told from others."""
    page = opened.page
    keys = page.eval_on_selector_all(".panel", "all => all.map((one) => one.dataset.key)")
    assert keys == ["dataset", "object"] and not page.locator("#f-size").is_visible()
    kinds = page.locator("#f-kind option").all_text_contents()
    assert len(kinds) == 2 and kinds[0] == "any" and "normal" not in kinds
    assert any("normal" in row for row in opened.rows())


def test_a_group_of_the_drill_down_becomes_a_filter(opened: Visit, run: tuple[Subject, Path]) -> None:
    page, subject = opened.page, run[0]
    page.select_option("#drill-model", "1")
    line = page.locator(".panel[data-key=object] .weak", has_text="candle")
    row = [a for a in subject.entries[1].answers if "/candle/" in a.key]
    assert line.locator(".n").text_content() == str(len(row))
    line.click()
    assert opened.count() == sum(a.letter not in (None, a.correct) for a in row)
    values = page.eval_on_selector_all(
        ".panel[data-key=object] .value", "all => all.map((one) => +one.textContent)"
    )
    assert values == sorted(values)
    page.select_option("#drill-metric", "anomaly_discrimination")
    assert page.locator(".panel[data-key=dataset] .n").first.text_content() in ("4", "8")


def test_the_matrix_changes_its_score(opened: Visit) -> None:
    page = opened.page
    assert page.locator(".matrix:visible caption").text_content().startswith("Average")
    page.select_option("#matrix-metric", "object_analysis")
    assert page.locator(".matrix:visible caption").text_content().startswith("Object analysis")
    assert page.locator(".matrix:visible").count() == 1


def test_light_and_dark_follow_the_system_and_the_button(browser: Any, run: tuple[Subject, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        found = visit(browser, run[1], color_scheme=scheme)
        seen[scheme] = found.page.evaluate(ground)
        found.page.click("#theme")
        seen[f"{scheme} turned"] = found.page.evaluate(ground)
        found.page.reload()
        found.page.wait_for_selector("html[data-ready]")
        assert found.page.evaluate(ground) == seen[f"{scheme} turned"]
    assert seen["light"] == seen["dark turned"] != seen["dark"] == seen["light turned"]


def test_hostile_texts_are_shown_and_do_nothing(opened: Visit) -> None:
    page = opened.page
    page.click(".row >> nth=0")
    page.wait_for_selector("dialog[open] .response")
    text = page.text_content("dialog .response")
    assert len(text) == 4000 and text.startswith("<script>alert(1)</script>")
    assert "more characters are not in this page" in page.text_content("dialog .cut")
    assert page.locator("dialog .model b").first.text_content() == "<img src=x onerror=alert(1)>"
    assert page.locator("dialog script, dialog img[onerror]").count() == 0
    assert (
        page.eval_on_selector("dialog .response", "one => getComputedStyle(one).unicodeBidi") == "plaintext"
    )


def test_without_scripts_tables_and_figures_are_there(browser: Any, run: tuple[Subject, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(run[1].as_uri())
    for wanted in ("#forest-title", "#radar-title", "#bars-title"):
        assert page.locator(wanted).count() == 1
    assert page.locator("noscript .hint, .hint").first.is_visible()
    assert page.locator(".matrix table").first.is_visible() and not page.locator("#questions").is_visible()
    context.close()


def test_print_leaves_the_explorer_out(opened: Visit) -> None:
    page = opened.page
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("#questions").is_visible() and not page.locator("#drill").is_visible()
    assert page.locator("#comparison table").is_visible()
    assert (
        page.locator(".chart.wide:visible").count() == 3 and not page.locator(".chart.narrow:visible").count()
    )
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#by-dataset .printed").is_visible() and page.locator("#outcomes").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.locator("#outcomes").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 36, 48)"


def test_a_page_without_pictures_is_whole(browser: Any, tmp_path: Path) -> None:
    subject = synthetic(40, 2)
    found = visit(browser, write_page(subject, tables_of(subject), tmp_path))
    found.page.click(".row >> nth=1")
    found.page.wait_for_selector("dialog[open] .model")
    assert found.page.locator("dialog img").count() == 0 and found.said == []
    window, body = (found.page.locator(name).bounding_box()["height"] for name in ("dialog", "dialog .ask"))
    assert window - body < 200  # no room is kept for the pictures


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_models_on_all_of_mmad_are_quick(browser: Any, tmp_path: Path) -> None:
    """39,738 questions: opened, filtered, sorted and searched within the limits."""
    subject = synthetic(8366, 10, words=40, logprobs=True)
    path = write_page(subject, tables_of(subject)[:1], tmp_path)
    took: dict[str, float] = {}
    for _ in range(2):  # the better of two: other work beside it is no fault of the page
        found = visit(browser, path)
        for name, seconds in found.page.evaluate(TIMED).items():
            took[name] = min(seconds, took.get(name, seconds))
        assert found.said == []
        found.page.context.close()
    print(json.dumps(took, indent=1))
    limits = {name: LIMITS["open" if name == "open" else "filter"] for name in took}
    assert {name: seconds for name, seconds in took.items() if seconds > limits[name]} == {}
