"""The gateway over ASGI: every endpoint, with a real router and echo engines."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest

from support.asgi import Client
from support.gateway import (
    ALGEBRA,
    COOKING,
    Running,
    chat,
    echo_pool,
    running,
)
from waypost.contracts.generation import Usage
from waypost.serve.changes import change_plan
from waypost.serve.config import UserConfig

CHAT = "/v1/chat/completions"


@pytest.fixture
async def up(artifact, tmp_path) -> AsyncIterator[Running]:
    async with running(artifact, feedback_dir=str(tmp_path / "feedback")) as found:
        yield found


@pytest.fixture
def client(up: Running) -> Client:
    return up.client


# answers


async def test_auto_sends_each_question_to_the_model_that_is_best_for_it(client):
    for question, model in ((COOKING, "cook"), (ALGEBRA, "prover")):
        reply = await client.post(CHAT, chat(question))
        assert reply.status == 200
        assert reply.headers["x-waypost-model"] == reply.json()["model"] == model
        assert reply.json()["choices"][0]["message"]["content"] == question


async def test_the_headers_say_which_model_and_why(client):
    headers = (await client.post(CHAT, chat())).headers
    assert headers["x-waypost-router"] == "knnrouter"
    assert headers["x-waypost-attempts"] == "1"
    assert 0 <= float(headers["x-waypost-confidence"]) <= 1
    assert float(headers["x-waypost-predicted-cost-usd"]) > 0
    assert headers["x-waypost-cost-usd"] == headers["x-waypost-predicted-cost-usd"]
    assert float(headers["x-waypost-decision-ms"]) > 0
    assert "highest predicted quality" in headers["x-waypost-reason"]
    assert re.fullmatch("[0-9a-f]{24}", headers["x-waypost-request-id"])


async def test_usage_tells_tokens_and_dollars_at_the_prices_of_the_artifact(client):
    reply = await client.post(CHAT, chat("a b c", model="cook"))
    usage = reply.json()["usage"]
    actual = float(reply.headers["x-waypost-actual-cost-usd"])
    assert actual == pytest.approx(usage["waypost"]["cost_usd"], rel=1e-5)
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 3, 6)
    assert usage["waypost"]["cost_usd"] == pytest.approx((3 * 0.5 + 3 * 1.5) / 1e6)
    assert usage["waypost"]["model"] == "cook"


async def test_a_stream_has_openais_events_and_ends_with_done(client):
    reply = await client.post(CHAT, chat("a b", stream=True))
    assert "x-waypost-actual-cost-usd" not in reply.headers  # known at its end only
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, done = reply.events()
    assert done == "[DONE]"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "a"}, {"content": " b"}, {}]
    assert [e["choices"][0]["finish_reason"] for e in events] == [None, None, None, "stop"]
    assert "usage" not in events[0]


async def test_a_stream_tells_its_usage_in_the_last_event_where_asked(client):
    reply = await client.post(CHAT, chat(stream=True, stream_options={"include_usage": True}))
    *events, usage, _ = reply.events()
    assert all(event["usage"] is None for event in events)
    assert usage["choices"] == []
    assert usage["usage"]["waypost"]["cost_usd"] > 0


async def test_the_first_token_is_sent_before_the_second_is_made(artifact):
    pool = echo_pool(cook={"tokens": 3, "tokens_per_s": 20})
    async with running(artifact, pool=pool) as up:
        opened = up.client.open("POST", CHAT, chat(model="cook", stream=True))
        await opened.part(1)
        assert up.echo("cook").calls.output_tokens == 1
        reply = await opened.end()
        assert len(reply.parts) >= 4


@pytest.mark.parametrize("stream", [False, True])
async def test_n_answers_have_their_indices_and_add_up(up, stream):
    reply = await up.client.post(
        CHAT, chat("a b", n=3, stream=stream, stream_options={"include_usage": True})
    )
    if stream:
        *events, usage, _ = reply.events()
        texts = {0: "", 1: "", 2: ""}
        for event in events:
            choice = event["choices"][0]
            texts[choice["index"]] += choice["delta"].get("content", "")
        assert texts == {0: "a b", 1: "a b", 2: "a b"}
        usage = usage["usage"]
    else:
        body = reply.json()
        assert [c["index"] for c in body["choices"]] == [0, 1, 2]
        usage = body["usage"]
    # the prompt's two tokens are told once, and paid by the engine that read them three times
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (2, 6, 8)
    spent = up.gateway.dispatcher.cost_usd(usage["waypost"]["model"], Usage(6, 6))
    assert usage["waypost"]["cost_usd"] == spent


async def test_stop_and_max_tokens_reach_the_engine(client):
    reply = await client.post(CHAT, chat("a b c d", stop=[" c"]))
    choice = reply.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("a b", "stop")
    for field in ("max_tokens", "max_completion_tokens"):
        choice = (await client.post(CHAT, chat("a b c d", **{field: 2}))).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("a b", "length")


async def test_a_completion_continues_its_prompt(client):
    reply = await client.post("/v1/completions", {"prompt": "a b"})
    body = reply.json()
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == "a b"


async def test_several_prompts_are_answered_in_order_each_n_times(client):
    reply = await client.post("/v1/completions", {"prompt": ["a", "b"], "n": 2})
    assert [c["text"] for c in reply.json()["choices"]] == ["a", "a", "b", "b"]


async def test_a_streamed_completion_carries_text(client):
    reply = await client.post("/v1/completions", {"prompt": "a b", "stream": True})
    *events, done = reply.events()
    assert done == "[DONE]"
    assert "".join(event["choices"][0]["text"] for event in events) == "a b"


# which model


async def test_a_model_asked_for_by_name_answers_and_no_router_is_asked(client):
    reply = await client.post(CHAT, chat(model="tiny"))
    assert reply.headers["x-waypost-model"] == "tiny"
    assert reply.headers["x-waypost-router"] == "pinned"
    assert "x-waypost-confidence" not in reply.headers


async def test_a_router_asked_for_by_name_decides(client):
    reply = await client.post(CHAT, chat(model="knnrouter"))
    assert reply.headers["x-waypost-router"] == "knnrouter"


async def test_without_a_model_the_default_router_decides(client):
    body = chat()
    del body["model"]
    assert (await client.post(CHAT, body)).headers["x-waypost-model"] == "cook"


@pytest.mark.parametrize("by", ["body", "headers"])
async def test_lambda_and_allowed_models_change_the_choice(client, by):
    async def choice(**knobs):
        if by == "body":
            reply = await client.post(CHAT, chat(waypost=knobs))
        else:
            shown = {k: ",".join(v) if isinstance(v, list) else str(v) for k, v in knobs.items()}
            named = {f"x_waypost_{k}": v for k, v in shown.items()}
            reply = await client.post(CHAT, chat(), **named)
        return reply.headers["x-waypost-model"]

    assert await choice(**{"lambda": 0}) == "cook"
    assert await choice(**{"lambda": 1000}) == "tiny"
    assert await choice(allowed_models=["prover", "tiny"]) != "cook"


async def test_the_body_wins_over_a_header(client):
    reply = await client.post(CHAT, chat(waypost={"lambda": 0}), x_waypost_lambda="1000")
    assert reply.headers["x-waypost-model"] == "cook"


async def test_a_budget_leaves_out_what_is_too_dear(client):
    reply = await client.post(CHAT, chat(waypost={"max_cost_usd": 1e-5}))
    assert reply.headers["x-waypost-model"] == "tiny"


async def test_on_the_last_message_of_the_user_or_on_all_turns(artifact):
    turns = [
        {"role": "user", "content": ALGEBRA},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [{"type": "text", "text": COOKING}]},
    ]
    for route_on, characters in (
        ("current_only", len(COOKING)),
        ("full_context", len(f"{ALGEBRA}\nyes\n{COOKING}")),
    ):
        async with running(artifact, route_on=route_on) as up:
            reply = await up.client.post("/v1/route", {"messages": turns})
            assert reply.json()["characters"] == characters
            assert reply.json()["route_on"] == route_on


async def test_a_pool_smaller_than_the_artifact_masks_the_rest(artifact):
    async with running(artifact, pool=echo_pool()[1:]) as up:
        decision = (await up.client.post("/v1/route", {"query": COOKING})).json()
        assert sorted(decision["ranking"]) == ["prover", "tiny"]


async def test_policy_and_prices_change_while_it_runs(up):
    async def asked():
        reply = await up.client.post(CHAT, chat("a"))
        return reply.headers["x-waypost-model"], reply.json()["usage"]["waypost"]["cost_usd"]

    before = await asked()
    config = {
        "policy": {"allowed_models": ["tiny"]},
        "prices": {"tiny": {"input_price": 100, "output_price": 200}},
    }
    plain = up.plan
    await up.gateway.adopt(change_plan(plain, UserConfig.model_validate(config)))
    assert await asked() == ("tiny", pytest.approx(300 / 1e6))
    await up.gateway.adopt(plain)
    assert await asked() == before


# the other endpoints


async def test_route_explains_and_asks_no_model(up):
    reply = await up.client.post("/v1/route", {"query": COOKING, "waypost": {"lambda": 0.5}})
    decision = reply.json()
    assert decision["model_name"] == "cook"
    assert decision["lambda"] == 0.5
    assert decision["request_id"] == reply.headers["x-waypost-request-id"]
    assert up.echo("cook").calls.output_tokens == 0


async def test_route_takes_the_body_of_a_chat(client):
    reply = await client.post("/v1/route", chat(ALGEBRA, max_tokens=5, temperature=0.5))
    assert reply.json()["model_name"] == "prover"


async def test_a_model_is_shown_by_its_name(client):
    listed = (await client.get("/v1/models")).json()["data"]
    for model in listed:
        assert (await client.get(f"/v1/models/{model['id']}")).json() == model
    assert (await client.get("/v1/models/")).json()["data"] == listed
    for path in ("/v1/models/nobody", "/v1/models/cook/x", "/v1/models/{model}"):
        reply = await client.get(path)
        assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert (await client.open("DELETE", "/v1/models/cook").end()).headers["allow"] == "GET"
    assert "/v1/models/{model}" in (await client.get("/metrics")).body.decode()


async def test_the_models_are_the_routers_and_the_llms(client):
    listed = (await client.get("/v1/models")).json()
    assert [m["id"] for m in listed["data"]] == ["auto", "knnrouter", "cook", "prover", "tiny"]


async def test_health_says_ok(client):
    assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_the_metrics_count_what_happened(client):
    await client.post(CHAT, chat("a b", model="cook", stream=True))
    await client.post(CHAT, chat(ALGEBRA))
    await client.post(CHAT, b"{")
    text = (await client.get("/metrics")).body.decode()
    for line in (
        'waypost_requests_total{endpoint="/v1/chat/completions",status="200"} 2.0',
        'waypost_requests_total{endpoint="/v1/chat/completions",status="400"} 1.0',
        'waypost_decisions_total{model="prover",router="knnrouter"} 1.0',
        'waypost_tokens_total{direction="output",model="cook"} 2.0',
        'waypost_cost_usd_total{model="cook",router="pinned"} 4e-06',
        'waypost_time_to_first_token_seconds_count{model="cook"} 1.0',
        "waypost_decision_seconds_count 2.0",
        "waypost_requests_in_flight 0.0",
    ):
        assert line in text.splitlines()


async def test_below_a_route_prefix_the_paths_are_the_same(client):
    reply = await client.open("GET", "/v1/models", root_path="/team").end()
    assert reply.status == 200


# with OpenAI's own client


@pytest.fixture
async def official(up) -> AsyncIterator[openai.AsyncOpenAI]:
    transport = httpx2.ASGITransport(app=up.gateway)
    async with httpx2.AsyncClient(transport=transport, base_url="http://waypost/v1") as http:
        yield openai.AsyncOpenAI(
            api_key="none", base_url="http://waypost/v1", http_client=http, max_retries=0
        )


async def test_the_openai_client_reads_a_chat(official):
    messages = [{"role": "user", "content": COOKING}]
    answer = await official.chat.completions.create(model="auto", messages=messages)
    assert answer.choices[0].message.content == COOKING
    assert answer.usage.model_extra["waypost"]["model"] == "cook"


async def test_the_openai_client_reads_a_stream(official):
    stream = await official.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": "a b c"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    text, usage = "", None
    async for chunk in stream:
        text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        usage = chunk.usage or usage
    assert (text, usage.completion_tokens) == ("a b c", 3)


async def test_the_openai_client_raises_its_own_errors(official):
    with pytest.raises(openai.NotFoundError, match="no model is named"):
        await official.chat.completions.create(
            model="gpt-x", messages=[{"role": "user", "content": ""}]
        )
    with pytest.raises(openai.BadRequestError) as caught:
        await official.chat.completions.create(model="auto", messages=[])
    assert caught.value.param == "messages"


async def test_the_openai_client_lists_models_and_completes(official):
    assert "tiny" in [model.id async for model in await official.models.list()]
    assert (await official.completions.create(model="tiny", prompt="a b")).choices[0].text == "a b"


async def test_a_gateway_that_stops_ends_its_streams_with_an_error_event(artifact):
    async with running(artifact, pool=echo_pool(cook={"tokens": 100, "tokens_per_s": 20})) as up:
        stream = up.client.open("POST", CHAT, chat(model="cook", stream=True))
        whole = up.client.open("POST", CHAT, chat(model="cook"))
        await stream.part(1)
        up.gateway.stop(0.1)
        refused = await up.client.post(CHAT, chat())
        assert (refused.status, refused.json()["error"]["code"]) == (503, "server_stopping")
        assert (await up.client.get("/healthz")).status == 503
        *_, last = (await stream.end()).events()
        assert last["error"]["code"] == "server_stopping"
        assert (await whole.end()).status == 503
        assert len(up.echo("cook").calls) == 0


async def test_many_requests_at_once_are_all_answered(client):
    bodies = [chat(f"question {i}", stream=bool(i % 2)) for i in range(60)]
    replies = await asyncio.gather(*(client.post(CHAT, body) for body in bodies))
    assert {reply.status for reply in replies} == {200}
