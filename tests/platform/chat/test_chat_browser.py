"""The chat page in Chromium: ask, stop, the dial, what is kept, the ways a talk goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest

from support.chat_browser import Visitor
from support.chat_page import COOK, PROVE, Served
from waypost.engines.echo import EchoEngine

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return held


def at_work(page: Served, name: str) -> int:
    """Number of requests that an engine works on."""
    engine = page.engine(name)
    assert isinstance(engine, EchoEngine)
    return len(engine.calls)


def test_an_answer_comes_word_by_word_with_what_is_known_of_it(user: Visitor) -> None:
    question = " ".join([COOK] * 6)
    user.ask(question)
    answer = user.page.locator("#left .bot-row").last
    user.page.wait_for_function(
        "() => document.querySelector('#left .bot-row')?.innerText.includes('garlic')"
    )
    begun = answer.inner_text()
    user.wait_for_end()
    assert begun.count("garlic") < answer.inner_text().count("garlic") == 6
    head = answer.locator(".thought-group .title").inner_text()
    assert head.startswith("cook · $0.0000")
    assert head.endswith(" s")
    user.open_fold()
    told = answer.inner_text()
    for part in (
        "Why", "highest predicted quality", "prover", "Cost", "predicted $", "36 in, 36 out",
        "to the first token", "knnrouter, lambda 0", "Request",
    ):  # fmt: skip
        assert part in told
    assert "always the dearest" in user.page.locator("#bill").inner_text()


def test_stop_stops_the_engine(user: Visitor, chat_page: Served) -> None:
    user.ask(" ".join([COOK] * 60))
    assert within(10, lambda: at_work(chat_page, "cook") == 1)
    user.page.keyboard.press("Escape")
    user.wait_for_end()
    assert within(5, lambda: at_work(chat_page, "cook") == 0)
    assert "Stopped" in user.said()


def test_an_answer_stops_when_its_page_is_closed(visit: Visit, chat_page: Served) -> None:
    user = visit()
    user.ask(" ".join([COOK] * 120))
    assert within(10, lambda: at_work(chat_page, "cook") == 1)
    user.page.close()
    assert within(10, lambda: at_work(chat_page, "cook") == 0)


def test_the_dial_changes_the_llm(user: Visitor) -> None:
    user.ask(COOK, wait=True)
    assert user.headline().startswith("cook ·")
    user.turn_dial(0)
    user.page.locator("#next").get_by_text("would go to tiny").wait_for()
    user.ask(COOK, wait=True)
    assert user.headline().startswith("tiny ·")


def test_markdown_formulas_and_code_are_drawn(user: Visitor) -> None:
    user.turn_dial(0)
    user.ask(COOK, wait=True)
    answer = user.page.locator("#left .bot-row").last
    for drawn in (".katex", "strong", "pre code", "table"):
        assert answer.locator(drawn).count() >= 1


def test_a_failover_is_seen(user: Visitor) -> None:
    user.ask(PROVE, wait=True)
    assert "after prover failed" in user.headline()
    user.open_fold()
    assert "prover did not answer" in user.said()


def test_a_talk_survives_a_reload(visit: Visit) -> None:
    user = visit()
    user.ask(COOK, wait=True)
    user.ask(f"{COOK} again", wait=True)
    user.page.reload()
    user.wait_until_ready()
    user.page.locator("#left").get_by_text("again").first.wait_for()
    assert user.page.locator("#left .user-row").count() == 2
    assert user.headline().startswith("cook ·")
    user.page.keyboard.press("Alt+n")
    user.page.locator("#left .user-row").first.wait_for(state="detached")
    user.open_sidebar()
    user.page.locator("#talks label").first.click()
    user.page.locator("#left .user-row").nth(1).wait_for()


def test_regenerate_undo_and_edit(user: Visitor) -> None:
    user.ask(COOK, wait=True)
    user.turn_dial(0)
    user.page.get_by_role("button", name="Retry").last.click()
    user.page.locator("#left .thought-group").get_by_text("tiny ·").wait_for()
    user.wait_for_end()
    user.page.get_by_role("button", name="Edit").first.click()
    box = user.page.locator("#left textarea")
    box.fill(f"{COOK} once more")
    user.page.get_by_role("button", name="Submit").first.click()
    user.page.locator("#left .user-row").get_by_text("once more").wait_for()
    user.wait_for_end()
    user.page.get_by_role("button", name="Undo").last.click()
    user.page.locator("#left .user-row").wait_for(state="detached")
    assert user.page.locator("#box textarea").input_value() == f"{COOK} once more"


def test_a_router_that_works_in_steps_shows_them(visit: Visit) -> None:
    user = visit()
    user.choose("left-name", "rounds")
    user.ask(COOK, wait=True)
    user.open_fold()
    assert "step" in user.said()
    assert "plan" in user.said()


def test_twenty_users_stream_at_the_same_time(chat_page: Served) -> None:
    with ThreadPoolExecutor(1) as other:  # Playwright has a loop in this thread
        most, pictures = other.submit(asyncio.run, twenty_users(chat_page)).result()
    assert most == 20
    assert min(pictures) >= 3


async def twenty_users(chat_page: Served) -> tuple[int, list[int]]:
    """Return how many answers were written at the same time, and the pictures that each saw."""
    question = " ".join([COOK] * 40)
    most = 0
    async with aiohttp.ClientSession(chat_page.url) as session:
        users = [await PageClient.open(session, f"user-{number}") for number in range(20)]
        asked = [question, "chat", 10, "auto", "auto", "current_only", 3]
        await asyncio.gather(*(user.call("ask", *asked) for user in users))
        streams = asyncio.gather(*(user.call("stream") for user in users))
        while not streams.done():
            most = max(most, at_work(chat_page, "cook"))
            await asyncio.sleep(0.01)
    return most, streams.result()


class PageClient:
    """A user without a browser: Gradio's own calls over HTTP.

    Args:
        session: To the page.
        name: Gradio's name of the visit.
        numbers: Number of each handler, by its name.
    """

    def __init__(self, session: aiohttp.ClientSession, name: str, numbers: dict[str, int]) -> None:
        self._session, self._name, self._numbers = session, name, numbers

    @classmethod
    async def open(cls, session: aiohttp.ClientSession, name: str) -> PageClient:
        async with session.get("/config") as answer:
            config = await answer.json()
        return cls(session, name, {one["api_name"]: one["id"] for one in config["dependencies"]})

    async def call(self, name: str, *inputs: Any) -> int:
        """Call a handler; return how many pictures came before its end."""
        number = self._numbers[name]
        body = {"data": [None, *inputs], "fn_index": number, "session_hash": self._name}
        async with self._session.post("/gradio_api/queue/join", json=body) as answer:
            assert answer.ok
        pictures = 0
        asked = {"session_hash": self._name}
        async with self._session.get("/gradio_api/queue/data", params=asked) as events:
            async for line in events.content:
                told = json.loads(line[5:]) if line.startswith(b"data:") else {}
                pictures += told.get("msg") == "process_generating"
                if told.get("msg") == "process_completed":
                    assert told["success"]
                    return pictures
        raise AssertionError("the call did not end")
