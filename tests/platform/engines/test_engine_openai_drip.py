"""Upstreams that drip: bytes that never complete anything do not hold a request."""

from __future__ import annotations

import asyncio

import pytest

from support.fake_upstream import Reply
from waypost.contracts.errors import (
    EngineAuthError,
    EngineError,
    EngineOverloadedError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import GenerateRequest, Usage
from waypost.engines import _http_try
from waypost.engines.base import collect

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "a "}}]}\n\n'
DRIP = {"split": 1, "part_s": 0.02}
DRIPS_S = 20.0
"""Every upstream here drips for twice as long, or more: so late is late on a slow machine, too."""
QUICK = {"first_token_timeout_s": 0.3, "token_timeout_s": 0.3, "max_retries": 0}


def ask() -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": "say these words"}])


async def seconds_until(error: type[EngineError], engine) -> float:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    with pytest.raises(error):
        await collect(engine, ask())
    return loop.time() - begin


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 4000,
        HEAD + b"data: {" + b"a" * 4000,
        HEAD + b": wait\n" * 1000,
    ],
    ids=["head", "event", "comments"],
)
async def test_the_first_token_has_its_time_whatever_drips(engine, upstream, wire):
    at = wire.find(b"\r\n\r\n") + 4 if HEAD in wire else 1
    upstream.default = Reply(wire=wire, split=at, part_s=0.05)
    if HEAD not in wire:
        upstream.default = Reply(wire=wire, **DRIP)
    assert 0.25 < await seconds_until(EngineTimeoutError, await engine(**QUICK)) < DRIPS_S


@pytest.mark.parametrize("drip", [b": wait\n", b"data: {"], ids=["comments", "event"])
async def test_the_next_token_has_its_time_whatever_drips(engine, upstream, drip):
    # the head and one event come at once
    parts = round(2 * DRIPS_S / 0.02)
    dripping = (drip * len(EVENT) * parts)[: len(EVENT) * parts]
    upstream.default = Reply(raw=EVENT + dripping, split=len(EVENT), part_s=0.02)
    assert await seconds_until(EngineTimeoutError, await engine(**QUICK)) < DRIPS_S


async def test_a_body_that_drips_after_an_event_is_given_up(engine, upstream):
    upstream.default = Reply(raw=EVENT + b": wait\n" * 1000, split=7, part_s=0.04)
    one = await engine(**QUICK | {"first_token_timeout_s": 5.0})
    begin = asyncio.get_running_loop().time()
    chunks = one.generate(ask())
    assert (await anext(chunks)).text == "a "
    with pytest.raises(EngineTimeoutError):
        await anext(chunks)
    assert asyncio.get_running_loop().time() - begin < DRIPS_S


async def test_a_reader_that_pauses_does_not_use_up_the_upstreams_time(engine, upstream):
    upstream.default = Reply(text="a b c d e f", token_s=0.01)
    found = ""
    async for chunk in (await engine(**QUICK)).generate(ask()):
        found += chunk.text
        await asyncio.sleep(0.2)
    assert found == "a b c d e f"


@pytest.mark.parametrize(
    ("status", "error"), [(429, EngineOverloadedError), (401, EngineAuthError)]
)
async def test_a_refusal_whose_body_drips_is_that_refusal(engine, upstream, status, error):
    head = f"HTTP/1.1 {status} No\r\nRetry-After: 7\r\nContent-Length: 9999\r\n\r\n"
    upstream.default = Reply(wire=head.encode() + b"x" * 5000, split=len(head), part_s=0.05)
    one = await engine(**QUICK)
    with pytest.raises(error) as caught:
        await collect(one, ask())
    if status == 429:
        assert caught.value.retry_after_s == 7


async def test_an_answer_without_end_is_given_up(engine, upstream, monkeypatch):
    monkeypatch.setattr(_http_try, "_LONGEST_ANSWER", 10_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    upstream.default = Reply(wire=head + b"[" * 10_000_000)
    with pytest.raises(EngineServerError, match="exceeds 10000 bytes"):
        await collect(await engine(**QUICK), ask())


@pytest.mark.parametrize("counts", [(-5, 3), (10**400, 1), (True, 1), (3, None), (1.5, 2)])
async def test_token_counts_that_are_none_are_estimated(engine, upstream, counts):
    body = {
        "choices": [{"index": 0, "message": {"content": "four"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": counts[0], "completion_tokens": counts[1]},
    }
    upstream.default = Reply(body=body)
    answer = await collect(await engine(stream=False), ask())
    assert answer.usage == Usage(4, 1, estimated=True)


async def test_json_that_is_deeper_than_python_goes_is_the_upstreams_fault(engine, upstream):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    upstream.default = Reply(wire=head + b'{"a":' * 200_000)
    with pytest.raises(EngineServerError):
        await collect(await engine(max_retries=0), ask())
