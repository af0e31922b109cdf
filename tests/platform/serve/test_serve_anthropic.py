"""The gateway in front of the Messages API: OpenAI's clients lose nothing that it says."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from support.fake_anthropic import FakeAnthropic, Said, refused
from support.gateway import arguments, chat, echo_pool, running
from support.served import application, free_port
from waypost.cli import command
from waypost.secrets import key_ring

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
THOUGHT = {"type": "thinking", "thinking": "One and one.", "signature": "sig=="}
CALLS = (
    THOUGHT,
    {"type": "text", "text": "I add."},
    {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 1}},
    {"type": "tool_use", "id": "toolu_2", "name": "add", "input": {}},
)


@pytest.fixture
async def upstream():
    async with FakeAnthropic() as server:
        yield server


def entry(url: str) -> dict:
    config = {"base_url": url, "model": "claude", "service": "anthropic", "max_retries": 0}
    return {"name": "cook", "engine": "anthropic", "placement": "inline", "config": config}


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("API_KEYS", '{"anthropic": "sk-ant-0123456789"}')
    key_ring.cache_clear()
    yield
    key_ring.cache_clear()


@pytest.fixture
async def up(artifact, upstream, key):
    async with running(artifact, pool=[entry(upstream.url), *echo_pool()[1:]]) as found:
        yield found


def joined(events: list[dict]) -> tuple[str, dict[int, str]]:
    """Return the text and the arguments of each call of a stream."""
    text, calls = "", {}
    for event in events:
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or ():
                said = call["function"].get("arguments") or ""
                calls[call["index"]] = calls.get(call["index"], "") + said
    return text, calls


async def test_an_answer_with_calls_whole_and_streamed(up, upstream):
    upstream.default = Said(blocks=CALLS, counts={"input_tokens": 4, "cache_read_input_tokens": 6})
    body = chat("add", model="cook", tools=[TOOL])
    reply = await up.client.post(CHAT, body)
    (choice,) = reply.json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("I add.", "tool_calls")
    calls = choice["message"]["tool_calls"]
    assert [call["id"] for call in calls] == ["toolu_1", "toolu_2"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": 1, "b": 1}, {}]
    assert choice["message"]["reasoning_content"] == "One and one."
    usage = reply.json()["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (10, 6)
    assert reply.headers["x-waypost-model"] == "cook"
    assert "x-waypost-ignored" not in reply.headers

    stream = await up.client.post(CHAT, {**body, "stream": True})
    events = stream.events()[:-1]
    thoughts = [event["choices"][0]["delta"].get("reasoning_content") or "" for event in events]
    assert "".join(thoughts) == "One and one."
    text, said = joined(events)
    assert (text, json.loads(said[0]), said[1]) == ("I add.", {"a": 1, "b": 1}, "{}")


async def test_the_next_turn_is_taken(up, upstream):
    upstream.script(Said(blocks=CALLS))
    messages = [{"role": "user", "content": "add"}]
    first = await up.client.post(CHAT, {"model": "cook", "messages": messages, "tools": [TOOL]})
    message = first.json()["choices"][0]["message"]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "2"}
        for call in message["tool_calls"]
    ]
    turns = [*messages, message, *results]
    reply = await up.client.post(CHAT, {"model": "cook", "messages": turns, "tools": [TOOL]})
    assert reply.status == 200  # the server refuses calls without results
    sent = upstream.requests[1].body["messages"]
    assert [turn["role"] for turn in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"] == list(CALLS)  # the thought with its signature, too


async def test_what_the_api_lacks_is_named(up, upstream):
    body = chat("x", model="cook", seed=1, logit_bias={"5": 1}, waypost={"extra": {"top_k": 3}})
    for stream in (False, True):
        reply = await up.client.post(CHAT, {**body, "stream": stream})
        assert reply.headers["x-waypost-ignored"] == "logit_bias, seed"
    assert upstream.requests[0].body["top_k"] == 3


async def test_an_overload_is_answered_by_the_next_llm(up, upstream):
    upstream.script(refused("overloaded_error", "Overloaded"))
    reply = await up.client.post(CHAT, chat())
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
    assert reply.headers["x-waypost-model"] != "cook"


def test_a_serve_file_with_the_engine_has_no_fault(artifact, tmp_path, key):
    def check(**changes) -> str:
        found = entry("https://api.anthropic.com/v1")
        found["config"] |= changes
        plain = arguments(artifact, pool=[found, *echo_pool()[1:]])
        app = {**application("app", artifact, []), "args": plain}
        data = {"http_options": {"host": "127.0.0.1", "port": free_port()}, "applications": [app]}
        path = tmp_path / "file.yaml"
        path.write_text(yaml.safe_dump(data))
        done = CliRunner().invoke(command, ["serve", "--check", str(path)])
        return done.stdout + done.stderr

    assert check(thinking={"type": "adaptive"}).endswith("file.yaml: no fault found\n")
    assert "max_token: unknown key (did you mean 'max_tokens'?)" in check(max_token=3)
