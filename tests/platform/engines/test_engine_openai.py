from __future__ import annotations

import pytest

from support.fake_upstream import Reply
from waypost.contracts.errors import (
    ConfigError,
    ContextLengthError,
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines._http_wire import EventParser
from waypost.engines.base import collect


def ask(text: str = "say these words", **fields) -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": text}], **fields)


# What is sent


async def test_the_body_has_what_was_asked_and_nothing_else(upstream, engine):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    request = ask(
        "hi",
        max_tokens=5,
        temperature=0.0,
        seed=1,
        stop=("x",),
        tools=tools,
        tool_choice="auto",
        extra={"logit_bias": {"1": 2}, "model": "another", "stream": False},
    )
    await collect(await engine(), request)
    assert upstream.requests[0].body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "temperature": 0.0,
        "seed": 1,
        "stop": ["x"],
        "tools": tools,
        "tool_choice": "auto",
        "logit_bias": {"1": 2},
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_prompt_goes_to_completions(upstream, engine):
    answer = await collect(await engine(), GenerateRequest("r", prompt="go on and on"))
    assert upstream.requests[0].path == "/v1/completions"
    assert "messages" not in upstream.requests[0].body
    assert answer.text == "go on and on"


async def test_settings_for_older_and_newer_upstreams(upstream, engine):
    one = await engine(
        max_tokens_field="max_completion_tokens", include_usage=False, headers={"X-Team": "a"}
    )
    await collect(one, ask(max_tokens=5))
    assert upstream.requests[0].body["max_completion_tokens"] == 5
    assert "stream_options" not in upstream.requests[0].body
    assert upstream.requests[0].headers["X-Team"] == "a"
    assert "Authorization" not in upstream.requests[0].headers


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"base_url": "localhost:8000"}, "expected a URL"),
        ({"base_url": "https://user:pw@host/v1"}, "API_KEYS"),
        ({"base_url": "https://host/v1?key=abc"}, "API_KEYS"),
        ({"headers": {"Authorization": "Bearer abc"}}, "API_KEYS"),
        ({"headers": {"X-Api-Key": "abc"}}, "API_KEYS"),
    ],
)
def test_keys_have_no_place_in_the_config(config, problem):
    from waypost.engines import make_engine

    with pytest.raises(ConfigError, match=problem) as caught:
        make_engine("openai", {"base_url": "https://host/v1", "model": "m"} | config)
    assert "pw" not in str(caught.value)
    assert "abc" not in str(caught.value)


# What comes back


async def test_usage_is_the_upstreams(engine):
    answer = await collect(await engine(), ask("a b c"))
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)


async def test_usage_is_a_quarter_of_the_characters_where_none_is_told(upstream, engine):
    upstream.script(Reply(text="x" * 10, usage=False))
    answer = await collect(await engine(), ask("y" * 9))
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)


async def test_an_upstream_that_does_not_stream_gives_one_chunk(upstream, engine):
    one = await engine(stream=False)
    chunks = [chunk async for chunk in one.generate(ask("a b c"))]
    assert [chunk.text for chunk in chunks] == ["a b c", ""]
    assert chunks[-1].usage.output_tokens == 3
    assert upstream.requests[0].body["stream"] is False


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


async def test_tool_call_deltas_pass_through(upstream, engine):
    first = {**CALL, "function": {"name": "f", "arguments": "{"}}
    deltas = ({"index": 0, **first}, {"index": 0, "function": {"arguments": "}"}})
    upstream.script(Reply(tool_calls=deltas))
    answer = await collect(await engine(), ask())
    assert answer.tool_calls == deltas
    assert answer.finish_reason == "tool_calls"


async def test_whole_tool_calls_become_deltas_with_an_index(upstream, engine):
    upstream.script(Reply(tool_calls=(CALL, CALL)))
    answer = await collect(await engine(stream=False), ask())
    assert [call["index"] for call in answer.tool_calls] == [0, 1]


