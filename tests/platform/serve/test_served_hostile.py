"""Hostile clients of a served gateway: raw bytes on its socket, bodies, keys where none belong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio

from support import canaries, hostile
from support.canaries import AUTHORIZATION, CLIENT, CORE, UPSTREAM
from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, knn_artifact
from support.hostile import check_error
from support.raw_http import RawReply, exchange, request_bytes
from support.served import application, by_proxy, served, session_folder
from support.slow_bodies import check_hold_no_place

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHAT = "/v1/chat/completions"
BODY = json.dumps(chat("hello", model="cook")).encode()
BODY_TIMEOUT_S = 2.0
PLACES = 8
LONGEST_HEALTH_S = 10.0
"""Of /healthz beside one hostile request: 100 ms on an idle machine, this on a busy one."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory, upstream) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("served")
    config = {"base_url": upstream.url, "model": "m", "service": canaries.SERVICE,
              "max_retries": 0}  # fmt: skip
    pool = [
        {"name": "cook", "engine": "echo", "placement": "inline"},
        {"name": "prover", "engine": "echo"},
        {"name": "tiny", "engine": "openai", "placement": "inline", "config": config},
    ]
    app = application(
        "main", knn_artifact(folder / "artifact"), pool, api_keys=True,
        feedback_dir=str(folder / "feedback"),
        limits={"body_timeout_s": BODY_TIMEOUT_S, "max_in_flight": PLACES},
    )  # fmt: skip
    with canaries.keys(), served({"applications": [app | {"route_prefix": "/"}]}, folder) as url:
        yield url


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=[AUTHORIZATION]) as session:
        yield session


def request(
    path: bytes | str = CHAT,
    body: bytes = BODY,
    headers: Iterable[tuple[str, str]] = (),
    method: str = "POST",
) -> bytes:
    return request_bytes(path, body, [AUTHORIZATION, *headers], method)


def get(path: str, method: str = "GET") -> bytes:
    return request(path, b"", method=method)


def check(what: object, reply: RawReply) -> None:
    """Check what holds for every answer: short headers, no injected one, no key, no traceback."""
    names = [name for name, _ in reply.headers]
    assert not {"x-evil", "set-cookie"} & set(names), what
    assert len(names) == len(set(names)), (what, names)
    assert all(len(value) <= 512 for _, value in reply.headers), what
    assert reply.status < 500, (what, reply.body[:300])
    canaries.check(what, f"{reply.headers}{reply.body.decode('utf-8', 'replace')}")


async def one(url: str, data: bytes | list[bytes], what: object = "") -> RawReply:
    found = await exchange(url, data)
    assert len(found) == 1, what
    check(what, found[0])
    return found[0]


# what the server in front of the gateway reads


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n",
        request("healthz"),
        request("/" + "a" * 100_000),
        get("/healthz", "BREW"),
        get("/healthz", "A" * 1000),
        request(headers=[("content-length", "-1")]),
        request(headers=[("content-length", "9" * 30)]),
        request(headers=[("content-length", str(len(BODY))), ("content-length", "3")]),
        request(body=b"0\r\n\r\n", headers=[("content-length", "5"),
                                            ("transfer-encoding", "chunked")]),
        request(body=b"zz\r\n", headers=[("transfer-encoding", "chunked")]),
        request(headers=[("x-waypost-user-id", "a\0b")]),
        request(headers=[("x waypost", "a")]),
    ],
    ids=lambda data: data[:40].decode("latin-1"),
)  # fmt: skip
async def test_what_is_no_http_is_400(url, data):
    reply = await one(url, data)
    assert reply.status == 400
    assert len(reply.body) < 200


@pytest.mark.parametrize(
    "path",
    ["/../healthz", "/v1/../healthz", "/%2e%2e/etc/passwd", "/healthz%00", "/%ff%fe",
     "/HEALTHZ", "/v1/models%0d%0ax-evil:%201", "/v1/models\\", "/" + "a" * 30_000,
     "/v1/chat/completions;a=b", "/.env", "/openapi.json.bak"],
    ids=lambda path: path[:30],
)  # fmt: skip
async def test_other_paths_are_404_and_not_repeated(url, path):
    reply = await one(url, get(path))
    assert reply.status == 404
    message = check_error(404, reply.body)["message"]
    assert path not in message


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "DELETE", "PUT", "PATCH", "CONNECT"])
async def test_other_methods_are_405(url, method):
    for path in (CHAT, "/v1/models"):
        reply = await one(url, request(path, b"", method=method))
        assert reply.status == 405
        check_error(405, reply.body)
        assert reply.header("allow") == ("POST" if path == CHAT else "GET")


