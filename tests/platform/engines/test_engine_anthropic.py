"""What the `anthropic` engine makes of answers, whole and as events, and of refusals."""

from __future__ import annotations

import json

import pytest

from support.fake_anthropic import FakeAnthropic, Said, event, problem, refused
from support.fake_upstream import Reply
from support.started_engines import started_engines
from waypost.contracts.errors import (
    ConfigError,
    ContextLengthError,
    EngineAuthError,
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import GenerateRequest, Usage
from waypost.engines import make_engine
from waypost.engines._anthropic_answer import MessageReader
from waypost.engines.anthropic import AnthropicEngine
from waypost.engines.base import collect
from waypost.secrets import KeyRing

TOOLS = [{"type": "function", "function": {"name": "weather"}}]
THOUGHT = {
    "type": "thinking",
    "thinking": "Let me see what they want.",
    "signature": "EqQBCgIYAh==",
}
TOWN = {"town": "Zürich", "in": [1]}
CALLS = (
    {"type": "text", "text": "I look it up."},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": TOWN},
    {"type": "tool_use", "id": "toolu_2", "name": "clock", "input": {}},
)
BOTH = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@pytest.fixture
async def upstream():
    async with FakeAnthropic() as server:
        yield server


@pytest.fixture
async def engine(upstream):
    """Make started engines for the upstream; all are closed at the end."""
    async with started_engines(AnthropicEngine, upstream.url, "claude") as make:
        yield make


def ask(content: str = "say these words", **fields) -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": content}], **fields)


# Answers


@BOTH
async def test_a_text(upstream, engine, stream):
    answer = await collect(await engine(stream=stream), ask())
    assert (answer.text, answer.finish_reason) == ("say these words", "stop")
    assert answer.usage == Usage(3, 3)
    sent = upstream.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert "x-api-key" not in sent.headers
    assert sent.body.get("stream", False) is stream


@BOTH
async def test_calls_of_tools(upstream, engine, stream):
    upstream.script(Said(blocks=CALLS))
    chunks = [c async for c in (await engine(stream=stream)).generate(ask(tools=TOOLS))]
    assert "".join(chunk.text for chunk in chunks) == "I look it up."
    assert chunks[-1].finish_reason == "tool_calls"
    deltas = [delta for chunk in chunks for delta in chunk.tool_calls]
    first = [delta for delta in deltas if "id" in delta]
    assert [(d["index"], d["id"], d["type"], d["function"]["name"]) for d in first] == [
        (0, "toolu_1", "function", "weather"),
        (1, "toolu_2", "function", "clock"),
    ]
    said = {0: "", 1: ""}
    for delta in deltas:
        said[delta["index"]] += delta["function"]["arguments"]
    assert json.loads(said[0]) == TOWN
    assert said[1] == "{}"  # a call without arguments: "" is no JSON


@BOTH
async def test_thinking_is_reasoning_and_goes_back_as_it_was(upstream, engine, stream):
    hidden = {"type": "redacted_thinking", "data": "Eva=="}
    upstream.script(Said(blocks=(THOUGHT, hidden, {"type": "text", "text": "Noon."})))
    one = await engine(stream=stream, thinking={"type": "adaptive"})
    answer = await collect(one, ask())
    assert (answer.reasoning, answer.text) == (THOUGHT["thinking"], "Noon.")
    blocks = answer.extra["message"]["thinking_blocks"]
    assert blocks == [{**THOUGHT, "index": 0}, {**hidden, "index": 1}]
    said = {"role": "assistant", "content": answer.text, "thinking_blocks": blocks}
    turns = [{"role": "user", "content": "a"}, said, {"role": "user", "content": "b"}]
    await collect(one, GenerateRequest("r", messages=turns))
    sent = upstream.requests[1].body["messages"][1]["content"]
    assert sent == [THOUGHT, hidden, {"type": "text", "text": "Noon."}]


@BOTH
async def test_cached_and_thinking_tokens(upstream, engine, stream):
    counts = {
        "input_tokens": 10,
        "cache_read_input_tokens": 200,
        "cache_creation_input_tokens": 30,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
        "service_tier": "standard",
    }
    upstream.script(Said(text="hi", counts=counts))
    usage = (await collect(await engine(stream=stream), ask())).usage
    # the prompt is the sum of what was read, written to the cache and neither
    assert usage == Usage(
        240, 50, 200, 40, {"cache_creation_input_tokens": 30, "service_tier": "standard"}
    )


async def test_usage_that_is_not_told_is_estimated_from_all_that_was_generated(upstream, engine):
    thought = {**THOUGHT, "thinking": "t" * 80}
    upstream.script(Said(usage=False, blocks=(thought, {"type": "text", "text": "a" * 20})))
    usage = (await collect(await engine(), ask("b" * 40))).usage
    assert usage == Usage(10, 25, estimated=True)


async def test_a_stream_that_is_stopped_has_the_prompts_own_count(upstream, engine):
    upstream.script(Reply(text="one two\n\nthree four"))
    answer = await collect(await engine(), ask("a b c d e", stop=("\n\n",)))
    assert (answer.text, answer.finish_reason) == ("one two", "stop")
    assert answer.usage.input_tokens == 5
    assert answer.usage.output_tokens >= 2
    assert "stop_sequences" not in upstream.requests[0].body


@BOTH
@pytest.mark.parametrize(
    ("reason", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "stop"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
async def test_stop_reasons(upstream, engine, reason, ours, stream):
    upstream.script(Said(text="hi", stop=reason))
    answer = await collect(await engine(stream=stream), ask())
    assert answer.finish_reason == ours
    told = reason not in {"end_turn", "max_tokens"}
    assert answer.extra == ({"choice": {"stop_reason": reason}} if told else {})


@BOTH
async def test_the_reason_of_a_refusal(upstream, engine, stream):
    details = {"type": "refusal", "category": "cyber", "explanation": "This could do harm."}
    upstream.script(Said(text="Well", stop="refusal", delta={"stop_details": details}))
    answer = await collect(await engine(stream=stream), ask())
    assert (answer.text, answer.refusal) == ("Well", "This could do harm.")
    assert answer.finish_reason == "content_filter"
    assert answer.extra["choice"]["stop_details"] == details


@BOTH
async def test_citations_are_annotations(upstream, engine, stream):
    page = {"type": "web_search_result_location", "url": "https://a.example", "title": "A"}
    place = {"type": "char_location", "document_index": 0, "cited_text": "noon"}
    blocks = (
        {"type": "text", "text": "Well: "},
        {"type": "text", "text": "noon", "citations": [page, place]},
    )
    upstream.script(Said(blocks=blocks))
    answer = await collect(await engine(stream=stream), ask())
    where = {"url": "https://a.example", "title": "A", "start_index": 6, "end_index": 10}
    assert answer.annotations == ({"type": "url_citation", "url_citation": where}, place)


@BOTH
async def test_blocks_of_the_providers_tools_are_kept(upstream, engine, stream):
    search = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}
    upstream.script(Said(blocks=(search, found, {"type": "text", "text": "Noon."})))
    answer = await collect(await engine(stream=stream), ask())
    assert (answer.text, answer.tool_calls) == ("Noon.", ())
    kept = answer.extra["message"]["content_blocks"]
    assert kept == [{**search, "index": 0}, {**found, "index": 1}]


async def test_events_cut_anywhere_are_the_same(upstream, engine):
    upstream.script(Said(blocks=(THOUGHT, *CALLS)), Said(blocks=(THOUGHT, *CALLS), split=7))
    one = await engine()
    first = await collect(one, ask(tools=TOOLS))
    assert await collect(one, ask(tools=TOOLS)) == first


async def test_events_of_later_versions_are_passed_over(upstream, engine):
    raw = [
        event("message_start", message={"usage": {"input_tokens": 2, "output_tokens": 1}}),
        event("something_new", index=7),
        event("content_block_start", index=0, content_block={"type": "text", "text": "a"}),
        event("content_block_delta", index=0, delta={"type": "new_delta", "x": 1}),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1}),
        event("message_stop"),
    ]
    upstream.script(Reply(raw=b"".join(raw)))
    answer = await collect(await engine(), ask())
    assert (answer.text, answer.usage) == ("a", Usage(2, 1))


