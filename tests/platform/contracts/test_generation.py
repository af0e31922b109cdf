"""Chunks, answers and usages: nothing is lost between processes and where chunks are joined."""

from __future__ import annotations

import json

import pytest

from waypost.contracts.generation import Answer, Chunk, Usage, joined, joined_fields, total

USAGE = Usage(
    5000, 700, 4900, 500, {"prompt_tokens_details": {"cached_tokens": 4900}, "cost": 0.25}
)
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FULL = Chunk(
    "42",
    (CALL,),
    "tool_calls",
    USAGE,
    "hm",
    "I cannot help.",
    ({"type": "url_citation", "url_citation": {"url": "https://a.example"}},),
    {"message": {"images": [{"type": "image_url"}]}, "answer": {"citations": ["u"]}},
)


def test_a_chunk_crosses_a_process_border_as_json_with_all_it_holds():
    assert Chunk.from_dict(json.loads(json.dumps(FULL.to_dict()))) == FULL
    assert Chunk().to_dict() == {}
    assert Chunk.from_dict({}) == Chunk()


def test_fields_of_a_newer_version_are_ignored():
    data = FULL.to_dict() | {"video": "x"}
    data["usage"] = data["usage"] | {"video_tokens": 3}
    assert Chunk.from_dict(data) == FULL


def test_joined_chunks_are_the_answer_and_an_answer_is_its_only_chunk():
    chunks = [
        Chunk(reasoning="h", extra={"message": {"signature": "ab"}}),
        Chunk(reasoning="m", extra={"message": {"signature": "cd"}}),
        Chunk("4", annotations=FULL.annotations),
        Chunk("2", (CALL,), refusal="I cannot"),
        Chunk(refusal=" help.", extra={"answer": {"citations": ["u"]}}),
        Chunk(finish_reason="stop", usage=USAGE),
    ]
    answer = joined(chunks)
    assert answer == Answer(
        "42",
        "stop",
        USAGE,
        (CALL,),
        "hm",
        "I cannot help.",
        FULL.annotations,
        {"message": {"signature": "abcd"}, "answer": {"citations": ["u"]}},
    )
    assert joined([answer.to_chunk()]) == answer


@pytest.mark.parametrize(
    ("said", "more", "both"),
    [
        ({"a": "x"}, {"a": "y", "b": None}, {"a": "xy", "b": None}),
        ({"a": None}, {"a": "y"}, {"a": "y"}),
        ({"a": "y"}, {"a": None}, {"a": "y"}),
        ({"provider": "P"}, {"provider": "P"}, {"provider": "P"}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": True}, {"a": False}, {"a": False}),
        ({"a": [1]}, {"a": [2]}, {"a": [1, 2]}),
        ({"a": {"b": "x"}}, {"a": {"b": "y", "c": 1}}, {"a": {"b": "xy", "c": 1}}),
        (
            {"d": [{"index": 0, "type": "t", "text": "x"}]},
            {"d": [{"index": 0, "type": "t", "text": "y"}, {"index": 1, "text": "z"}]},
            {"d": [{"index": 0, "type": "t", "text": "xy"}, {"index": 1, "text": "z"}]},
        ),
    ],
)
def test_fields_of_deltas_are_joined_as_clients_join_them(said, more, both):
    assert joined_fields(said, more) == both


def test_fields_nested_deeply_are_joined_without_end():
    deep = leaf = {}
    for _ in range(5_000):
        leaf["a"] = {}
        leaf = leaf["a"]
    assert set(joined_fields(deep, deep)) == {"a"}


@pytest.mark.parametrize("field", ["text", "reasoning", "refusal"])
def test_text_of_any_form_says_something(field):
    assert Chunk(**{field: " "}).says_something


def test_an_end_says_nothing():
    assert Chunk(tool_calls=(CALL,)).says_something
    assert Chunk(annotations=({},)).says_something
    assert Chunk(extra={"message": {"audio": {}}}).says_something
    assert not Chunk(finish_reason="stop", usage=USAGE, extra={"choice": {"a": 1}}).says_something


def test_usages_are_added_with_their_details():
    two = Usage(1, 2, 1, 1, {"prompt_tokens_details": {"cached_tokens": 1}, "tier": "b"})
    assert total([USAGE, two]) == Usage(
        5001,
        702,
        4901,
        501,
        {"prompt_tokens_details": {"cached_tokens": 4901}, "cost": 0.25, "tier": "b"},
    )
    assert total([]) == Usage()
    assert total([USAGE]) is USAGE
