"""The chat page behind the gateway: requests and answers pass through it, on both ingresses."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import aiohttp
import pytest

from support.gateway import chat, echo_pool, running
from support.ingress import listening
from waypost.contracts.errors import EngineConnectionError, EngineServerError
from waypost.serve.backends.passing import Message, respond
from waypost.serve.chat_page import Lifespan, Way
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.access import ClientKeys


class Page:
    """An application that shows what it got, streams, sends parts of a file, and fails."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.seen: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{what}"
                self.seen.append(what)
                await send({"type": f"lifespan.{what}.complete"})
            return
        body = (await receive())["body"]
        headers = dict(scope["headers"])
        name = scope["path"].rpartition("/")[2]
        if name == "fails":
            raise ValueError("secret text")
        status, told = 200, f"{scope['method']} {scope['path']}?{scope['query_string'].decode()}"
        if name == "file":
            status, told = 206, headers[b"range"].decode()
        if name == "upload":
            told = f"{headers[b'content-type'].decode()} {len(body)}"
        if name == "host":
            told = headers[b"host"].decode()
        kind = b"text/event-stream" if name == "events" else b"text/plain"
        pairs = [(b"content-type", kind), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        if name == "breaks":
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("secret text")
        if name == "events":
            told = "data: 2\n\n"
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            wait = asyncio.create_task(receive())
            done, _ = await asyncio.wait({wait}, timeout=0.3)
            if done:
                self.gone.set()
                return
            wait.cancel()
        await send({"type": "http.response.body", "body": told.encode()})


@pytest.fixture
def page() -> Page:
    return Page()


def with_page(artifact, page, **changes: Any) -> Any:
    return running(artifact, page=partial(respond, page), chat="on", **changes)


async def test_requests_reach_the_page_with_their_whole_path(artifact, page) -> None:
    async with with_page(artifact, page) as up:
        for path in ("/chat", "/chat/", "/chat/assets/a.js"):
            reply = await up.client.get(path)
            assert reply.body.decode() == f"GET {path}?"
            assert reply.headers["x-waypost-request-id"]
        assert [v for k, v in reply.raw if k == b"set-cookie"] == [b"a=1", b"b=2"]
        assert (await up.client.open("PUT", "/chat/x").end()).body == b"PUT /chat/x?"
        assert (await up.client.get("/chatter")).status == 404
        assert (await up.client.get("/v1/status")).json()["chat"] == "/chat"


async def test_over_http_uploads_ranges_queries_and_events_pass(artifact, page) -> None:
    chosen = {"page": partial(respond, page), "chat": {"max_upload_mb": 1}}
    async with (
        listening(artifact, **chosen) as there,
        aiohttp.ClientSession(f"{there.url}/chat/") as browser,
    ):
        async with browser.get("x?a=1&b=%20") as reply:
            assert await reply.text() == "GET /chat/x?a=1&b=%20"
        async with browser.get("file", headers={"range": "bytes=0-9"}) as reply:
            assert (reply.status, await reply.text()) == (206, "bytes=0-9")
        form = aiohttp.FormData({"file": io.BytesIO(b"x" * 500_000)})
        async with browser.post("upload", data=form) as reply:
            kind, size = (await reply.text()).rsplit(" ", 1)
            assert kind.startswith("multipart/form-data; boundary=")
            assert int(size) > 500_000
        async with browser.post("upload", data=b"x" * 1_000_001) as reply:
            assert reply.status == 413
        async with browser.get("host", headers={"host": "evil.example"}) as reply:
            assert await reply.text() == "evil.example"  # the page refuses it, see chat.hosts
        async with browser.get("events") as reply:
            first = await asyncio.wait_for(reply.content.readuntil(b"\n\n"), 5)
            assert first == b"data: 1\n\n"
        # the browser left in the middle of the stream
        await asyncio.wait_for(page.gone.wait(), 5)


async def test_a_page_that_fails_or_is_away_is_told_without_its_texts(artifact, page) -> None:
    async def away(request: Any) -> AsyncGenerator[list[Message], None]:
        raise EngineConnectionError("the chat page: its replica was lost")
        yield []

    async with with_page(artifact, page) as up:
        reply = await up.client.get("/chat/fails")
        assert (reply.status, reply.json()["error"]["code"]) == (503, "chat_unavailable")
        assert b"secret" not in reply.body
        with pytest.raises(RuntimeError, match="broke off"):
            await up.client.get("/chat/breaks")
        assert (await up.client.post("/v1/chat/completions", chat())).status == 200
    async with running(artifact, page=away, chat="on") as up:
        reply = await up.client.get("/chat")
        assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        assert "load it again in a moment" in reply.json()["error"]["message"]


async def test_the_page_has_its_own_login_and_off_means_nothing_is_there(artifact, page) -> None:
    keys = ClientKeys(["canary-key"])
    async with with_page(artifact, page, keys=keys) as up:
        assert (await up.client.get("/chat/x")).status == 200
        assert (await up.client.get("/v1/models")).status == 401
    async with running(artifact) as up:
        for path in ("/chat", "/chat/x"):
            assert (await up.client.get(path)).status == 404


async def test_a_stopping_gateway_refuses_the_page(artifact, page) -> None:
    async with with_page(artifact, page) as up:
        up.gateway.stop(0.0)
        assert (await up.client.get("/chat")).status == 503


async def test_an_application_that_ignores_the_end_of_its_client_is_ended(monkeypatch) -> None:
    ended = asyncio.Event()

    async def deaf(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except (asyncio.CancelledError, OSError):
            ended.set()
            raise

    lists = respond(deaf, {"method": "GET", "path": "/", "headers": [], "body": b""})
    assert (await anext(lists))[0]["status"] == 200
    await lists.aclose()
    assert ended.is_set()


async def test_an_end_without_an_answer_is_an_error() -> None:
    async def silent(scope, receive, send) -> None:
        raise ValueError("secret")

    with pytest.raises(EngineServerError, match=r"it failed \(ValueError\)"):
        await anext(respond(silent, {"method": "GET", "path": "/", "headers": [], "body": b""}))


async def test_a_page_asks_the_gateway_over_the_way_and_its_end_stops_the_engine(artifact) -> None:
    pool = echo_pool(cook={"text": "a b c d", "tokens": 1000, "tokens_per_s": 20})
    async with running(artifact, pool=pool) as up:
        way = Way(partial(respond, up.gateway), 1_000_000)
        await way.open()
        try:
            async with aiohttp.ClientSession(way.url) as client:
                async with client.get("/v1/models") as reply:
                    assert (await reply.json())["object"] == "list"
                async with client.post(
                    "/v1/chat/completions", json=chat(model="cook", stream=True)
                ) as reply:
                    assert b"delta" in await asyncio.wait_for(reply.content.readline(), 5)
                    assert up.gateway.gate.in_flight == 1
                async with asyncio.timeout(5):
                    while up.gateway.gate.in_flight:
                        await asyncio.sleep(0.02)
        finally:
            await way.close()


async def test_the_lifespan_of_the_page_is_run(page) -> None:
    life = Lifespan(page)
    await life.begin()
    assert page.seen == ["startup"]
    await life.end()
    assert page.seen == ["startup", "shutdown"]

    async def fails(scope, receive, send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no model"})

    with pytest.raises(EngineServerError, match="no model"):
        await Lifespan(fails).begin()


def test_the_settings_of_the_page_are_read_as_a_switch_or_one_by_one() -> None:
    base = {"artifact": "a", "pool": echo_pool()}
    assert ServeArgs.model_validate(base).chat is None
    on = ServeArgs.model_validate({**base, "chat": "on"}).chat
    assert on is not None
    assert on.hosts == ("localhost", "127.0.0.1", "[::1]")
    own = ServeArgs.model_validate({**base, "chat": {"hosts": ["chat.example"]}}).chat
    assert own is not None
    assert own.hosts == ("chat.example",)