def sse(*events: str, end: str = "\n\n") -> bytes:
    return "".join(f"data: {event}{end}" for event in events).encode()


TEXT = '{"choices":[{"index":0,"delta":{"content":"é🦊"}}]}'
END = '{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'


@pytest.mark.parametrize("split", [None, 1, 7])
@pytest.mark.parametrize(
    "raw",
    [
        sse(TEXT, END, "[DONE]"),
        sse(TEXT, END, "[DONE]", end="\r\n\r\n"),
        b": ping\n\n" + sse(TEXT) + b"event: message\nid: 3\n: ping\n" + sse(END, "[DONE]"),
        sse(TEXT, END),
        sse(TEXT, "[DONE]"),
        sse(TEXT) + f"data: {END}".encode(),
        sse(TEXT).replace(b"data: ", b"data:") + sse(END, "[DONE]"),
        sse(TEXT, END.replace('"stop"', '"end_turn"'), "[DONE]"),
        sse(TEXT, '{"choices":[]}', '{"choices":null}', END, "[DONE]"),
    ],
    ids=[
        "plain",
        "crlf",
        "comments",
        "no-done",
        "no-reason",
        "no-last-line",
        "no-space",
        "reason",
        "empty",
    ],
)
async def test_streams_are_read_however_they_are_written(upstream, engine, raw, split):
    upstream.script(Reply(raw=raw, split=split))
    answer = await collect(await engine(), ask())
    assert (answer.text, answer.finish_reason) == ("é🦊", "stop")


def test_event_data_on_several_lines_is_joined_and_events_have_a_bound(monkeypatch):
    assert EventParser().feed(b"data: a\ndata: b\n\n") == [b"a\nb"]
    monkeypatch.setattr("waypost.engines._http_wire.MAX_EVENT_BYTES", 10)
    parser = EventParser()
    parser.feed(b"data: 123")
    with pytest.raises(EngineServerError, match="exceeds"):
        parser.feed(b"45678")


async def test_a_stop_string_that_the_upstream_lets_through_is_cut(upstream, engine):
    upstream.script(Reply(raw=sse(*[TEXT.replace("é🦊", part) for part in ("ab", "cS", "TOPx")])))
    answer = await collect(await engine(), ask(stop=("STOP",)))
    assert (answer.text, answer.finish_reason) == ("abc", "stop")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply(raw=sse(TEXT)), EngineConnectionError),
        (Reply(raw=sse("not json")), EngineServerError),
        (Reply(raw=sse("[1]")), EngineServerError),
        (Reply(stream_error={"message": "slow down", "code": 429}), EngineOverloadedError),
        (Reply(stream_error={"message": "x", "type": "rate_limit_error"}), EngineOverloadedError),
        (Reply(stream_error={"type": "invalid_request_error"}), EngineRequestError),
        (Reply(stream_error={"code": "context_length_exceeded"}), ContextLengthError),
        (Reply(status=400, body={"error": "maximum context length is 10"}), ContextLengthError),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), EngineRequestError),
        (Reply(status=500, body=None), EngineServerError),
    ],
)
async def test_failures_of_upstreams(upstream, engine, reply, error):
    upstream.script(reply)
    with pytest.raises(error) as caught:
        await collect(await engine(max_retries=0), ask())
    assert type(caught.value) is error


async def test_an_answer_without_choices_is_an_error(upstream, engine):
    upstream.script(Reply(body={"object": "something else"}))
    with pytest.raises(EngineServerError, match="no choices"):
        await collect(await engine(stream=False, max_retries=0), ask())


@pytest.mark.parametrize("echoed", ["my very private question", "private question", "pri vate"])
async def test_an_error_never_repeats_the_users_text(upstream, engine, echoed):
    upstream.script(Reply(status=400, body={"error": {"message": f"bad input: '{echoed}'"}}))
    with pytest.raises(EngineRequestError) as caught:
        await collect(await engine(), ask("my very private question"))
    assert "private question" not in str(caught.value)
    assert ("bad input" in str(caught.value)) == (echoed == "pri vate")