async def test_head_has_the_headers_of_get(url):
    head = await one(url, get("/v1/models", "HEAD"))
    full = await one(url, get("/v1/models"))
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == full.header("content-length")
    assert (await one(url, get(CHAT, "HEAD"))).status == 405


async def test_line_breaks_begin_no_header(url):
    for data in (
        request(headers=[("x-waypost-session-id", "a\r\nx-evil: 1")]),  # two headers of a request
        request(body=json.dumps(chat(model="a\r\nx-evil: 1")).encode()),
        request(body=json.dumps(chat(user="a\r\nset-cookie: 1")).encode()),
        request(headers=[("x-waypost-allowed-models", "a\tb")]),
        request("/v1/models?a=%0d%0ax-evil:1", b"", method="GET"),
    ):
        assert (await one(url, data)).status in {200, 400, 404}


async def test_headers_of_ten_megabytes_are_431(url):
    for name in ("x-waypost-allowed-models", "x-waypost-lambda", "x-waypost-user-id", "cookie"):
        reply = await one(url, request(headers=[(name, "a," * 5_000_000)]), name)
        assert reply.status == 431
        check_error(431, reply.body)
    many = request(headers=[(f"x-{i}", "a") for i in range(10_000)])
    assert (await one(url, many)).status == 431


# lengths, parts, pauses


async def test_a_body_that_is_too_long_is_413_before_it_is_read(url):
    declared = request(body=b"{", headers=[("content-length", "50000000")])
    assert (await one(url, declared)).status == 413
    part = b"%x\r\n%s\r\n" % (65536, b"x" * 65536)
    chunked = request(body=part, headers=[("transfer-encoding", "chunked")])
    reply = await one(url, [chunked, *[part] * 100, b"0\r\n\r\n"])
    assert reply.status == 413
    check_error(413, reply.body)


async def test_a_body_in_chunks_is_read(url):
    parts = [b"%x\r\n%s\r\n" % (1, bytes([byte])) for byte in BODY]
    data = request(
        body=b"".join([*parts, b"0\r\n\r\n"]), headers=[("transfer-encoding", "chunked")]
    )
    assert (await one(url, data)).status == 200


async def test_a_body_that_does_not_come_is_408(url):
    begin = time.perf_counter()
    longer = request(headers=[("content-length", str(len(BODY) + 1))])
    reply = await one(url, longer)
    assert reply.status == 408
    check_error(408, reply.body)
    assert time.perf_counter() - begin < BODY_TIMEOUT_S + 60


@pytest.mark.parametrize("way", ["direct", "proxy"])
async def test_slow_bodies_hold_no_place_and_end_with_408(url, way):
    head = request(body=b"", headers=[("content-length", "1000")])
    base = url if way == "direct" else by_proxy()
    await check_hold_no_place(base, head, PLACES, AUTHORIZATION)


async def test_a_length_that_lies_smuggles_nothing(url):
    # the rest of the body is read as another request, and is none
    short = request(headers=[("content-length", str(len(BODY) - 3))])
    found = await exchange(url, short, answers=3)
    for reply in found:
        check("short", reply)
    assert {reply.status for reply in found} == {400}


async def test_requests_in_a_row_are_answered_in_order(url):
    texts = [f"number {i}" for i in range(5)]
    bodies = [json.dumps(chat(text, model="cook")).encode() for text in texts]
    data = b"".join(request(body=body) for body in bodies)
    found = await exchange(url, data, answers=5)
    assert [reply.json()["choices"][0]["message"]["content"] for reply in found] == texts


async def test_a_socket_that_is_half_closed_is_no_hang(url):
    for data in (request(), request()[:-5], request()[:30], b""):
        for reply in await exchange(url, data, half_close=True):
            assert reply.status in {200, 400, 408}


async def test_an_expected_continue_is_answered(url):
    reply = await one(url, request(headers=[("expect", "100-continue")]))
    assert reply.status == 200
    huge = request(body=b"", headers=[("expect", "100-continue"), ("content-length", "50000000")])
    assert (await one(url, huge)).status == 413


async def test_a_websocket_is_refused(url):
    headers = [("connection", "upgrade"), ("upgrade", "websocket"),
               ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
               ("sec-websocket-version", "13")]  # fmt: skip
    assert (await one(url, request(CHAT, b"", headers, "GET"))).status == 405


# bodies, with /healthz beside them


