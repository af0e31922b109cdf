"""What is no answer: nothing said in any form, an end by error, a content filter."""

from __future__ import annotations

import json

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import chat, echo_pool, running
from support.openai_events import stream_of
from waypost.contracts.errors import ContentFilterError, EmptyAnswerError, EngineRequestError
from waypost.contracts.errors import EngineServerError as ServerError
from waypost.contracts.generation import Chunk, GenerateRequest, Usage
from waypost.serve.backends.asking import first_said
from waypost.serve.backends.circuit_breaker import Circuit
from waypost.serve.backends.failures import Failure, FilteredError, SaidNothingError

CHAT = "/v1/chat/completions"
NONE = {"prompt_tokens": 10, "completion_tokens": 0}
AZURE = Reply(
    status=400,
    body={
        "error": {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's "
            "content management policy. Please modify your prompt and retry.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
            "status": 400,
            "innererror": {"code": "ResponsibleAIPolicyViolation"},
        }
    },
)
FILTERED = Reply(raw=stream_of({"role": "assistant", "content": ""}, reason="content_filter"))
EMPTY = {
    "row 5": stream_of({"role": "assistant", "content": ""}, usage=NONE),
    "null": stream_of({"role": "assistant", "content": None}),
    "an empty list": stream_of({"content": []}),
    "no delta": stream_of(),
    "an empty list of calls": stream_of({"content": "", "tool_calls": []}, reason="tool_calls"),
    "empty forms": stream_of({"content": "", "reasoning": "", "refusal": "", "annotations": []}),
    "hidden reasoning": stream_of({"content": ""}, usage=NONE | {"completion_tokens": 90}),
}


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


def pool(upstream: FakeUpstream) -> list[dict]:
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    cook = {"name": "cook", "engine": "openai", "placement": "inline", "config": config}
    return [cook, *echo_pool()[1:]]


@pytest.fixture
async def up(artifact, upstream):
    async with running(artifact, pool=pool(upstream)) as found:
        yield found


@pytest.fixture
async def alone(artifact, upstream):
    """All LLMs are the upstream's."""
    config = {"base_url": upstream.url, "model": "real", "max_retries": 0}
    one = {"engine": "openai", "placement": "inline", "config": config}
    llms = [{"name": name, **one} for name in ("cook", "prover", "tiny")]
    async with running(artifact, pool=llms) as found:
        yield found


def whole_of(raw: bytes) -> Reply:
    """The same answer in one piece."""
    events = [json.loads(line[6:]) for line in raw.decode().split("\n\n")[:-2]]
    choices = [event["choices"][0] for event in events if event["choices"]]
    message = {"role": "assistant", "content": None}
    for choice in choices:
        message |= choice["delta"]
    choice = {"index": 0, "message": message, "finish_reason": choices[-1]["finish_reason"]}
    return Reply(body={"choices": [choice], "usage": events[-1].get("usage", NONE)})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", EMPTY)
async def test_where_nothing_is_said_the_next_llm_answers(up, upstream, name, stream):
    upstream.script(Reply(raw=EMPTY[name]))
    reply = await up.client.post(CHAT, chat(stream=stream))
    assert reply.status == 200
    assert reply.headers["x-waypost-attempts"] == "2"
    assert reply.headers["x-waypost-model"] != "cook"
    assert "error" not in reply.body.decode()


async def test_the_same_where_an_upstream_does_not_stream(artifact, upstream):
    llms = pool(upstream)
    llms[0]["config"]["stream"] = False
    async with running(artifact, pool=llms) as up:
        for raw in EMPTY.values():
            upstream.script(whole_of(raw))
            reply = await up.client.post(CHAT, chat())
            assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
            up.gateway.dispatcher.circuit.forget("cook")


@pytest.mark.parametrize(
    "delta",
    [
        {"content": " "},
        {"reasoning_content": "hm"},
        {"refusal": "no"},
        {"images": [{"url": "u"}]},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]},
    ],
)
async def test_what_is_said_in_any_form_is_an_answer(up, upstream, delta):
    upstream.script(Reply(raw=stream_of(delta)))
    reply = await up.client.post(CHAT, chat())
    assert (reply.headers["x-waypost-model"], reply.headers["x-waypost-attempts"]) == ("cook", "1")


@pytest.mark.parametrize("stream", [False, True])
async def test_where_all_are_empty_the_first_empty_answer_is_told_as_such(alone, upstream, stream):
    upstream.default = Reply(raw=EMPTY["row 5"])
    reply = await alone.client.post(CHAT, chat(stream=stream))
    assert reply.status == 200
    assert reply.headers["x-waypost-model"] == "cook"
    assert reply.headers["x-waypost-attempts"] == "3"
    reason = reply.headers["x-waypost-reason"]
    assert reason == "cook said nothing, and neither did prover, tiny; its empty answer is told"
    if not stream:
        assert reply.json()["choices"][0]["message"]["content"] == ""
        assert reply.json()["choices"][0]["finish_reason"] == "stop"
        assert reply.json()["usage"]["prompt_tokens"] == 10


