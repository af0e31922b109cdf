"""The bytes of answers, in OpenAI's form."""

from __future__ import annotations

import json

from waypost.contracts.generation import Answer, Chunk, Usage
from waypost.contracts.records import Decision
from waypost.serve.backends.failover import Opened
from waypost.serve.gateway.responses import ChatFormat, TextFormat, joined_tool_calls, told_usage
from waypost.serve.gateway.telling import reason_after_failover

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}


def events(data: bytes) -> list[dict]:
    return [json.loads(e.removeprefix("data: ")) for e in data.decode().split("\n\n") if e]


def test_the_deltas_of_a_tool_call_are_joined_by_their_index():
    deltas = [
        {"index": 0, **CALL},
        {"index": 1, "id": "c2", "function": {"name": "sub", "arguments": ""}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert joined_tool_calls(deltas) == [
        {**CALL, "function": {"name": "add", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "sub", "arguments": "{}"}},
    ]


def test_an_event_has_one_delta_of_one_call():
    # some clients read the first delta of an event only
    deltas = (
        {"index": 0, **CALL},
        {"index": 0, "function": {"arguments": ": "}},
        {"index": 1, "id": "c2", "function": {"name": "sub", "arguments": ""}},
        {"index": 0, "function": {"arguments": "1}"}},
    )
    writer = ChatFormat("r", "m")
    found = events(writer.events(0, Chunk("hm", deltas)))
    told = [event["choices"][0]["delta"] for event in found[1:]]
    whole = {"name": "add", "arguments": '{"a": 1}'}
    assert told[0] == {"tool_calls": [{"index": 0, **CALL, "function": whole}], "content": "hm"}
    assert told[1:] == [{"tool_calls": [deltas[2]]}]


def test_whole_tool_calls_without_an_index_stay_apart():
    assert [call["id"] for call in joined_tool_calls([CALL, {**CALL, "id": "c2"}])] == ["c1", "c2"]


def test_a_whole_answer_with_tool_calls_has_no_content():
    answer = Answer("", "tool_calls", Usage(1, 2), ({"index": 0, **CALL},))
    choice = json.loads(ChatFormat("r", "m").whole([answer], {}))["choices"][0]
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [CALL],
    }
    assert choice["finish_reason"] == "tool_calls"


def test_a_streamed_tool_call_passes_through():
    found = events(ChatFormat("r", "m").events(0, Chunk(tool_calls=({"index": 0, **CALL},))))
    assert found[1]["choices"][0]["delta"] == {"tool_calls": [{"index": 0, **CALL}]}


def test_each_answer_of_a_stream_begins_with_its_role():
    writer = ChatFormat("r", "m")
    first = events(writer.events(1, Chunk("a")) + writer.events(0, Chunk("b")))
    roles = [e["choices"][0] for e in first if "role" in e["choices"][0]["delta"]]
    assert [choice["index"] for choice in roles] == [1, 0]
    assert len(events(writer.events(1, Chunk("c")))) == 1


def test_text_of_any_script_and_line_breaks_cannot_break_an_event():
    text = 'line\n\ndata: x\r\n"quote" \u2028 日本 \x00'
    found = events(ChatFormat("r", "m").events(0, Chunk(text)))
    assert found[1]["choices"][0]["delta"]["content"] == text


def test_our_own_finish_reason_does_not_leave():
    found = events(TextFormat("r", "m").events(0, Chunk(finish_reason="cancelled", usage=Usage())))
    assert found[0]["choices"][0] == {
        "index": 0,
        "text": "",
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_the_ids_name_the_request_and_the_kind():
    assert json.loads(ChatFormat("r", "m").whole([], {}))["id"] == "chatcmpl-r"
    assert json.loads(TextFormat("r", "m").whole([], {}))["id"] == "cmpl-r"


def test_a_prompt_is_told_once_however_many_answers_it_has():
    # two prompts (of 5 and 7 tokens) with three answers each
    usages = {i: Usage(5 if i < 3 else 7, i) for i in range(6)}
    assert told_usage(usages, 3) == Usage(12, 15)
    assert told_usage({0: Usage(5, 1), 4: Usage(7, 2)}, 3) == Usage(12, 3)  # some broke off
    assert told_usage({}, 1) == Usage(0, 0)


def test_the_reason_after_a_failover_names_who_failed_and_the_figures_of_who_answers():
    decision = Decision("a", ("a", "b", "c"), quality={"c": 0.25}, cost_usd={"c": 2e-6}, reason="x")
    opened = Opened("c", 2, None, frozenset({"a"}))
    assert reason_after_failover(decision, opened) == (
        "a did not answer; b passed over: not ready, or failed lately; "
        "c answers: predicted quality 0.250 at 2e-06 USD"
    )
