"""What goes wrong over ASGI: failing models, limits, clients that leave."""

from __future__ import annotations

import asyncio
import logging

import pytest

from support.asgi import Client
from support.gateway import Running, chat, echo_pool, running
from waypost.serve.gateway.app import Gateway

CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def is_error(reply, status: int, param: str | None = None) -> str:
    """Check OpenAI's error body; return its message."""
    assert reply.status == status, reply.body
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    return error["message"]


async def ended(up: Running) -> bool:
    """Wait until no engine works on anything."""
    for _ in range(6000):
        if not any(len(up.echo(name).calls) for name in up.llms):
            return True
        await asyncio.sleep(0.01)
    return False


# failing models


@pytest.mark.parametrize("failure", ["timeout", "429", "500", "connection", "mid_stream"])
async def test_a_failing_model_is_invisible_in_a_whole_answer(artifact, failure):
    async with running(artifact, pool=echo_pool(cook={"fail_with": failure})) as up:
        reply = await up.client.post(CHAT, chat())
        assert reply.status == 200
        assert reply.headers["x-waypost-model"] != "cook"
        assert reply.headers["x-waypost-attempts"] == "2"
        model, reason = reply.headers["x-waypost-model"], reply.headers["x-waypost-reason"]
        assert reason.startswith(f"cook did not answer; {model} answers: predicted quality 0.")
        assert b'model="cook",reason=' in (await up.client.get("/metrics")).body


@pytest.mark.parametrize("failure", ["timeout", "429", "500", "connection"])
async def test_a_model_that_fails_before_the_first_token_is_invisible_in_a_stream(
    artifact, failure
):
    async with running(artifact, pool=echo_pool(cook={"fail_with": failure})) as up:
        reply = await up.client.post(CHAT, chat("a b", stream=True))
        assert reply.events()[-1] == "[DONE]"
        assert reply.headers["x-waypost-model"] != "cook"


async def test_a_stream_that_breaks_off_ends_with_an_error_event_and_no_done(artifact):
    pool = echo_pool(cook={"fail_with": "mid_stream", "tokens": 10})
    async with running(artifact, pool=pool) as up:
        reply = await up.client.post(CHAT, chat(stream=True))
        assert reply.status == 200
        assert reply.ended
        *events, last = reply.events()
        assert len(events) == 6  # the role and five tokens
        assert last["error"]["type"] == "server_error"
        assert "[DONE]" not in reply.events()
        metrics = (await up.client.get("/metrics")).body
        assert b'waypost_broken_streams_total{model="cook"} 1.0' in metrics


@pytest.mark.parametrize(
    ("failure", "status"), [("timeout", 504), ("500", 502), ("connection", 502), ("429", 429)]
)
async def test_where_no_model_answers_the_status_says_why(artifact, failure, status):
    config = {"fail_with": failure, "retry_after_s": 7}
    pool = echo_pool(cook=config, prover=config, tiny=config)
    async with running(artifact, pool=pool) as up:
        for stream in (False, True):
            reply = await up.client.post(CHAT, chat(stream=stream))
            is_error(reply, status)
            assert reply.headers["x-waypost-attempts"] == "3"
        if status == 429:
            assert reply.headers["retry-after"] == "7"


async def test_a_pinned_model_has_no_substitute(artifact):
    async with running(artifact, pool=echo_pool(cook={"fail_with": "500"})) as up:
        is_error(await up.client.post(CHAT, chat(model="cook")), 502)


async def test_a_fault_of_ours_is_an_id_and_shows_nothing(artifact, caplog):
    async with running(artifact) as up:

        class Wrong:
            async def start(self): ...

            async def close(self): ...

            async def decide(self, query, router):
                raise KeyError(query["query"])

        gateway = Gateway(up.plan, Wrong(), lambda model: up.llms[model.name])
        with caplog.at_level(logging.ERROR):
            reply = await Client(gateway).post(CHAT, chat("text of a user"))
        message = is_error(reply, 500)
        assert reply.headers["x-waypost-request-id"] in message
        assert "Traceback" not in message
        assert "KeyError" not in message
        assert "KeyError at" in caplog.text
        assert "text of a user" not in caplog.text + message


# clients that leave


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_generation(artifact, stream):
    pool = echo_pool(cook={"tokens": 1000, "tokens_per_s": 100})
    async with running(artifact, pool=pool) as up:
        opened = up.client.open("POST", CHAT, chat(stream=stream))
        if stream:
            await opened.part(3)
        while not (made := up.echo("cook").calls.output_tokens):
            await asyncio.sleep(0.01)
        opened.go_away()
        await opened.end()
        assert await ended(up)
        assert up.echo("cook").calls.output_tokens <= made + 100  # of 1000
        assert up.gateway.gate.in_flight == 0


async def test_a_client_that_leaves_among_n_answers_stops_all_of_them(artifact):
    pool = echo_pool(cook={"tokens": 1000, "tokens_per_s": 100})
    async with running(artifact, pool=pool) as up:
        opened = up.client.open("POST", CHAT, chat(stream=True, n=4))
        await opened.part(3)
        assert len(up.echo("cook").calls) == 4
        opened.go_away()
        await opened.end()
        assert await ended(up)


async def test_a_cancelled_request_stops_the_generation(artifact):
    pool = echo_pool(cook={"tokens": 1000, "tokens_per_s": 100})
    async with running(artifact, pool=pool) as up:
        opened = up.client.open("POST", CHAT, chat(stream=True))
        await opened.part(2)
        opened.task.cancel()
        await asyncio.gather(opened.task, return_exceptions=True)
        assert await ended(up)
        assert up.gateway.gate.in_flight == 0


# limits


async def test_more_than_the_gateway_takes_is_answered_429(artifact):
    limits = {"max_in_flight": 1, "max_queued": 1}
    async with running(artifact, pool=echo_pool(cook={"delay_s": 0.3}), limits=limits) as up:
        opened = [up.client.open("POST", CHAT, chat(model="cook")) for _ in range(3)]
        while (up.gateway.gate.in_flight, up.gateway.gate.waiting) != (1, 1):
            await asyncio.sleep(0)
        refused = await up.client.post(CHAT, chat())
        is_error(refused, 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert (await up.client.get("/healthz")).status == 200
        replies = [await each.end() for each in opened]
        assert sorted(reply.status for reply in replies) == [200, 200, 429]
