"""Moving about in the page: by keyboard, by addresses, back and forth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.subject import Subject
from tests.reports.explorer.browsing import Visit, until, visit

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


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
    until(first.page, "location.hash.includes('item=')")
    address, title = first.page.evaluate("location.hash"), first.page.text_content("dialog .place")
    second = visit(browser, run[1], address)
    second.page.wait_for_selector("dialog[open] .model")
    assert second.page.text_content("dialog .place") == title and second.count() == first.count()
    assert second.page.evaluate("location.hash") == address
    second.page.evaluate(
        "location.hash = '#?dataset=none&model.x=right&item=nothing:1&a=77&sort=constructor'"
    )
    until(second.page, "document.querySelector('#count').textContent.startsWith('108')")
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
    until(page, "location.hash.includes('item=')")
    first = page.evaluate("location.hash")
    page.keyboard.press("j")
    playwright.expect(page.locator("dialog .place")).to_have_text(f"3 of {found.count()}")
    until(page, "first => location.hash !== first", arg=first)
    last = page.evaluate("location.hash")
    assert page.evaluate("history.length") == steps + 1
    page.go_back()
    closed(page)
    until(page, "wanted => location.hash === wanted", arg=before)
    assert found.count() == 36
    page.go_forward()
    page.wait_for_selector("dialog[open] .model")
    until(page, "wanted => location.hash === wanted", arg=last)
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.click("dialog [aria-label^=Close]")):
        close()
        closed(page)
        until(page, "wanted => location.hash === wanted", arg=before)
        assert page.evaluate("history.length") == steps + 1  # what was opened is ahead, not piled up
        page.keyboard.press("Enter")
        until(page, "location.hash.includes('item=')")
    for _ in range(3):
        page.keyboard.press("Escape")  # opened again before the step back has been taken
        page.keyboard.press("Enter")
        page.wait_for_timeout(500)  # what was still to come has come
        assert page.evaluate("document.querySelector('#item').open")
        assert page.evaluate("location.hash.includes('item=') && history.state.item")
    page.keyboard.press("j")  # closed while the next one is being fetched
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    assert not page.evaluate("document.querySelector('#item').open")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] .model")
    assert found.said == []


def test_a_question_that_came_with_the_address_closes_too(browser: Any, run: tuple[Subject, Path]) -> None:
    first = visit(browser, run[1])
    first.page.click(".row >> nth=3")
    until(first.page, "location.hash.includes('item=')")
    second = visit(browser, run[1], first.page.evaluate("location.hash"))
    second.page.wait_for_selector("dialog[open] .model")
    steps = second.page.evaluate("history.length")
    second.page.keyboard.press("Escape")
    until(second.page, "location.hash === '#questions'")
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
