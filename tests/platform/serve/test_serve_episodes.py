"""A router that works in steps behind the gateway: episodes with echo engines, no Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

import jsonschema
import pytest

from support.fake_upstream import Reply
from support.gateway import COOKING, chat, echo_pool
from support.gateway import stepping as up
from support.skipping_loop import skips_waits
from waypost.feedback import read_rated
from waypost.testing.steps import tiers_artifact

CHAT = "/v1/chat/completions"
NO = {"text": "no", "tokens": 1}
WORDS = len(COOKING.split())


@pytest.fixture
def artifact(tiers) -> Path:
    return tiers


async def test_an_answer_that_is_accepted_is_the_cheap_one(one_vote):
    async with up(one_vote) as found:
        reply = await found.client.post(CHAT, chat())
    body, headers = reply.json(), reply.headers
    assert (reply.status, headers["x-waypost-model"], body["model"]) == (200, "tiny", "tiny")
    assert body["choices"][0]["message"]["content"] == COOKING
    assert headers["x-waypost-router"] == "tiers"
    assert headers["x-waypost-attempts"] == "2"  # tiny, and cook who judged
    assert headers["x-waypost-confidence"] == "0.5"
    assert headers["x-waypost-reason"] == "the first tier is called first"


async def test_usage_is_that_of_every_call(one_vote):
    async with up(one_vote) as found:
        usage = (await found.client.post(CHAT, chat())).json()["usage"]
    # tiny reads and says the question; cook reads "yes or no?" and it, and may say 5 tokens
    assert usage["prompt_tokens"] == WORDS + (3 + WORDS)
    assert usage["completion_tokens"] == WORDS + 5
    told = usage["waypost"]
    cents = WORDS * 0.05 + WORDS * 0.1 + (3 + WORDS) * 0.5 + 5 * 1.5
    assert told["cost_usd"] == pytest.approx(cents / 1e6)
    assert (told["steps"], told["calls"], told["unpriced_calls"]) == (2, 2, 0)
    assert (told["input_tokens"], told["output_tokens"]) == (2 * WORDS + 3, WORDS + 5)
    assert (told["model"], told["ended_by"]) == ("tiny", "answer")


async def test_one_that_is_rejected_goes_to_the_next_tier(artifact):
    async with up(artifact, echo_pool(cook=NO)) as found:
        reply = await found.client.post(CHAT, chat())
    assert reply.headers["x-waypost-model"] == "prover"
    assert reply.json()["usage"]["waypost"]["calls"] >= 4  # a settled vote may end a call


@skips_waits
async def test_a_stream_begins_when_an_answer_is_accepted(artifact):
    slow = {"text": "no", "delay_s": 0.2}
    async with up(artifact, echo_pool(cook=slow, tiny={"text": "wrong"})) as found:
        body = chat(f"{COOKING} " * 2, stream=True, stream_options={"include_usage": True})
        opened = found.client.open("POST", CHAT, body)
        await asyncio.sleep(0.1)
        assert opened.reply.status == 0
        reply = await opened.end()
    assert reply.headers["x-waypost-model"] == "prover"
    *events, usage, done = reply.events()
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == f"{COOKING} " * 2
    assert len(deltas) > 3  # the text in pieces
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["waypost"]["calls"] >= 4
    assert done == "[DONE]"


@pytest.mark.parametrize("how", ["500", "connection", "429"])
async def test_a_tier_that_fails_is_passed_over(artifact, how):
    async with up(artifact, echo_pool(tiny={"fail_with": how})) as found:
        reply = await found.client.post(CHAT, chat())
        metrics = (await found.client.get("/metrics")).body.decode()
    assert (reply.status, reply.headers["x-waypost-model"]) == (200, "prover")
    assert 'waypost_failovers_total{model="tiny"' in metrics


async def test_a_tier_that_failed_lately_is_not_asked(artifact):
    async with up(artifact, echo_pool(tiny={"fail_with": "connection"})) as found:
        for _ in range(5):
            assert (await found.client.post(CHAT, chat())).status == 200
        metrics = (await found.client.get("/metrics")).body.decode()
        assert found.gateway.dispatcher.circuit.resting() == ("tiny",)
    assert 'waypost_failovers_total{model="tiny",reason="connection"} 1.0' in metrics


async def test_a_verifier_that_fails_costs_its_votes_only(artifact):
    async with up(artifact, echo_pool(cook={"fail_with": "500"})) as found:
        reply = await found.client.post(CHAT, chat())
    assert (reply.status, reply.headers["x-waypost-model"]) == (200, "prover")


async def test_where_no_tier_answers_that_is_said(artifact):
    pool = echo_pool(**{name: {"fail_with": "500"} for name in ("cook", "prover", "tiny")})
    async with up(artifact, pool) as found:
        reply = await found.client.post(CHAT, chat(stream=True))
    assert (reply.status, reply.json()["error"]["code"]) == (502, "all_models_failed")
    assert reply.headers["x-waypost-attempts"] == "2"


@skips_waits
async def test_a_client_that_leaves_ends_the_calls(artifact):
    slow = {"tokens": 1000, "tokens_per_s": 20}
    async with up(artifact, echo_pool(cook=slow)) as found:
        opened = found.client.open("POST", CHAT, chat())
        while len(found.echo("cook").calls) < 3:
            await asyncio.sleep(0.01)
        opened.go_away()
        await opened.end()
        assert len(found.echo("cook").calls) == 0
        # what was spent until then is counted
        metrics = (await found.client.get("/metrics")).body.decode()
    assert f'waypost_tokens_total{{direction="output",model="tiny"}} {WORDS}.0' in metrics


@skips_waits
async def test_a_step_is_concurrent(artifact):
    slow = {"text": "yes", "delay_s": 0.3}
    async with up(artifact, echo_pool(cook=slow)) as found:
        begin = asyncio.get_running_loop().time()
        await found.client.post(CHAT, chat())
        assert asyncio.get_running_loop().time() - begin < 0.8  # three votes of 0.3 s


# bounds


async def test_after_the_last_step_allowed_the_best_answer_so_far_is_taken(artifact):
    async with up(artifact, echo_pool(cook=NO), limits={"max_steps": 2}) as found:
        reply = await found.client.post(CHAT, chat())
    assert reply.headers["x-waypost-model"] == "tiny"
    assert reply.json()["usage"]["waypost"]["ended_by"] == "steps"


@pytest.mark.parametrize(
    ("knobs", "limits", "ended_by"),
    [
        ({"max_cost_usd": 1e-7}, {}, "money"),
        ({}, {"max_episode_tokens": 5}, "tokens"),
    ],
)
async def test_money_and_tokens_end_an_episode(artifact, knobs, limits, ended_by):
    async with up(artifact, echo_pool(cook=NO), limits=limits) as found:
        told = (await found.client.post(CHAT, chat(waypost=knobs))).json()["usage"]["waypost"]
    assert (told["ended_by"], told["calls"], told["model"]) == (ended_by, 1, "tiny")


@skips_waits
async def test_the_time_of_the_request_is_that_of_all_its_calls(artifact):
    limits = {"total_timeout_s": 0.6, "first_token_timeout_s": 0.3}
    slow = {"text": "no", "delay_s": 5}
    async with up(artifact, echo_pool(cook=slow), limits=limits) as found:
        begin = asyncio.get_running_loop().time()
        reply = await found.client.post(CHAT, chat())
        assert asyncio.get_running_loop().time() - begin < 2
    assert reply.status == 200


async def test_allowed_models_are_all_that_is_asked(artifact):
    async with up(artifact) as found:
        reply = await found.client.post(CHAT, chat(waypost={"allowed_models": ["prover"]}))
        assert reply.headers["x-waypost-model"] == "prover"
        assert found.echo("tiny").calls.output_tokens == 0
        assert found.echo("cook").calls.output_tokens == 0


async def test_a_model_that_is_not_allowed_or_not_there_is_not_asked(tmp_path):
    artifact = tiers_artifact(tmp_path, tiers="nobody tiny prover", stubborn=True)
    async with up(artifact, echo_pool(cook=NO)) as found:
        reply = await found.client.post(CHAT, chat(waypost={"allowed_models": ["prover"]}))
        assert (reply.status, reply.headers["x-waypost-model"]) == (200, "prover")
        assert found.echo("tiny").calls.output_tokens == 0


async def test_a_request_that_a_model_refuses_is_the_clients_fault(artifact, upstream):
    upstream.script(Reply(status=400, body={"error": {"message": "no"}}))
    base = {"base_url": upstream.url, "model": "m", "max_retries": 0}
    pool = [{"name": "tiny", "engine": "openai", "placement": "inline", "config": base}]
    async with up(artifact, [*pool, *echo_pool()[:2]]) as found:
        reply = await found.client.post(CHAT, chat())
        assert (reply.status, reply.json()["error"]["code"]) == (400, "refused_by_model")
        assert found.echo("prover").calls.output_tokens == 0


# what is asked


async def test_an_answer_is_asked_for_as_the_client_asked(one_vote):
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a b c"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e f g"},
    ]
    async with up(one_vote) as found:
        reply = await found.client.post(CHAT, {"messages": turns, "max_tokens": 2})
    choice, usage = reply.json()["choices"][0], reply.json()["usage"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("e f", "length")
    assert usage["prompt_tokens"] == 2 + 3 + 1 + 3 + 5  # all turns; "yes or no? e f"


async def test_the_router_bounds_an_answer_where_the_client_does_not(one_vote):
    async with up(one_vote, echo_pool(tiny={"text": " a b", "tokens": 90})) as found:
        reply = await found.client.post(CHAT, chat())
    assert reply.json()["choices"][0]["finish_reason"] == "length"
    assert len(reply.json()["choices"][0]["message"]["content"].split()) == 50


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_is_answered_in_steps_too(artifact, stream):
    async with up(artifact) as found:
        reply = await found.client.post(
            "/v1/completions", {"prompt": "a b", "stream": stream, "model": "tiers"}
        )
    if stream:
        text = "".join(event["choices"][0]["text"] for event in reply.events()[:-1])
    else:
        text = reply.json()["choices"][0]["text"]
    assert (text, reply.headers["x-waypost-model"]) == ("a b", "tiny")


TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT, chat(n=2), "n"),
        (CHAT, chat(tools=[TOOL]), "tools"),
        ("/v1/completions", {"prompt": ["a", "b"]}, "prompt"),
        ("/v1/route", chat(n=2, model="tiers"), "n"),
    ],
)
async def test_what_an_episode_cannot_give_is_refused(artifact, path, body, field):
    async with up(artifact) as found:
        reply = await found.client.post(path, body)
        assert (reply.status, reply.json()["error"]["param"]) == (400, field)
        assert reply.json()["error"]["code"] == "not_in_steps"
        pinned = await found.client.post(path, {**body, "model": "tiny"})
        assert pinned.status == 200


# the other endpoints


async def test_route_tells_the_first_decision(artifact):
    async with up(artifact) as found:
        decision = (await found.client.post("/v1/route", {"query": COOKING})).json()
        assert found.echo("tiny").calls.output_tokens == 0
    assert decision["model_name"] == "tiny"
    assert decision["ranking"] == ["tiny", "prover"]


async def test_an_answer_can_be_rated(artifact, tmp_path):
    async with up(artifact, echo_pool(cook=NO), feedback_dir=str(tmp_path)) as found:
        reply = await found.client.post(CHAT, chat())
        rating = {"request_id": reply.json()["id"], "rating": 1}
        assert (await found.client.post("/v1/feedback", rating)).json()["model"] == "prover"
    (row,) = read_rated(tmp_path).requests.values()
    assert (row["decided_model"], row["model_name"]) == ("tiny", "prover")
    assert row["cost_usd"] == pytest.approx(reply.json()["usage"]["waypost"]["cost_usd"])


async def test_the_metrics_count_the_calls(one_vote):
    async with up(one_vote) as found:
        await found.client.post(CHAT, chat())
        lines = (await found.client.get("/metrics")).body.decode().splitlines()
    for line in (
        'waypost_episodes_total{ended_by="answer",router="tiers"} 1.0',
        'waypost_episode_calls_total{model="tiny",purpose="answer"} 1.0',
        'waypost_episode_calls_total{model="cook",purpose="verify"} 1.0',
        f'waypost_tokens_total{{direction="output",model="tiny"}} {WORDS}.0',
        'waypost_tokens_total{direction="output",model="cook"} 5.0',
    ):
        assert line in lines


async def test_the_answer_is_as_the_document_says(artifact):
    async with up(artifact, echo_pool(cook=NO)) as found:
        document = (await found.client.get("/openapi.json")).json()
        reply = (await found.client.post(CHAT, chat())).json()
    schema = {"$ref": "#/components/schemas/ChatAnswer", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(reply)