@pytest.mark.parametrize(
    "data",
    [
        {"type": "message_start"},
        {"type": "content_block_start", "index": 0, "content_block": {}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": 3}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": ["x"]}},
        {"type": "message", "content": [7]},
    ],
)
def test_a_malformed_event_is_the_servers_fault(data):
    with pytest.raises(EngineServerError, match=f"event of type '{data['type']}' is malformed"):
        MessageReader(ask()).read(data)


async def test_a_whole_answer_without_content_is_none(upstream, engine):
    upstream.script(Reply(body={"type": "message", "stop_reason": "end_turn"}))
    with pytest.raises(EngineServerError, match="the answer has no content"):
        await collect(await engine(stream=False, max_retries=0), ask())


async def test_one_of_the_last_two_events_completes_a_stream(upstream, engine):
    upstream.script(Reply(done=False), Reply(finish=False))
    for _ in range(2):
        assert (await collect(await engine(), ask())).finish_reason == "stop"
    upstream.script(Reply(finish=False, done=False))
    with pytest.raises(EngineConnectionError, match="cut off"):
        await collect(await engine(max_retries=0), ask())


# Time


async def test_pings_are_life_only_while_the_llm_thinks(upstream, engine):
    one = await engine(first_token_timeout_s=5, token_timeout_s=0.4, max_retries=0)
    slow = Said(blocks=({**THOUGHT, "thinking": "hm"},), pings=8, token_s=0.1)
    upstream.script(slow)
    assert (await collect(one, ask())).reasoning == "hm"
    upstream.script(Said(text="one two", pings=8, token_s=0.1))
    with pytest.raises(EngineTimeoutError):
        await collect(one, ask())


