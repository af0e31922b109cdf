"""Answers that take longer than a request may wait for a place, in every mode of Serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import ALGEBRA, COOKING, chat, knn_artifact
from support.served import application, command, served

pytestmark = [pytest.mark.ray, pytest.mark.asyncio(loop_scope="module")]

CHAT = "/v1/chat/completions"
MODES = ("plain", pytest.param("throughput", marks=pytest.mark.long), "haproxy")
SLOW_S = 15.0
QUEUE_S = 10.0
ECHO = {"engine": "echo", "config": {"delay_s": SLOW_S}, "queue_timeout_s": QUEUE_S}

APPS = ("apart", "inside")
QUESTIONS = {"cook": COOKING, "prover": ALGEBRA}
"""``cook`` is a local engine, ``prover`` an HTTP one."""

CASES = tuple(product(APPS, QUESTIONS, ("pinned", "auto"), (False, True)))


@dataclass(frozen=True)
class Outcome:
    """What a client saw."""

    status: int
    headers: Any
    text: str
    seconds: float


def graph(artifact: Path, upstream: str) -> dict[str, Any]:
    """Two graphs of slow LLMs: in deployments of their own, and inside the gateway."""
    http = {"engine": "openai", "config": {"base_url": upstream, "model": "m", "max_retries": 0}}
    pool = [{"name": "cook", **ECHO}, {"name": "prover", **http, "queue_timeout_s": QUEUE_S}]
    tight = {"name": "tiny", **ECHO, "max_ongoing_requests": 1, "max_queued_requests": 2}
    inside = [{**entry, "placement": "inline"} for entry in pool]
    inline = {"router": {"placement": "inline"}}
    return {
        "applications": [
            application("apart", artifact, [*pool, tight], **inline),
            application("inside", artifact, inside, **inline),
        ]
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream(Reply(delay_s=SLOW_S)) as server:
        yield server


@pytest.fixture(scope="module", params=MODES)
def url(request, upstream, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    data = graph(knn_artifact(folder / "artifact"), upstream.url)
    if request.param != "haproxy":
        with served(data, folder, throughput=request.param == "throughput") as url:
            yield url
        return
    with command(data, folder, "--haproxy") as server:
        server.until(lambda: "Ctrl-C stops it" in server.said())
        yield server.url


async def ask(http: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> Outcome:
    begin = time.monotonic()
    async with http.post(url, json=body) as reply:
        text = await reply.text()
        return Outcome(reply.status, reply.headers, text, time.monotonic() - begin)


async def fill(http: aiohttp.ClientSession, url: str) -> list[Outcome]:
    """Ask for more than the only place of ``tiny`` and its queue hold."""
    bodies = [chat(model="tiny"), chat(model="tiny"), chat(model="tiny", stream=True)]
    asked = []
    for body in (*bodies, chat(model="tiny")):
        asked.append(asyncio.create_task(ask(http, url, body)))
        await asyncio.sleep(1.0)
    return await asyncio.gather(*asked)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(url) -> dict[Any, Any]:
    """All that is asked of one mode, at the same time: it takes as long as one answer."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(180)) as http:
        asked = [
            ask(
                http,
                f"{url}/{app}{CHAT}",
                chat(QUESTIONS[llm], model=llm if way == "pinned" else way, stream=stream),
            )
            for app, llm, way, stream in CASES
        ]
        *found, full = await asyncio.gather(*asked, fill(http, f"{url}/apart{CHAT}"))
    return {**dict(zip(CASES, found, strict=True)), "full": full}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("way", ["pinned", "auto"])
@pytest.mark.parametrize("llm", QUESTIONS)
@pytest.mark.parametrize("app", APPS)
async def test_a_slow_answer_is_that_of_the_first_llm_asked(outcomes, app, llm, way, stream):
    found: Outcome = outcomes[app, llm, way, stream]
    assert found.status == 200, found.text
    assert found.headers["x-waypost-model"] == llm
    assert found.headers["x-waypost-attempts"] == "1"
    assert found.seconds >= SLOW_S
    last = QUESTIONS[llm].split()[-1]
    assert last in found.text
    assert found.text.endswith("data: [DONE]\n\n") is stream


async def test_a_full_queue_is_429_within_the_time_that_a_request_may_wait(outcomes):
    first, *waited, refused = outcomes["full"]
    assert first.status == 200, first.text
    for found in (*waited, refused):
        assert found.status == 429, found.text
        assert int(found.headers["retry-after"]) >= 1
        assert '"overloaded"' in found.text
    assert all(QUEUE_S <= found.seconds < SLOW_S for found in waited)
    assert refused.seconds < QUEUE_S / 2
