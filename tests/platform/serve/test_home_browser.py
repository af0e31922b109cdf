"""The gateway's page in a browser: a question, the latest decisions, a key, and the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import canaries
from support.gateway import COOKING, knn_artifact
from waypost import Gateway

pytestmark = pytest.mark.browser

POOL = [{"name": name, "engine": "echo"} for name in ("cook", "prover", "tiny")]
POOL[2]["config"] = {"fail_with": "500"}  # type: ignore[assignment]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    return knn_artifact(tmp_path_factory.mktemp("router") / "artifact")


@pytest.fixture
def page(browser) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda told: wrong.append(told.text) if "Policy" in told.text else None)
    yield page
    context.close()
    assert wrong == []


def test_a_question_is_answered_and_its_decision_is_listed(artifact, page) -> None:
    with Gateway(artifact=artifact, pool=POOL) as gateway:
        page.goto(f"{gateway.listen()}/")
        page.locator("#pool").get_by_text("prover").wait_for()
        page.locator("#question").fill(COOKING)
        page.locator("#question").press("Control+Enter")
        page.locator("#told").get_by_text("cook · $").wait_for()
        assert page.locator("#answer").inner_text() == COOKING
        page.get_by_text("Ranking").click()
        assert page.locator("#ranking tbody tr").count() == 3
        page.locator("#decisions").get_by_text("highest predicted quality").wait_for()
        page.locator("#model").select_option("tiny")
        page.locator("#send").click()
        page.locator("#told.error").get_by_text("no model answered").wait_for()
        # nothing is wider than the window
        assert page.evaluate("document.documentElement.scrollWidth") == 400


def test_with_keys_it_asks_for_one_and_keeps_it_in_the_tab(artifact, page) -> None:
    with canaries.keys(), Gateway(artifact=artifact, pool=POOL, api_keys=True) as gateway:
        url = gateway.listen()
        page.goto(f"{url}/")
        page.locator("#key").fill("wrong")
        page.locator("#unlock button").click()
        page.locator("#locked").wait_for()
        page.locator("#key").fill(canaries.CLIENT)
        page.locator("#unlock button").click()
        page.locator("#locked").wait_for(state="hidden")
        page.reload()
        page.locator("#pool").get_by_text("prover").wait_for()


def test_the_api_is_shown_with_its_fields(artifact, page) -> None:
    with Gateway(artifact=artifact, pool=POOL) as gateway:
        page.goto(f"{gateway.listen()}/docs")
        page.locator("summary", has_text="/v1/route").click()
        page.locator("details[open]").get_by_text("x-waypost-route-on").wait_for()
        page.locator("nav").get_by_text("Gateway").click()
        page.locator("#pool").get_by_text("prover").wait_for()