async def test_the_first_token_has_its_time_after_message_start(upstream, engine):
    upstream.script(Reply(first_token_s=0.6))
    one = await engine(first_token_timeout_s=5, token_timeout_s=0.2, max_retries=0)
    assert (await collect(one, ask())).text == "say these words"


# Refusals


@pytest.mark.parametrize(
    ("kind", "message", "error", "retryable", "said"),
    [
        ("authentication_error", "invalid x-api-key", EngineAuthError, True, "check the service's"),
        ("permission_error", "no", EngineAuthError, True, "check the service's key"),
        ("billing_error", "no", EngineRequestError, True, "check the credit"),
        ("not_found_error", "model: claude", EngineRequestError, True, "check `model`"),
        ("request_too_large", "too large", EngineRequestError, True, "larger than this upstream"),
        ("invalid_request_error", "messages: no", EngineRequestError, False, "HTTP 400"),
        (
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API.",
            EngineRequestError,
            True,
            "check the credit",
        ),
        (
            "invalid_request_error",
            "prompt is too long: 209353 tokens > 199999 maximum",
            ContextLengthError,
            False,
            "prompt is too long",
        ),
        (
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 199000 + 4096 > 200000",
            ContextLengthError,
            False,
            "context limit",
        ),
        ("api_error", "Internal server error", EngineServerError, True, "HTTP 500"),
        ("timeout_error", "no", EngineTimeoutError, True, "HTTP 504"),
        ("overloaded_error", "Overloaded", EngineOverloadedError, True, "HTTP 529: Overloaded"),
    ],
)
@BOTH
async def test_error_classes(upstream, engine, kind, message, error, retryable, said, stream):
    inside = Reply(stream_error=problem(message, kind)["error"])
    for reply in [refused(kind, message), *([inside] if stream else [])]:
        upstream.script(reply)
        with pytest.raises(error, match=said) as caught:
            await collect(await engine(stream=stream, max_retries=0), ask("what time is it"))
        assert type(caught.value) is error
        assert caught.value.retryable is retryable


async def test_the_fake_refuses_what_the_api_refuses(engine):
    """So that the other tests show that the engine sends what the API takes."""
    one = await engine(pass_fields=["new_field"])
    with pytest.raises(EngineRequestError, match="Extra inputs are not permitted"):
        await collect(one, ask(extra={"new_field": 1}))


async def test_an_overload_is_tried_again_with_the_same_key(upstream, engine):
    limited = refused("rate_limit_error", **{"retry-after": "9"})
    upstream.script(refused("overloaded_error"), limited)
    ring = KeyRing({"anthropic": ["key-a", "key-b"]})
    answer = await collect(await engine(ring, service="anthropic"), ask())
    assert answer.text == "say these words"
    assert len(upstream.requests) == 3
    # nobody's key is at fault for the overload; the limited one rests
    assert ring.ready("anthropic") == 1


async def test_keys_go_into_their_header_and_rotate(upstream, engine):
    upstream.script(Reply(), refused("authentication_error"))
    one = await engine(KeyRing({"anthropic": ["key-a", "key-b"]}), service="anthropic")
    for _ in range(4):
        await collect(one, ask())
    assert [r.headers["x-api-key"] for r in upstream.requests] == [f"key-{n}" for n in "abaaa"]
    assert all("Authorization" not in request.headers for request in upstream.requests)


async def test_a_service_without_a_key_is_a_config_error(engine):
    with pytest.raises(ConfigError, match=r"engine anthropic, claude at .*no key for the service"):
        await engine(KeyRing({"other": ["k"]}), service="anthropic")


def test_settings():
    assert make_engine("anthropic", {"model": "claude"}).config.base_url.startswith("https://api.")
    with pytest.raises(ConfigError, match="API_KEYS"):
        make_engine("anthropic", {"model": "m", "headers": {"x-api-key": "k"}})
    with pytest.raises(ConfigError, match="max_tokens"):
        make_engine("anthropic", {"model": "m", "max_tokens": 0})
