"""``waypost.explain``: the decision and the way to the answer, whole, streamed and in steps."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from support.gateway import COOKING, chat, echo_pool, running, stepping

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
EXPLAIN: dict[str, Any] = {"waypost": {"explain": True}}
STREAM = EXPLAIN | {"stream": True, "stream_options": {"include_usage": True}}
NAMES = {
    "reason",
    "failed",
    "predicted_cost_usd",
    "seconds",
    "first_token_s",
    "same_tokens_usd",
    "decision",
}


def fits(up, schema: str, value: Any) -> None:
    """Check a value against the gateway's own description."""
    from waypost.serve.gateway.openapi import document

    found = document(up.plan)
    root = {"$ref": f"#/components/schemas/{schema}", "components": found["components"]}
    jsonschema.validate(value, root)


def check_way(way: dict[str, Any], model: str) -> None:
    assert set(way) >= NAMES
    assert way["decision"]["ranking"][0] == "cook"
    assert set(way["same_tokens_usd"]) == {"cook", "prover", "tiny"}
    assert way["same_tokens_usd"][model] == pytest.approx(way["cost_usd"])
    assert way["predicted_cost_usd"] == way["decision"]["cost_usd"][model]
    assert 0 <= way["seconds"] < 60


async def test_a_whole_answer_tells_its_way_only_where_it_is_asked_for(artifact) -> None:
    async with running(artifact) as up:
        plain = (await up.client.post(CHAT, chat())).json()
        assert not NAMES & set(plain["usage"]["waypost"])
        found = (await up.client.post(CHAT, chat(**EXPLAIN))).json()
        way = found["usage"]["waypost"]
        check_way(way, "cook")
        assert way["first_token_s"] is None
        assert way["failed"] == []
        assert way["reason"] == way["decision"]["reason"]
        assert way["decision"]["request_id"] == way["request_id"]
        fits(up, "ChatAnswer", found)


async def test_a_stream_begins_with_the_decision_and_ends_with_the_way(artifact) -> None:
    async with running(artifact) as up:
        first, *_, last, done = (await up.client.post(CHAT, chat(**STREAM))).events()
        assert first["choices"] == []
        assert first["model"] == "cook"
        fits(up, "ChatChunk", first)
        fits(up, "ChatChunk", last)
        way = last["usage"]["waypost"]
        check_way(way, "cook")
        assert first["waypost"]["decision"] == way["decision"]
        assert 0 < way["first_token_s"] <= way["seconds"]
        assert done == "[DONE]"
        body = {"prompt": COOKING} | STREAM
        first = (await up.client.post(TEXT, body)).events()[0]
        assert first["waypost"]["decision"]["model_name"] == "cook"
        fits(up, "TextChunk", first)


@pytest.mark.parametrize("form", [EXPLAIN, STREAM])
async def test_after_a_failover_the_reason_is_that_of_the_llm_that_answers(artifact, form) -> None:
    async with running(artifact, pool=echo_pool(cook={"fail_with": "500"})) as up:
        reply = await up.client.post(CHAT, chat(**form))
        last = reply.events()[-2] if "stream" in form else reply.json()
        way = last["usage"]["waypost"]
        model = way["model"]
        assert model != "cook"
        check_way(way, model)
        assert way["failed"] == ["cook"]
        assert way["reason"].startswith(f"cook did not answer; {model} answers")


async def test_a_router_in_steps_tells_its_decision_before_its_calls(one_vote) -> None:
    asks = STREAM | {"waypost": {"explain": True, "progress": True}}
    pool = echo_pool(cook={"text": "no", "tokens": 1}, tiny={"fail_with": "500"})
    async with stepping(one_vote, pool) as up:
        first, second, *_, last, _ = (await up.client.post(CHAT, chat(**asks))).events()
        assert set(first["waypost"]) == {"decision"}
        assert set(second["waypost"]) == {"step"}
        way = last["usage"]["waypost"]
        assert set(way) >= NAMES
        assert way["failed"] == ["tiny"]
        assert way["same_tokens_usd"] == {}  # of several calls no price list knows the sum
        fits(up, "ChatChunk", last)
