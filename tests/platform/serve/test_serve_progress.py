"""Progress of an episode in a stream: an event for each start and each end of a call."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import openai
import pytest
from openai.lib.streaming.chat import ContentDeltaEvent

from support.fake_upstream import Reply
from support.gateway import COOKING, Running, chat, echo_pool, knn_artifact, running
from support.skipping_loop import skips_waits
from waypost.serve.backends.messages import StaleDecisionError
from waypost.testing.steps import tiers_artifact

CHAT = "/v1/chat/completions"
NO = {"text": "no", "tokens": 1}
WORDS = len(COOKING.split())
PRICES = {"cook": (0.5, 1.5), "prover": (1.0, 4.0), "tiny": (0.05, 0.1)}
ASKS = {"stream": True, "waypost": {"progress": True}}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory) -> Path:
    return tiers_artifact(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="module")
def one_vote(tmp_path_factory) -> Path:
    return tiers_artifact(tmp_path_factory.mktemp("one"), votes=1)


def up(artifact: Path, pool=None, **changes):
    return running(artifact, allow_plugin_code=True, pool=pool or echo_pool(), **changes)


def steps(events: list[Any]) -> list[dict[str, Any]]:
    return [e["waypost"]["step"] for e in events if isinstance(e, dict) and "waypost" in e]


def said(events: list[Any]) -> str:
    choices = [choice for e in events if isinstance(e, dict) for choice in e.get("choices", ())]
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def test_each_call_is_told_when_it_starts_and_when_it_ends(one_vote):
    async with up(one_vote, echo_pool(cook=NO)) as found:
        body = chat(**ASKS, stream_options={"include_usage": True})
        reply = await found.client.post(CHAT, body)
    *events, usage, done = reply.events()
    told = steps(events)
    names = [(s["number"], s["purpose"], s["model"], s["state"]) for s in told]
    calls = [(1, "answer", "tiny"), (2, "verify", "cook"), (3, "answer", "prover")]
    assert names == [(*call, state) for call in calls for state in ("started", "done")]
    assert all(set(s) == {"number", "purpose", "model", "state"} for s in told[::2])
    tokens = [(s["input_tokens"], s["output_tokens"]) for s in told[1::2]]
    assert tokens == [(WORDS, WORDS), (3 + WORDS, 1), (WORDS, WORDS)]
    for step, (read, wrote) in zip(told[1::2], tokens, strict=True):
        prices = PRICES[step["model"]]
        assert step["cost_usd"] == pytest.approx((read * prices[0] + wrote * prices[1]) / 1e6)
        assert 0 <= step["seconds"] < 30
    # then the answer, as without progress; no text of a question or of an answer stands in events
    assert said(events) == COOKING
    assert COOKING not in json.dumps(told)
    assert usage["usage"]["waypost"]["cost_usd"] == pytest.approx(
        sum(s["cost_usd"] for s in told[1::2])
    )
    assert done == "[DONE]"
    assert {e["id"] for e in events} == {usage["id"]}
    assert len({e["created"] for e in (*events, usage)}) == 1
    assert all(e["usage"] is None for e in events)


async def test_headers_name_no_model_before_it_is_known(one_vote):
    async with up(one_vote) as found:
        plain = await found.client.post(CHAT, chat(stream=True))
        reply = await found.client.post(CHAT, chat(**ASKS))
    late = {"x-waypost-model", "x-waypost-attempts"}
    assert late <= set(plain.headers)
    assert set(plain.headers) - set(reply.headers) == late
    assert reply.events()[-2]["model"] == "tiny"


@pytest.mark.parametrize(
    "waypost", [None, {}, {"progress": False}, {"progress": None}], ids=json.dumps
)
async def test_who_does_not_ask_is_told_nothing(one_vote, waypost):
    async with up(one_vote) as found:
        reply = await found.client.post(CHAT, chat(stream=True, waypost=waypost))
    assert not steps(reply.events())
    assert all(e["choices"] for e in reply.events()[:-1])


async def test_a_whole_answer_and_a_router_of_one_call_have_no_progress(one_vote, tmp_path):
    async with up(one_vote) as found:
        whole = await found.client.post(CHAT, chat(waypost={"progress": True}))
        pinned = await found.client.post(CHAT, chat(model="tiny", **ASKS))
    async with running(knn_artifact(tmp_path / "knn")) as found:
        single = await found.client.post(CHAT, chat(**ASKS))
    assert whole.json()["choices"][0]["message"]["content"] == COOKING
    for reply in (pinned, single):
        assert not steps(reply.events())
        assert said(reply.events()) == COOKING


@pytest.mark.parametrize("wrong", [1, "yes", []])
async def test_progress_is_a_truth_value(one_vote, wrong):
    async with up(one_vote) as found:
        reply = await found.client.post(CHAT, chat(stream=True, waypost={"progress": wrong}))
    assert (reply.status, reply.json()["error"]["param"]) == (400, "waypost.progress")


async def test_the_events_are_as_the_document_says(artifact):
    async with up(artifact, echo_pool(cook=NO, tiny={"fail_with": "500"})) as found:
        document = (await found.client.get("/openapi.json")).json()
        for path, body, kind in (
            (CHAT, chat(**ASKS), "ChatChunk"),
            ("/v1/completions", {"prompt": "a b", **ASKS}, "TextChunk"),
        ):
            reply = await found.client.post(path, body)
            schema = {"$ref": f"#/components/schemas/{kind}", "components": document["components"]}
            validator = jsonschema.Draft202012Validator(schema)
            assert {s["state"] for s in steps(reply.events())} == {"started", "done", "failed"}
            for event in reply.events()[:-1]:
                validator.validate(event)
            assert not validator.is_valid({**event, "waypost": {"step": {"number": 1}}})
            success = document["paths"][path]["post"]["responses"]["200"]["headers"]
            needed = {name for name, one in success.items() if one["required"]}
            assert needed <= set(reply.headers)


@skips_waits
async def test_the_stream_begins_with_the_first_call(artifact):
    slow = {"delay_s": 5}
    async with up(artifact, echo_pool(tiny=slow)) as found:
        opened = found.client.open("POST", CHAT, chat(**ASKS))
        while not opened.reply.body:
            await asyncio.sleep(0.01)
        (first,) = steps(opened.reply.events())
        assert (first["model"], first["state"]) == ("tiny", "started")
        reply = await opened.end()
    assert steps(reply.events())[1]["seconds"] >= 5


@skips_waits
async def test_calls_of_one_step_are_told_apart(artifact):
    # cook's three verdicts run at once; two of them settle the vote, the third is cancelled
    async with up(artifact, echo_pool(cook={"text": "yes", "delay_s": 0.2})) as found:
        reply = await found.client.post(CHAT, chat(**ASKS))
    told = [s for s in steps(reply.events()) if s["purpose"] == "verify"]
    assert [s["state"] for s in told[:3]] == ["started"] * 3
    assert sorted(s["number"] for s in told[:3]) == sorted(s["number"] for s in told[3:])
    assert Counter(s["state"] for s in told)["started"] == 3
    assert len(told) == 6
    assert said(reply.events()) == COOKING


@skips_waits
async def test_a_call_that_a_settled_vote_cancels_is_told(artifact):
    pool = echo_pool(cook={"text": "yes", "delay_s": 0.2})
    pool[0]["max_ongoing_requests"] = 1  # verdicts one after another: two settle the vote
    async with up(artifact, pool) as found:
        reply = await found.client.post(CHAT, chat(**ASKS))
    told = [s for s in steps(reply.events()) if s["purpose"] == "verify"]
    assert [s["state"] for s in told] == ["started"] * 3 + ["done"] * 2 + ["cancelled"]
    assert set(told[-1]) == {"number", "purpose", "model", "state", "seconds"}
    assert said(reply.events()) == COOKING


@pytest.mark.parametrize("how", ["500", "connection", "timeout", "429"])
async def test_a_call_that_fails_is_told_and_the_next_answers(artifact, how):
    async with up(artifact, echo_pool(tiny={"fail_with": how})) as found:
        reply = await found.client.post(CHAT, chat(**ASKS))
    told = steps(reply.events())
    assert [(s["model"], s["state"]) for s in told[:2]] == [("tiny", "started"), ("tiny", "failed")]
    assert set(told[1]) == {"number", "purpose", "model", "state", "seconds"}
    assert said(reply.events()) == COOKING


async def test_a_failure_after_the_beginning_is_an_error_event(artifact):
    pool = echo_pool(**{name: {"fail_with": "500"} for name in ("cook", "prover", "tiny")})
    async with up(artifact, pool) as found:
        reply = await found.client.post(CHAT, chat(**ASKS))
        metrics = (await found.client.get("/metrics")).body.decode()
    assert reply.status == 200
    *events, last = reply.events()
    assert [s["state"] for s in steps(events)] == ["started", "failed"] * 2
    assert last["error"]["code"] == "all_models_failed"
    assert 'waypost_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0' in metrics


async def test_an_answer_that_breaks_off_ends_as_without_progress(artifact):
    pool = echo_pool(**{name: {"fail_with": "mid_stream"} for name in ("cook", "prover", "tiny")})
    async with up(artifact, pool, limits={"max_steps": 1}) as found:
        plain = (await found.client.post(CHAT, chat(stream=True))).events()
        told = (await found.client.post(CHAT, chat(**ASKS))).events()
    assert [s["state"] for s in steps(told)] == ["started", "failed"] * 2
    assert said(told) == said(plain) != ""
    assert told[-1] == plain[-1]
    assert "error" in told[-1]


async def test_a_request_that_a_model_refuses_ends_the_stream(artifact, upstream):
    upstream.script(Reply(status=400, body={"error": {"message": "no"}}))
    base = {"base_url": upstream.url, "model": "m", "max_retries": 0}
    tiny = {"name": "tiny", "engine": "openai", "placement": "inline", "config": base}
    async with up(artifact, [tiny, *echo_pool()[:2]]) as found:
        reply = await found.client.post(CHAT, chat(**ASKS))
    *events, last = reply.events()
    assert [s["state"] for s in steps(events)] == ["started", "failed"]
    assert last["error"]["code"] == "refused_by_model"


async def test_a_router_that_is_replaced_meanwhile_begins_again(one_vote):
    async with up(one_vote) as found:
        router = found.gateway.dispatcher._router
        step, calls = router.step, 0

        async def replaced_once(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == 2:
                raise StaleDecisionError("tiers", "an earlier version")
            return await step(*args, **kwargs)

        router.step = replaced_once
        reply = await found.client.post(CHAT, chat(**ASKS))
    numbers = [s["number"] for s in steps(reply.events())]
    assert numbers == [1, 1, 1, 1, 2, 2]
    assert said(reply.events()) == COOKING
    assert reply.events()[-1] == "[DONE]"


@skips_waits
async def test_a_stop_ends_a_stream_of_progress_with_an_error_event(artifact):
    async with up(artifact, echo_pool(tiny={"delay_s": 50})) as found:
        opened = found.client.open("POST", CHAT, chat(**ASKS))
        while not opened.reply.body:
            await asyncio.sleep(0.01)
        found.gateway.stop(0)
        reply = await opened.end()
    *events, last = reply.events()
    assert [s["state"] for s in steps(events)] == ["started", "cancelled"]
    assert last["error"]["code"] == "server_stopping"


@skips_waits
async def test_a_client_that_leaves_ends_the_calls(artifact):
    async with up(artifact, echo_pool(cook={"tokens": 1000, "tokens_per_s": 20})) as found:
        opened = found.client.open("POST", CHAT, chat(**ASKS))
        while len(found.echo("cook").calls) < 3:
            await asyncio.sleep(0.01)
        opened.go_away()
        await opened.end()
        assert len(found.echo("cook").calls) == 0


# OpenAI's own client


@asynccontextmanager
async def official(found: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.ASGITransport(app=found.gateway)
    async with httpx2.AsyncClient(transport=transport, base_url="http://waypost/v1") as http:
        yield openai.AsyncOpenAI(
            api_key="none", base_url="http://waypost/v1", http_client=http, max_retries=0
        )


MESSAGES = [{"role": "user", "content": COOKING}]


async def test_openais_client_reads_such_a_stream(one_vote):
    async with up(one_vote, echo_pool(cook=NO)) as found, official(found) as client:
        stream = await client.chat.completions.create(
            model="auto",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"waypost": {"progress": True}},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == COOKING
    told = [chunk.waypost["step"] for chunk in chunks if getattr(chunk, "waypost", None)]
    assert [s["state"] for s in told] == ["started", "done"] * 3
    assert chunks[-1].usage.completion_tokens == 2 * WORDS + 1


async def test_openais_accumulating_stream_reads_it_too(one_vote):
    async with (
        up(one_vote) as found,
        official(found) as client,
        client.chat.completions.stream(
            model="auto", messages=MESSAGES, extra_body={"waypost": {"progress": True}}
        ) as stream,
    ):
        deltas = [event.delta async for event in stream if isinstance(event, ContentDeltaEvent)]
        whole = await stream.get_final_completion()
    assert "".join(deltas) == whole.choices[0].message.content == COOKING


async def test_openais_client_raises_an_error_event(artifact):
    pool = echo_pool(**{name: {"fail_with": "500"} for name in ("cook", "prover", "tiny")})
    async with up(artifact, pool) as found, official(found) as client:
        stream = await client.chat.completions.create(
            model="auto", messages=MESSAGES, stream=True, extra_body={"waypost": {"progress": True}}
        )
        with pytest.raises(openai.APIError, match="answered"):
            async for _ in stream:
                pass