async def test_an_llm_that_is_named_may_be_silent(alone, upstream):
    upstream.default = Reply(raw=EMPTY["row 5"])
    reply = await alone.client.post(CHAT, chat(model="tiny"))
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "1")
    assert reply.headers["x-waypost-reason"] == "tiny said nothing"


async def test_an_empty_answer_beside_failures_is_told_with_them(alone, upstream):
    upstream.default = Reply(status=500, body={"error": {"message": "broken"}})
    upstream.script(Reply(raw=EMPTY["row 5"]))
    reply = await alone.client.post(CHAT, chat())
    assert reply.status == 502
    assert "cook: the answer is empty" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 1, "reason": "length"}, {"stop": ["x"], "reason": "stop"}]
)
async def test_an_answer_cut_to_nothing_as_asked_is_one(up, upstream, fields):
    reason = fields.pop("reason")
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    upstream.script(Reply(raw=stream_of({"content": ""}, reason=reason, usage=usage)))
    reply = await up.client.post(CHAT, chat(**fields))
    assert (reply.headers["x-waypost-model"], reply.headers["x-waypost-attempts"]) == ("cook", "1")


# Row 7


async def test_an_end_by_error_fails_over_where_the_answer_is_whole(up, upstream):
    upstream.script(Reply(raw=stream_of({"content": "Hel"}, reason="error")))
    reply = await up.client.post(CHAT, chat())
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
    assert reply.headers["x-waypost-model"] != "cook"


async def test_an_end_by_error_is_an_error_event_in_a_stream(up, upstream):
    raw = stream_of({"content": "Hel"}, reason="error")
    upstream.script(Reply(raw=raw, split=70, part_s=0.02))
    reply = await up.client.post(CHAT, chat(stream=True))
    events = reply.events()
    assert "broke the answer off" in events[-1]["error"]["message"]
    assert any(event["choices"][0]["delta"].get("content") == "Hel" for event in events[:-1])


# Rows 9 and 10


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("answer", [AZURE, FILTERED], ids=["400", "200"])
async def test_a_content_filter_fails_over(up, upstream, answer, stream):
    upstream.script(answer)
    reply = await up.client.post(CHAT, chat(stream=stream))
    assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
    assert reply.headers["x-waypost-model"] != "cook"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_setting_passes_the_filters_refusal_on(artifact, upstream, stream):
    changes = {"pool": pool(upstream), "content_filter": "answer"}
    async with running(artifact, **changes) as up:
        upstream.script(AZURE, FILTERED)
        reply = await up.client.post(CHAT, chat(stream=stream))
        assert (reply.status, reply.json()["error"]["code"]) == (400, "content_filter")
        reply = await up.client.post(CHAT, chat(stream=stream))
        assert (reply.status, reply.headers["x-waypost-model"]) == (200, "cook")
        choice = (reply.events()[-2] if stream else reply.json())["choices"][0]
        assert choice["finish_reason"] == "content_filter"


async def test_where_every_filter_refuses_the_client_is_told_by_whom(alone, upstream):
    upstream.default = AZURE
    reply = await alone.client.post(CHAT, chat())
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["param"]) == (400, "content_filter", "messages")
    assert all(name in error["message"] for name in ("cook", "prover", "tiny"))


async def test_a_text_that_a_filter_cut_is_an_answer(up, upstream):
    upstream.script(Reply(raw=stream_of({"content": "as far as"}, reason="content_filter")))
    reply = await up.client.post(CHAT, chat())
    choice = reply.json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (
        "as far as",
        "content_filter",
    )


def test_filters_do_not_open_a_circuit_and_silence_does():
    circuit = Circuit()
    for _ in range(9):
        circuit.failed("a", ContentFilterError("x", status=400))
        circuit.failed("a", EngineRequestError("no tools here", status=400, retryable=True))
        circuit.failed("b", EmptyAnswerError("x"))
    assert circuit.resting() == ("b",)


def test_the_reasons_of_the_metrics():
    kinds = {
        "empty": SaidNothingError([]),
        "filtered": FilteredError([]),
        "server": ServerError("x"),
    }
    assert {name: Failure("m", error).reason for name, error in kinds.items()} == {
        name: name for name in kinds
    }


# Several answers of one request

END = Chunk(finish_reason="stop", usage=Usage(1, 0))


async def listed(*lists):
    for pieces in lists:
        yield list(pieces)


async def test_of_several_answers_one_that_speaks_is_enough():
    asked = [GenerateRequest(str(i), prompt="x") for i in range(2)]
    said = [[(0, END)], [(1, Chunk("a"))], [(1, END)]]
    found = await first_said(listed(*said), asked, filtered_is_answer=False)
    assert found == [(0, END), (1, Chunk("a"))]
    with pytest.raises(SaidNothingError) as caught:
        await first_said(listed([(0, END)], [(1, END)]), asked, filtered_is_answer=False)
    assert caught.value.pieces == [(0, END), (1, END)]
