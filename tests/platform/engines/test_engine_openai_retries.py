from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from email.utils import formatdate

import pytest

from support.fake_upstream import Reply
from waypost.contracts.errors import (
    ConfigError,
    EngineAuthError,
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineTimeoutError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines._http_errors import backoff_s, retry_after_s
from waypost.engines.base import collect
from waypost.secrets import KeyRing

LATER = Reply(status=429, headers={"Retry-After": "0"}, body={"error": {"message": "later"}})
BROKEN = Reply(status=500, body={"error": {"message": "broken"}})


def ask(text: str = "say these words", **fields) -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": text}], **fields)


# Trying again


async def test_tries_again_before_the_first_token(upstream, engine):
    upstream.script(LATER, BROKEN, Reply(text="at last"))
    answer = await collect(await engine(max_retries=2), ask())
    assert answer.text == "at last"
    assert len(upstream.requests) == 3


@pytest.mark.parametrize("reply", [Reply(drop=True), Reply(cut_after=0), Reply(status=504)])
async def test_tries_again_after_a_lost_connection(upstream, engine, reply):
    upstream.script(reply)
    assert (await collect(await engine(), ask("words"))).text == "words"


async def test_never_tries_again_after_the_first_token(upstream, engine):
    upstream.script(Reply(cut_after=1))
    with pytest.raises(EngineConnectionError):
        await collect(await engine(), ask())
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_never_repeats_what_was_refused(upstream, engine, status):
    upstream.script(Reply(status=status, body={}))
    with pytest.raises(EngineRequestError):
        await collect(await engine(), ask())
    assert len(upstream.requests) == 1


async def test_no_waiting_helps_an_empty_account(upstream, engine):
    upstream.script(Reply(status=429, body={"error": {"code": "insufficient_quota"}}))
    with pytest.raises(EngineOverloadedError):
        await collect(await engine(), ask())
    assert len(upstream.requests) == 1


async def test_gives_up_with_the_last_error(upstream, engine):
    upstream.script(BROKEN, BROKEN, LATER)
    with pytest.raises(EngineOverloadedError):
        await collect(await engine(max_retries=2), ask())
    assert len(upstream.requests) == 3


async def test_waits_as_long_as_the_upstream_asks(upstream, engine):
    upstream.script(Reply(status=503, headers={"Retry-After": "0.2"}, body={}))
    began = time.monotonic()
    await collect(await engine(), ask())
    assert time.monotonic() - began >= 0.2


async def test_does_not_wait_longer_than_its_bound(upstream, engine):
    upstream.script(Reply(status=429, headers={"Retry-After": "60"}, body={}))
    with pytest.raises(EngineOverloadedError) as caught:
        await collect(await engine(retry_max_s=1), ask())
    assert caught.value.retry_after_s == 60
    assert len(upstream.requests) == 1


async def test_does_not_wait_beyond_the_requests_time(upstream, engine):
    upstream.script(Reply(status=429, headers={"Retry-After": "5"}, body={}))
    with pytest.raises(EngineOverloadedError):
        await collect(await engine(), ask(timeout_s=1))


def test_retry_after_is_seconds_or_a_date():
    now = 1_700_000_000.0
    assert retry_after_s("7", now) == 7
    assert retry_after_s(formatdate(now + 90, usegmt=True), now) == 90
    assert retry_after_s(formatdate(now - 90, usegmt=True), now) == 0
    assert retry_after_s("-3") == 0
    for nonsense in (None, "soon", "", "nan", "inf"):
        assert retry_after_s(nonsense) is None


def test_backoff_is_full_jitter_that_doubles_up_to_its_bound():
    for attempt, most in ((0, 0.5), (1, 1.0), (2, 2.0), (9, 8.0)):
        waits = [backoff_s(attempt, 0.5, 8.0) for _ in range(200)]
        assert 0 <= min(waits) < most * 0.2
        assert most * 0.8 < max(waits) <= most


# Time and connections


async def test_first_token_and_token_time_outs_differ(upstream, engine):
    one = await engine(first_token_timeout_s=0.3, token_timeout_s=1.0)
    upstream.script(Reply(first_token_s=0.9))
    with pytest.raises(EngineTimeoutError):
        await collect(one, ask())
    upstream.script(Reply(token_s=0.03))
    assert (await collect(one, ask("a b c"))).text == "a b c"
    assert len(upstream.requests) == 2  # a time-out of our own is not tried again


async def test_total_time_bounds_the_whole_call(upstream, engine):
    upstream.script(Reply(token_s=0.03))
    with pytest.raises(EngineTimeoutError, match="time is over"):
        await collect(await engine(total_timeout_s=0.1), ask("a b c d e f g h i j k l"))


async def test_nobody_listens_is_a_connection_error(engine):
    one = await engine(base_url="http://127.0.0.1:9/v1", max_retries=1)
    with pytest.raises(EngineConnectionError, match=r"m at 127.0.0.1:9: .*ClientConnectorError"):
        await collect(one, ask())


async def test_connections_are_kept_and_bounded(upstream, engine):
    one = await engine(max_connections=2)
    for _ in range(3):
        await collect(one, ask())
    assert upstream.connections == 1
    await asyncio.gather(*(collect(one, ask()) for _ in range(6)))
    assert upstream.connections == 2


async def test_the_upstream_sees_that_a_reader_left(upstream, engine):
    upstream.script(Reply(token_s=0.01, text="word " * 500))
    async with aclosing((await engine()).generate(ask())) as chunks:
        await anext(chunks)
    async with asyncio.timeout(60):
        while not upstream.disconnects:
            await asyncio.sleep(0.01)
    assert upstream.active == 0
    assert upstream.sent_tokens < 500


# Keys


async def test_keys_rotate_and_a_refused_one_rests(upstream, engine):
    refusal = Reply(status=401, body={"error": {"message": "bad key"}})
    upstream.script(Reply(), refusal)
    one = await engine(KeyRing({"svc": ["key-a", "key-b"]}), service="svc")
    for _ in range(4):
        await collect(one, ask())
    sent = [request.headers["Authorization"] for request in upstream.requests]
    assert sent == [f"Bearer key-{name}" for name in "abaaa"]


async def test_a_limited_key_is_replaced_at_once(upstream, engine):
    upstream.script(Reply(status=429, headers={"Retry-After": "30"}, body={}))
    ring = KeyRing({"svc": ["key-a", "key-b"]})
    await collect(await engine(ring, service="svc", max_retries=0), ask())
    assert len(upstream.requests) == 2
    assert ring.ready("svc") == 1


async def test_the_last_refused_key_is_an_auth_error(upstream, engine):
    upstream.script(*[Reply(status=401, body={}) for _ in range(3)])
    one = await engine(KeyRing({"svc": ["key-a", "key-b"]}), service="svc")
    with pytest.raises(EngineAuthError) as caught:
        await collect(one, ask())
    assert caught.value.retryable  # another model of the ranking may answer
    assert len(upstream.requests) == 2


async def test_a_service_without_a_key_is_a_config_error(engine):
    with pytest.raises(ConfigError, match=r"no key for the service 'svc'.*API_KEYS"):
        await engine(KeyRing({"other": ["k"]}), service="svc")
