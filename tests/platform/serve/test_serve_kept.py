"""What an upstream said reaches the client, whole and streamed, and goes on in the next turn."""

from __future__ import annotations

import json

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running
from support.openai_events import stream_of
from waypost.contracts.generation import Answer, Chunk, Usage, joined
from waypost.serve.gateway.responses import ChatFormat, TextFormat, chunked, told_usage, usage_body

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALLS = [
    {
        "index": 0,
        "id": "call_a",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    },
    {
        "index": 0,
        "id": "call_b",
        "type": "function",
        "function": {"name": "get_time", "arguments": '{"tz": "UTC"}'},
    },
]
CITATION = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
XAI = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1700,
    "completion_tokens_details": {"reasoning_tokens": 500},
    "prompt_tokens_details": {"cached_tokens": 900},
}


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


@pytest.fixture
async def up(artifact, upstream):
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    cook = {"name": "cook", "engine": "openai", "placement": "inline", "config": config}
    pool = [cook | {"input_price": 2.0, "output_price": 6.0}, *echo_pool()[1:]]
    async with running(artifact, pool=pool) as found:
        yield found


async def ask(up, upstream, *deltas, reason="stop", usage=None, **fields):
    """Ask for a whole answer and for a stream; return message, joined delta and deltas."""
    reply = Reply(raw=stream_of(*deltas, reason=reason, usage=usage))
    upstream.script(reply, reply)
    whole = await up.client.post(CHAT, chat("x", model="cook", **fields))
    assert whole.status == 200, whole.json()
    stream = await up.client.post(CHAT, chat("x", model="cook", stream=True, **fields))
    events = [event for event in stream.events()[:-1] if event["choices"]]
    deltas = [event["choices"][0]["delta"] for event in events]
    return whole.json(), deltas


async def test_calls_under_one_index_are_two(up, upstream):
    deltas = [{"tool_calls": [call]} for call in CALLS]
    whole, found = await ask(up, upstream, *deltas, reason="tool_calls", tools=[TOOL])
    calls = whole["choices"][0]["message"]["tool_calls"]
    bare = [{k: v for k, v in call.items() if k != "index"} for call in CALLS]
    assert calls == bare
    streamed = [call for delta in found for call in delta.get("tool_calls", [])]
    assert streamed == [CALLS[0], CALLS[1] | {"index": 1}]


