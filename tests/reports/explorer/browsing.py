"""A browser's visit to a page, and everything that it did."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


def until(page: Any, condition: str, arg: Any = None, seconds: float = 30.0) -> None:
    """Wait until a condition holds in the page, asking from here.

    Playwright's `wait_for_function` asks again from a timer inside the page, where the page's
    Content-Security-Policy rightly forbids `eval`: it works only when the condition holds at once.

    Raises:
        TimeoutError: it did not come to hold in that time.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(condition, arg):
        if time.monotonic() > end:
            raise TimeoutError(f"the page never came to: {condition}")
        page.wait_for_timeout(20)