async def test_no_body_holds_up_the_others(url, http):
    slowest: dict[str, float] = {}
    cases = [
        *((name, body, {400}) for name, body in hostile.unreadable().items()),
        *((name, body, {400}) for name, body in hostile.no_objects().items()),
        *((name, body, {400, 404}) for name, body in hostile.wrong().items()),
        *((name, body, {200}) for name, body in hostile.accepted().items()),
    ]
    for name, body, statuses in cases:
        if name == "image for local models":
            statuses = {200}  # this graph has one behind HTTP
        asked = asyncio.create_task(send(http, url, body))
        while True:
            begin = time.perf_counter()
            async with http.get(f"{url}/healthz") as healthy:
                assert healthy.status == 200
            slowest[name] = max(time.perf_counter() - begin, slowest.get(name, 0.0))
            if asked.done():
                break
        status, data = await asked
        assert status in statuses, (name, data[:300])
        if status != 200:
            check_error(status, data)
            canaries.check(name, data)
    worst = sorted(slowest.items(), key=lambda item: -item[1])[:5]
    assert worst[0][1] < LONGEST_HEALTH_S, worst


async def test_a_prompt_of_four_megabytes_crosses_to_a_deployment(url, http):
    body = hostile.said(hostile.text("x")).replace(b'"auto"', b'"prover"')
    status, data = await send(http, url, body)
    assert status == 200, data[:300]
    assert len(data) > hostile.SIZE - 1_000


async def send(http: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, bytes]:
    headers = {"content-type": "application/json"}
    async with asyncio.timeout(60), http.post(url + CHAT, data=body, headers=headers) as reply:
        return reply.status, await reply.read()


# keys


async def test_a_key_where_none_belongs_comes_back_nowhere(url):
    question = quote(CLIENT, safe="")
    bodies = [
        chat(model=CLIENT),
        chat(model=f"x{UPSTREAM}"),
        chat(**{CLIENT: 1}),
        chat(waypost={UPSTREAM: 1}),
        chat(waypost={"allowed_models": [CLIENT]}),
        chat(metadata={CLIENT: 1}),
        chat(temperature=CLIENT),
        chat(response_format={CLIENT: 2**70}),
        chat(user=CLIENT, model="cook"),
        {"messages": [{"role": UPSTREAM}]},
    ]
    for body in bodies:
        for path in (CHAT, "/v1/route", "/v1/completions", "/v1/feedback"):
            sent = request(f"{path}?api_key={question}", json.dumps(body).encode())
            await one(url, sent, body)
    for name in ("x-waypost-lambda", "x-waypost-allowed-models", "cookie", "x-api-key"):
        await one(url, request(headers=[(name, CLIENT)]), name)
    for path in (f"/{question}", f"/v1/models/{question}", f"/v1/models?key={CLIENT}"):
        await one(url, get(path), path)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_tells_its_key_tells_it_to_nobody(url, upstream, stream):
    told = {"error": {"message": f"Incorrect API key: {UPSTREAM}", "code": UPSTREAM}}
    body = json.dumps(chat("x", model="tiny", stream=stream)).encode()
    replies = [
        *(Reply(status=status, body=told) for status in (400, 401, 404, 422, 429, 500)),
        Reply(status=307, headers={"Location": f"http://127.0.0.1:9/?key={quote(UPSTREAM)}"}),
        Reply(stream_error=told["error"]),
        Reply(raw=f"data: {UPSTREAM}\n\n".encode()),
    ]
    for reply in replies:
        upstream.script(reply)
        found = await exchange(url, request(body=body))
        upstream._script.clear()
        for answer in found:
            assert CORE not in f"{answer.headers}{answer.body!r}", reply
    assert any(UPSTREAM in item.headers.get("Authorization", "") for item in upstream.requests)
    assert all(CLIENT not in str(item) for item in upstream.requests)


async def test_afterwards_it_serves_and_holds_nothing(url, http):
    status, _ = await send(http, url, BODY)
    assert status == 200
    async with asyncio.timeout(120):
        while True:
            async with http.get(f"{url}/metrics") as reply:
                metrics = await reply.text()
            if (
                "waypost_requests_in_flight 0.0" in metrics
                and "waypost_requests_queued 0.0" in metrics
            ):
                break
            await asyncio.sleep(0.1)
    canaries.check("metrics", metrics)
    assert 'status="500"' not in metrics


async def test_no_key_and_no_traceback_is_in_any_log(url):
    assert canaries.check_logs(session_folder() / "logs") > 10
