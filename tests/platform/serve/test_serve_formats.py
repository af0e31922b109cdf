"""Formats of answers by a local LLM: refused, or enforced, whole and streamed."""

from __future__ import annotations

import json

import jsonschema
import pytest

from support.gateway import chat, echo_pool, running
from waypost.testing.tiny_model import write_tiny_model

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "word": {"type": "string", "maxLength": 5}},
    "required": ["sure", "word"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def local(tiny, **config):
    plain = {"model": str(tiny), "device": "cpu", "dtype": "float32", "threads": 1, "nice": 0}
    return [{"name": "cook", "engine": "transformers", "config": plain | config}, *echo_pool()[1:]]


async def test_enforced_whole_and_streamed(artifact, tiny):
    async with running(artifact, pool=local(tiny, response_format="enforce")) as up:
        body = chat("x", model="cook", response_format=FORM, max_tokens=60)
        whole = await up.client.post(CHAT, body)
        stream = await up.client.post(CHAT, body | {"stream": True})
        cut = await up.client.post(CHAT, body | {"max_tokens": 4})
        wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "text"}}}
        refused = await up.client.post(CHAT, body | {"response_format": wrong})
    assert "x-waypost-ignored" not in whole.headers
    message = whole.json()["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(message), SCHEMA)
    choices = [event["choices"][0] for event in stream.events()[:-1]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    jsonschema.validate(json.loads(text), SCHEMA)
    assert choices[-1]["finish_reason"] == "stop"
    assert cut.json()["choices"][0]["finish_reason"] == "length"
    assert refused.status == 400
    assert "response_format.json_schema.schema: Invalid type" in refused.json()["error"]["message"]


async def test_refused_by_default_and_the_next_llm_is_asked(artifact, tiny):
    async with running(artifact, pool=local(tiny)) as up:
        alone = await up.client.post(CHAT, chat("x", model="cook", response_format=FORM))
        routed = await up.client.post(CHAT, chat(response_format=FORM))
        for _ in range(12):  # what one LLM lacks is no failure of its own
            await up.client.post(CHAT, chat(response_format=FORM))
        plain = await up.client.post(CHAT, chat(max_tokens=3))
    assert alone.status == 400
    assert "set response_format: enforce" in alone.json()["error"]["message"]
    assert (routed.status, routed.headers["x-waypost-attempts"]) == (200, "2")
    assert plain.headers["x-waypost-model"] == "cook"