async def test_reasoning_reaches_the_client_before_the_text(up, upstream):
    whole, deltas = await ask(up, upstream, {"reasoning_content": "hm"}, {"content": "42"})
    message = whole["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "42")
    told = [(d.get("reasoning_content"), d.get("content")) for d in deltas if d]
    assert [one for one in told if any(one)] in ([("hm", None), ("42", None)], [("hm", "42")])


async def test_what_is_called_reasoning_keeps_that_name_too(up, upstream):
    whole, deltas = await ask(up, upstream, {"reasoning": "hm"}, {"content": "42"})
    message = whole["choices"][0]["message"]
    assert (message["reasoning_content"], message["reasoning"]) == ("hm", "hm")
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "hm"


async def test_a_refusal_passes_with_no_content(up, upstream):
    whole, deltas = await ask(up, upstream, {"content": None, "refusal": "I cannot help."})
    message = whole["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "I cannot help.")
    assert "".join(delta.get("refusal", "") for delta in deltas) == "I cannot help."
    assert not any(delta.get("content") for delta in deltas)


async def test_annotations_pass(up, upstream):
    whole, deltas = await ask(up, upstream, {"content": "a", "annotations": [CITATION]})
    assert whole["choices"][0]["message"]["annotations"] == [CITATION]
    assert [delta["annotations"] for delta in deltas if "annotations" in delta] == [[CITATION]]


async def test_reasoning_outside_of_the_completion_is_counted_and_paid(up, upstream):
    whole, _ = await ask(up, upstream, {"content": "a"}, usage=XAI)
    usage = whole["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (1000, 700)
    assert usage["total_tokens"] == 1700
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 500}
    assert usage["prompt_tokens_details"] == {"cached_tokens": 900}
    assert usage["waypost"]["cost_usd"] == pytest.approx(0.0062)


@pytest.mark.parametrize(("price", "dollars"), [(None, 0.0106), (0.2, 0.00178), (0, 0.0008)])
async def test_cached_tokens_have_a_price_of_their_own(artifact, upstream, price, dollars):
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    cook = {"name": "cook", "engine": "openai", "placement": "inline", "config": config}
    cook |= {"input_price": 2.0, "output_price": 6.0, "cached_input_price": price}
    usage = {
        "prompt_tokens": 5000,
        "completion_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 4900},
    }
    async with running(artifact, pool=[cook, *echo_pool()[1:]]) as up:
        whole, _ = await ask(up, upstream, {"content": "a"}, usage=usage)
    assert whole["usage"]["waypost"]["cost_usd"] == pytest.approx(dollars)


async def test_the_details_of_a_usage_stand_in_a_streams_last_event(up, upstream):
    upstream.script(Reply(raw=stream_of({"content": "a"}, usage=XAI)))
    options = {"stream": True, "stream_options": {"include_usage": True}}
    reply = await up.client.post(CHAT, chat("x", model="cook", **options))
    usage = reply.events()[-2]["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 500}


async def test_what_a_client_sends_back_goes_on_to_the_only_provider(artifact, upstream):
    said = {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "reasoning": "hm",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
        "refusal": None,
        "annotations": [],
        "tool_calls": [CALLS[0] | {"extra_content": {"google": {"thought_signature": "s"}}}],
    }
    result = {"role": "tool", "tool_call_id": "call_a", "content": "rain"}
    messages = [{"role": "user", "content": "x"}, said, result]
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    pool = [
        {"name": name, "engine": "openai", "placement": "inline", "config": config}
        for name in ("cook", "prover")
    ]
    async with running(artifact, pool=pool) as up:
        reply = await up.client.post(CHAT, {"model": "cook", "messages": messages, "tools": [TOOL]})
    assert reply.status == 200
    assert "x-waypost-ignored" not in reply.headers
    assert upstream.requests[0].body["messages"] == messages


@pytest.mark.parametrize("stream", [False, True])
async def test_fields_that_the_api_lacks_pass_by_place(up, upstream, stream):
    raw = stream_of({"content": "a", "images": [{"url": "u"}]}, citations=["c"], model="other")
    upstream.script(Reply(raw=raw))
    reply = await up.client.post(CHAT, chat("x", model="cook", stream=stream))
    bodies = reply.events()[:-1] if stream else [reply.json()]
    assert [body["citations"] for body in bodies if "citations" in body] == [["c"]]
    assert {body["model"] for body in bodies} == {"cook"}
    said = [body["choices"][0].get("delta" if stream else "message") for body in bodies]
    assert [one["images"] for one in said if "images" in one] == [[{"url": "u"}]]


def test_a_completion_keeps_what_is_no_text():
    chunk = Chunk("a", reasoning="hm", finish_reason="stop", usage=Usage(1, 1))
    whole = json.loads(TextFormat("r", "m").whole([joined([chunk])], {}))["choices"][0]
    assert (whole["text"], whole["reasoning_content"]) == ("a", "hm")
    first = TextFormat("r", "m").events(0, chunk).split(b"\n\n")[0].removeprefix(b"data: ")
    assert json.loads(first)["choices"][0]["reasoning_content"] == "hm"


def test_an_upstream_cannot_replace_what_waypost_writes():
    own = {"index": 7, "delta": "x", "finish_reason": "x", "id": "x", "usage": 1, "choices": []}
    chunk = Chunk("a", (), "stop", Usage(1, 1), extra={"choice": own, "answer": own})
    for form in (ChatFormat, TextFormat):
        body = json.loads(form("r", "m").whole([joined([chunk])], {"u": 1}))
        assert (body["usage"], body["choices"][0]["index"]) == ({"u": 1}, 0)
        for text in form("r", "m").events(0, chunk).decode().split("\n\n")[:-1]:
            names = [name for name, _ in json.loads(text[6:], object_pairs_hook=list)]
            assert len(set(names)) == len(names)
            assert json.loads(text[6:])["choices"][0]["index"] == 0


def test_a_whole_answer_sent_as_a_stream_loses_nothing():
    answer = Answer("t" * 99, "stop", Usage(1, 1), (), "r" * 99, "no", (CITATION,), {"message": {}})
    chunks = list(chunked(answer))
    assert joined(chunks) == answer
    assert [bool(chunk.reasoning) for chunk in chunks] == [True, True, False, False, False]


def test_details_are_told_where_an_engine_tells_counts_alone():
    body = usage_body(Usage(10, 5, 4, 2), {})
    assert body["prompt_tokens_details"] == {"cached_tokens": 4}
    assert body["completion_tokens_details"] == {"reasoning_tokens": 2}
    assert set(usage_body(Usage(10, 5), {})) == {
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "waypost",
    }


def test_cached_tokens_of_a_prompt_are_told_once_however_many_answers_it_has():
    one = Usage(10, 5, 4, 2, {"prompt_tokens_details": {"cached_tokens": 4}, "cost": 1})
    told = told_usage({0: one, 1: one}, 2)
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "cost": 2}
    assert told == Usage(10, 10, 4, 4, details)
