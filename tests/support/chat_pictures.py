"""Photographs the chat page in every state, over echo engines.

    python -P tests/support/chat_pictures.py DOCS ALL

DOCS gets the pictures of docs/chat.md, ALL one of each state.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.chat_browser import Visitor, opened_browser
from support.chat_page import COOK, PROVE, page_alone, served

WIDE = {"viewport": {"width": 1400, "height": 860}}
NARROW = {"viewport": {"width": 400, "height": 800}}
OF_DOCS = ("answered", "side")
SETTLE_MS = 600
"""For what is animated."""


def empty(user: Visitor) -> None:
    """Before the first question."""


def asking(user: Visitor) -> None:
    """While an answer comes."""
    user.ask(" ".join([COOK] * 30))
    user.page.wait_for_function(
        "() => document.querySelector('#left .bot-row')?.innerText.includes('garlic')"
    )


def answered(user: Visitor) -> None:
    """With the line above an answer opened, and the dial moved."""
    user.ask(COOK, wait=True)
    user.open_fold()
    user.turn_dial(0)
    user.page.locator("#next").get_by_text("would go to").wait_for()


def rich(user: Visitor) -> None:
    """Markdown, a formula, code."""
    user.turn_dial(0)
    user.ask(COOK, wait=True)


def failed_over(user: Visitor) -> None:
    """The LLM that the router chose fails."""
    user.ask(PROVE, wait=True)
    user.open_fold()


def failed(user: Visitor) -> None:
    """The only LLM that may answer fails."""
    user.choose("left-name", "prover")
    user.ask(PROVE, wait=True)


def steps(user: Visitor) -> None:
    """A router that works in steps."""
    user.choose("left-name", "rounds")
    user.ask(COOK, wait=True)
    user.open_fold()


def side(user: Visitor) -> None:
    """Two answers, and the four votes."""
    user.view("Side by side")
    user.page.locator("#right").wait_for()
    user.ask(COOK, wait=True)


def battle(user: Visitor) -> None:
    """Before the vote."""
    user.view("Blind battle")
    user.page.locator("#right").wait_for()
    user.ask(COOK, wait=True)
    user.redraw(COOK)


def voted(user: Visitor) -> None:
    """After the vote."""
    battle(user)
    user.page.keyboard.press("Alt+1")
    user.page.locator("#verdict").get_by_text("Your vote").wait_for()


def rated(user: Visitor) -> None:
    """A thumb, and the box for its reason."""
    user.ask(COOK, wait=True)
    user.page.get_by_role("button", name="dislike").last.click()
    user.page.locator("#why-row").wait_for()


def talks(user: Visitor) -> None:
    """The list of talks, and the settings."""
    user.ask(COOK, wait=True)
    user.open_settings()
    user.open_sidebar()


STATES: tuple[Callable[[Visitor], None], ...] = (
    empty, asking, answered, rich, failed_over, failed, steps, side, battle, voted, rated, talks,
)  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {"": WIDE, "-narrow-dark": {**NARROW, "color_scheme": "dark"}}
MORE_FORMS = {"-dark": {**WIDE, "color_scheme": "dark"}, "-narrow": NARROW}
IN_ALL_FORMS = ("answered", "side")


def photograph(browser: Any, url: str, target: Path) -> None:
    """Write a picture of each state, wide and narrow, light and dark."""
    for state in STATES:
        forms = FORMS | MORE_FORMS if state.__name__ in IN_ALL_FORMS else FORMS
        for form, options in forms.items():
            user = Visitor(browser, url, **options)
            state(user)
            user.page.wait_for_timeout(SETTLE_MS)
            user.page.screenshot(path=str(target / f"{state.__name__}{form}.png"))
            user.close()


def main(docs: Path, target: Path) -> None:
    """Write all pictures."""
    for folder in (docs, target):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, opened_browser() as browser:
        with served(Path(folder)) as page:
            photograph(browser, page.url, target)
        with page_alone("http://127.0.0.1:9") as url:
            user = Visitor(browser, url, **WIDE)
            user.ask(COOK, wait=True)
            user.page.screenshot(path=str(target / "no_gateway.png"))
            user.close()
    for name in OF_DOCS:
        shutil.copy(target / f"{name}.png", docs / f"{name}.png")
    print(f"wrote {len(list(target.glob('*.png')))} pictures to {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
