"""The chat page in Chromium: thumbs, comparisons, files, retrieval, what goes wrong."""

from __future__ import annotations

import json
import re
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.chat_browser import Visitor
from support.chat_page import COOK, Served, page_alone

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]


def events(page: Served) -> list[dict[str, Any]]:
    """What the gateway's store has of feedback, oldest first."""
    (database,) = page.folder.rglob("feedback.sqlite")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as opened:
        opened.row_factory = sqlite3.Row
        return [dict(row) for row in opened.execute("SELECT * FROM events ORDER BY n")]


def test_a_thumb_with_its_reason_is_in_the_store(user: Visitor, chat_page: Served) -> None:
    user.ask(COOK, wait=True)
    user.page.get_by_role("button", name="dislike").last.click()
    why = user.page.locator("#why textarea, #why input")
    why.fill("too short")
    why.press("Enter")
    user.page.locator("#why-row").wait_for(state="hidden")
    last = events(chat_page)[-1]
    assert (last["kind"], last["rating"], last["reason"]) == ("rating", 0.0, "too short")
    assert last["user_id"].startswith("browser-")


def test_two_side_by_side_and_a_vote(user: Visitor, chat_page: Served) -> None:
    user.view("Side by side")
    user.page.locator("#right").wait_for()
    user.ask(COOK, wait=True)
    assert "cook ·" in user.said("left")
    assert "tiny ·" in user.said("right")
    user.page.locator("#vote-tie").click()
    user.page.locator("#verdict").get_by_text("a tie").wait_for()
    assert events(chat_page)[-1]["preference"] == "tie"


def test_a_battle_names_the_llms_after_the_vote(visit: Visit, chat_page: Served) -> None:
    user = visit()
    user.view("Blind battle")
    user.page.locator("#right").wait_for()
    user.ask(COOK, wait=True)
    user.redraw(COOK)
    said = user.said("left") + user.said("right")
    assert "Answer A" in said
    assert "Answer B" in said
    assert "cook" not in said
    assert "tiny" not in said
    user.page.keyboard.press("Alt+2")
    user.page.locator("#verdict").get_by_text("Your vote").wait_for()
    said = user.said("left") + user.said("right")
    assert "cook ·" in said
    assert "tiny ·" in said
    last = events(chat_page)[-1]
    assert (last["kind"], last["preference"]) == ("preference", "right")
    line = json.loads(exported(user, "export-votes").read_text(encoding="utf-8"))
    assert line["type"] == "rightvote"
    assert sorted(line["models"]) == ["cook", "tiny"]


def exported(user: Visitor, button: str) -> Path:
    user.open_sidebar()
    with user.page.expect_download() as download:
        user.page.locator(f"#{button}").click()
    return Path(download.value.path())


def test_a_talk_is_exported_with_all_that_is_known(visit: Visit) -> None:
    user = visit()
    user.ask(COOK, wait=True)
    told = json.loads(exported(user, "export-json").read_text(encoding="utf-8"))
    (answer,) = told["turns"][0]["answers"]
    assert (answer["model"], answer["decision"]["router"]) == ("cook", "knnrouter")
    assert answer["cost_usd"] > 0


def test_retrieval_looks_at_earlier_turns(visit: Visit) -> None:
    user = visit()
    user.ask(COOK, wait=True)
    user.choose("route-on", "similar earlier turns")
    user.ask(f"{COOK} and now", wait=True)
    user.open_fold()
    fold = user.page.locator("#left .thought-group").last.inner_text()
    assert "on retrieval" in fold
    assert "Earlier turns 1 of 1 looked at" in fold


def test_a_gateway_that_is_gone_is_one_sentence(visit: Visit) -> None:
    with page_alone("http://127.0.0.1:9") as url:
        user = visit(url=url)
        user.page.locator("#notice").get_by_text("cannot be reached; is it running?").wait_for()
        user.ask(COOK, wait=True)
        assert "No answer. The gateway at http://127.0.0.1:9 cannot be reached" in user.said()
        assert "Traceback" not in user.page.content()


def test_foreign_names_of_the_host_get_nothing(chat_page: Served) -> None:
    request = urllib.request.Request(chat_page.url, headers={"host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 421
    refused.value.close()
    with urllib.request.urlopen(chat_page.url) as page:
        assert "img-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_nothing_is_wider_than_the_window(visit: Visit, width: int, scheme: str) -> None:
    user = visit(viewport={"width": width, "height": 800}, color_scheme=scheme)
    user.turn_dial(0)
    user.ask(COOK, wait=True)
    assert user.page.evaluate("document.documentElement.scrollWidth") <= width
    for part in ("#box", "#send", "#dial", "#left"):
        box = user.page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    shade = user.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", shade)[:3])) < 200) == (scheme == "dark")
