"""Tool calls however an upstream numbers, splits or repeats them."""

from __future__ import annotations

import pytest

from waypost.contracts.errors import EngineServerError
from waypost.engines._tool_calls import ToolCalls
from waypost.serve.gateway.responses import joined_tool_calls

OSLO, UTC = '{"city": "Oslo"}', '{"tz": "UTC"}'


def call(index, id_, name, arguments, **more):
    found = {"index": index, "id": id_, "type": "function"} | more
    found["function"] = {"name": name, "arguments": arguments}
    return {key: value for key, value in found.items() if value is not None}


def piece(index, arguments, **more):
    found = {"index": index, "function": {"arguments": arguments}} | more
    return {key: value for key, value in found.items() if value is not None}


def read(*events, whole=False):
    """Return (index, id, name, arguments) of each call, as a client that joins by index reads."""
    calls = ToolCalls("r")
    deltas = [delta for event in events for delta in calls.read(event, whole=whole)]
    indices = list(dict.fromkeys(delta["index"] for delta in deltas))
    joined = joined_tool_calls(deltas)
    return [
        (index, one["id"], one["function"]["name"], one["function"]["arguments"])
        for index, one in zip(indices, joined, strict=True)
    ]


TWO = [(0, "call_a", "get_weather", OSLO), (1, "call_b", "get_time", UTC)]
WEATHER, TIME = call(0, "call_a", "get_weather", OSLO), call(0, "call_b", "get_time", UTC)


@pytest.mark.parametrize(
    "events",
    [
        [[WEATHER], [TIME]],
        [[WEATHER, TIME]],
        [[WEATHER], [{**TIME, "index": 1}]],
        [[{**WEATHER, "index": 1}], [{**TIME, "index": 2}]],
        [[{**WEATHER, "index": "0"}], [{**TIME, "index": "1"}]],
        [[call(None, "call_a", "get_weather", OSLO)], [call(None, "call_b", "get_time", UTC)]],
        [[call(None, "call_a", "get_weather", OSLO), call(None, "call_b", "get_time", UTC)]],
        [WEATHER, TIME],
        [
            [call(0, "call_a", "get_weather", "")],
            [piece(0, '{"city": ')],
            [piece(0, '"Oslo"}')],
            [call(0, "call_b", "get_time", "")],
            [piece(0, UTC)],
        ],
        [
            [call(0, "call_a", "get_weather", "")],
            [piece(None, OSLO)],
            [call(0, "call_b", "get_time", "")],
            [piece(None, UTC)],
        ],
        [
            [call(0, "call_a", "get_weather", ""), call(1, "call_b", "get_time", "")],
            [piece(1, UTC), piece(0, OSLO)],
        ],
        [
            [call(0, "call_a", "get_weather", '{"city": ')],
            [call(0, "call_a", "get_weather", '"Oslo"}')],
            [call(1, "call_b", "get_time", UTC)],
        ],
        [
            [call(0, "call_a", "get_weather", '{"city": ')],
            [call(0, "call_9", "get_weather", '"Oslo"}')],
            [call(0, "call_b", "get_time", UTC)],
        ],
        [
            [call(0, "call_a", "get_weather", '{"city": ')],
            [call(0, "call_9", None, '"Oslo"}')],
            [call(1, "call_b", "get_time", UTC)],
        ],
        [
            [call(0, "call_a", "get_", "")],
            [call(0, None, "weather", "")],
            [piece(0, OSLO)],
            [call(1, "call_b", "get_", "")],
            [call(1, None, "get_time", UTC)],
        ],
        [[WEATHER], [WEATHER], [{**TIME, "index": 1}], [{**TIME, "index": 1}]],
        [[WEATHER], [piece(0, OSLO)], [TIME]],
        [[WEATHER], [TIME], [{**piece(0, ""), "id": "call_a"}]],
    ],
    ids=[
        "one-index",
        "one-index-one-event",
        "right",
        "from-one",
        "texts",
        "no-index",
        "no-index-one-event",
        "no-list",
        "pieces-one-index",
        "pieces-no-index",
        "interleaved",
        "id-and-name-again",
        "fresh-ids-and-name",
        "fresh-ids",
        "split-names",
        "calls-twice",
        "arguments-twice",
        "id-comes-back",
    ],
)
def test_two_calls_are_two_calls(events):
    assert read(*events) == TWO


@pytest.mark.parametrize("index", [0, None])
def test_calls_without_an_id_get_one_each(index):
    events = [[call(index, None, "get_weather", OSLO)], [call(index, "", "get_time", UTC)]]
    found = read(*events)
    assert [(name, text) for _, _, name, text in found] == [(n, t) for _, _, n, t in TWO]
    assert len({id_ for _, id_, _, _ in found}) == 2
    assert all(id_ for _, id_, _, _ in found)


def test_two_calls_of_one_function_are_two():
    found = read([call(0, "a", "f", OSLO)], [call(0, "b", "f", UTC)], [call(0, "c", "f", "")])
    assert [id_ for _, id_, _, _ in found] == ["a", "b", "c"]


def test_one_id_for_all_calls_is_made_several():
    found = read([call(0, "x", "f", OSLO)], [call(1, "x", "g", UTC)])
    assert [(name, text) for _, _, name, text in found] == [("f", OSLO), ("g", UTC)]
    assert len({id_ for _, id_, _, _ in found}) == 2


@pytest.mark.parametrize("index", [0, None])
def test_whole_calls_are_apart_however_they_are_numbered(index):
    found = read([{**WEATHER, "index": index}, {**TIME, "index": index}], whole=True)
    assert found == TWO


def test_a_whole_message_after_its_deltas_adds_nothing_that_was_said():
    calls = ToolCalls("r")
    calls.read([WEATHER], whole=False)
    assert calls.read([WEATHER], whole=True) == []
    (delta,) = calls.read([WEATHER, TIME], whole=True)
    assert (delta["index"], delta["id"]) == (1, "call_b")


def test_arguments_as_an_object_and_further_fields_are_kept():
    google = {"google": {"thought_signature": "s"}}
    raw = {"id": "a", "function": {"name": "f", "arguments": {"a": 1}}, "extra_content": google}
    (delta,) = ToolCalls("r").read([raw], whole=True)
    assert delta == {
        "index": 0,
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": 1}'},
        "extra_content": google,
    }


def test_a_call_of_a_custom_tool_keeps_its_input():
    first = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x ="}}
    calls = ToolCalls("r")
    deltas = calls.read([first], whole=False)
    deltas += calls.read([{"index": 0, "custom": {"input": " 1"}}], whole=False)
    assert deltas == [first, {"index": 0, "custom": {"input": " 1"}}]


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        [1],
        [{"function": "f"}],
        [{"function": {"name": 1}}],
        [{"function": {"name": "f", "arguments": 1}}],
        [{"id": 1, "function": {"name": "f"}}],
        [{"index": "x", "function": {"name": "f"}}],
        [{"index": 0.5, "function": {"name": "f"}}],
        [{"index": True, "function": {"name": "f"}}],
    ],
)
def test_what_is_no_call_is_refused(wrong):
    with pytest.raises(EngineServerError, match="malformed"):
        ToolCalls("r").read(wrong, whole=False)
