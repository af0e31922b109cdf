"""Lines of a file as they are routed."""

from __future__ import annotations

import pytest

from waypost.contracts.errors import SchemaError
from waypost.sessions.conversation import tokens_of
from waypost.sessions.lines import as_routed
from waypost.sessions.retrieval import RETRIEVE

CHAT = {
    "messages": [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
    ],
    "query_id": 7,
}


def test_a_chat_is_routed_on_by_mode() -> None:
    (last,) = as_routed([CHAT])
    assert (last["query"], last["query_id"]) == ("two", 7)
    assert last["messages"] == CHAT["messages"]  # what the LLM gets
    (whole,) = as_routed([CHAT], "full_context")
    assert whole["query"] == "be kind\none\ntwo"
    assert "input_tokens" not in whole
    (found,) = as_routed([CHAT], "retrieval", 2)
    assert found[RETRIEVE] == {"top_k": 2, "turns": ["one"]}
    assert found["input_tokens"] == last["input_tokens"] == tokens_of(len(whole["query"]))


def test_lines_before_are_turns_of_their_user_else_of_their_session() -> None:
    lines = [
        {"query": "a", "user_id": "ann"},
        {"query": "b", "session_id": "s"},
        "c",
        {"query": "d", "user_id": "ann", "session_id": "s"},
        {"query": "e", "session_id": "s", "top_k": 1},
        {"query": "f", "user_id": "ann", "route_on": "current_only"},
    ]
    *found, last = as_routed(lines, "retrieval")
    turns = [one[RETRIEVE]["turns"] for one in found]
    assert turns == [[], [], [], ["a"], ["b"]]
    assert [one[RETRIEVE]["top_k"] for one in found] == [3, 3, 3, 3, 1]
    assert last == {"query": "f", "user_id": "ann"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({}, "either query or messages"),
        ({"query": "a", "messages": []}, "either query or messages"),
        ({"query": 5}, "a text under 'query'"),
        ({"messages": []}, "at least one message"),
        ({"messages": ["a"]}, r"messages\[0\]: expected a mapping with role"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "parts with a text"),
        ({"query": "a", "route_on": "all"}, "route_on: expected one of"),
        ({"query": "a", "route_on": "retrieval", "top_k": 0}, "from 1 to 32"),
    ],
)
def test_a_wrong_line_is_named(line, expected) -> None:
    with pytest.raises(SchemaError, match=expected):
        as_routed([line])
