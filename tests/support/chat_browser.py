"""Chromium on the chat page: what a user does there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from playwright.sync_api import TimeoutError, sync_playwright

PATIENCE_MS = 60_000
"""On a busy machine."""

FLASH_MS = 1_500
START_MS = 20_000


def chromium() -> str | None:
    """Return the path of Chromium; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Start Chromium without a window."""
    with sync_playwright() as tools:
        # containers have no sandbox for root, and little shared memory
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = tools.chromium.launch(executable_path=chromium(), args=options)
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """One user: a browser context of its own, with the page open.

    Args:
        browser: From `opened_browser`.
        url: The page.
        options: Arguments of the context, such as ``viewport`` and ``color_scheme``.
    """

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the page can be used.

        A start of Gradio's page in a new browser context may hang (2 of some 60, the cause is not
        known): then it is loaded once more, as a user would.
        """
        try:
            self.page.locator("#box textarea").wait_for(timeout=START_MS)
        except TimeoutError:
            self.page.reload()
        self.page.locator("#box textarea").wait_for()
        self.page.wait_for_function("document.querySelector('#left-name input')?.value !== ''")

    def ask(self, text: str, *, wait: bool = False) -> None:
        """Type a question and send it by Enter; wait for the end of its answers if wanted."""
        before = self.page.locator("#left .user-row").count()
        box = self.page.locator("#box textarea")
        box.fill(text)
        box.press("Enter")
        self.page.locator("#left .user-row").nth(before).wait_for()
        if wait:
            self.wait_for_end()

    def wait_for_end(self) -> None:
        """Wait until the answers that begin about now are complete."""
        with suppress(TimeoutError):  # where they were faster than the eye
            self.page.locator("#stop").wait_for(timeout=FLASH_MS)
        self.page.locator("#stop").wait_for(state="hidden")
        self.page.locator("#send").wait_for()

    def said(self, side: str = "left") -> str:
        """Return the text of a side."""
        return str(self.page.locator(f"#{side}").inner_text())

    def view(self, name: str) -> None:
        """Choose a view by its text."""
        self.page.locator("#view").get_by_text(name).click()

    def headline(self) -> str:
        """Return the line above the last answer of the left side."""
        return str(self.page.locator("#left .thought-group .title").last.inner_text()).strip()

    def open_fold(self, side: str = "left") -> None:
        """Open what stands behind the line above the last answer."""
        self.page.locator(f"#{side} .thought-group .title").last.click()
        self.page.locator(f"#{side} .thought-group").last.get_by_text("Request").wait_for()

    def turn_dial(self, place: float) -> None:
        """Set the dial, as a user who drags it and lets it go."""
        dial = self.page.locator("#dial input[type=range]")
        dial.evaluate(
            """(input, value) => {
                input.value = value;
                input.dispatchEvent(new Event("input", {bubbles: true}));
                input.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
            }""",
            str(place),
        )

    def open_settings(self) -> None:
        """Open the settings, if they are closed."""
        if not self.page.locator("#route-on").is_visible():
            self.page.locator("#settings").get_by_text("Settings").click()
            self.page.locator("#route-on").wait_for()

    def open_sidebar(self) -> None:
        """Open the list of talks."""
        self.page.get_by_role("button", name="Toggle Sidebar").click()
        self.page.locator("#new").wait_for()

    def choose(self, name: str, option: str) -> None:
        """Choose an option of a list in the settings."""
        self.open_settings()
        self.page.locator(f"#{name} input").click()
        self.page.get_by_role("option", name=option).click()

    def begin_anew(self) -> None:
        """Begin a talk with one answer and the dial at its best end."""
        if self.page.locator("#right").is_visible():
            self.view("Chat")
            self.page.locator("#right").wait_for(state="hidden")
        if self.page.locator("#left .user-row").count():
            self.page.keyboard.press("Alt+n")
            self.page.locator("#left .user-row").first.wait_for(state="detached")
        self.turn_dial(10)

    def redraw(self, question: str) -> None:
        """Begin the battle again while the LLM that always fails is one of the two."""
        while "no answer" in self.said("left") + self.said("right"):
            self.page.keyboard.press("Alt+n")
            self.page.locator("#left .user-row").wait_for(state="detached")
            self.ask(question, wait=True)

    def close(self) -> None:
        """Close the page."""
        self.context.close()
