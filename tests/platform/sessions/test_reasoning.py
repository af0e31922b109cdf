"""Reasoning goes back to the provider that made it, and to no other."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.contracts.generation import Answer, Chunk, Usage, joined
from waypost.sessions.reasoning import TAG, Providers, tagged

PROVIDERS = Providers({"a": "x", "b": "x", "c": "y"})
ONE = Providers({"a": "x", "b": "x"})
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SIGNED = CALL | {"extra_content": {"google": {"thought_signature": "s"}}}
USER = {"role": "user", "content": "x"}
EVERY: dict[str, Any] = {
    "reasoning_content": "hm",
    "reasoning": "hm",
    "thinking_blocks": [THOUGHT],
    "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
    "tool_calls": [SIGNED],
}


def assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": "ok", **fields}


def made_by(model: str, **fields: Any) -> dict[str, Any]:
    """The message of an answer as the client has it."""
    message = {key: value for key, value in fields.items() if key != "tool_calls"}
    calls = tuple(fields.get("tool_calls", ()))
    answer = Answer("ok", "stop", Usage(), calls, extra={"message": message})
    said = tagged(answer, PROVIDERS.tag(model)).extra["message"]
    return assistant(**said, **({"tool_calls": list(calls)} if calls else {}))


@pytest.mark.parametrize("model", ["a", "b", "c"])
def test_reasoning_goes_to_its_own_provider_alone(model: str) -> None:
    messages = [USER, made_by("a", **EVERY), USER]
    sent, left_out = PROVIDERS.sent(model, messages)
    if model == "c":
        assert sent == [USER, assistant(tool_calls=[CALL]), USER]
        assert left_out == (
            "extra_content", "reasoning", "reasoning_content", "reasoning_details",
            "thinking_blocks",
        )  # fmt: skip
    else:
        assert (sent, left_out) == ([USER, assistant(**EVERY), USER], ())


@pytest.mark.parametrize("maker", [None, "", "nobody", 5, ["x"]])
def test_reasoning_of_an_unknown_maker_goes_nowhere(maker: Any) -> None:
    known = {} if maker is None else {TAG: maker}
    for model in ("a", "c", "unknown"):
        sent, left_out = PROVIDERS.sent(model, [assistant(**EVERY, **known)])
        assert sent == [assistant(tool_calls=[CALL])]
        assert "thinking_blocks" in left_out


def test_a_block_keeps_its_tag_where_the_message_lost_its_own() -> None:
    message = made_by("a", thinking_blocks=[THOUGHT])
    del message[TAG]
    sent, left_out = PROVIDERS.sent("b", [message])
    assert (sent, left_out) == ([assistant(thinking_blocks=[THOUGHT])], ())
    assert PROVIDERS.sent("c", [message]) == ([assistant()], ("thinking_blocks",))


def test_blocks_of_several_makers_part() -> None:
    own = made_by("a", thinking_blocks=[THOUGHT])["thinking_blocks"]
    others = made_by("c", thinking_blocks=[THOUGHT | {"thinking": "no"}])["thinking_blocks"]
    sent, left_out = PROVIDERS.sent("a", [assistant(thinking_blocks=[*own, *others])])
    assert (sent, left_out) == ([assistant(thinking_blocks=[THOUGHT])], ("thinking_blocks",))


def test_one_provider_gets_all_and_nothing_is_tagged() -> None:
    assert ONE.tag("a") is None
    messages = [assistant(**EVERY)]
    assert ONE.sent("b", messages) == (messages, ())
    # a tag of an earlier pool
    assert ONE.sent("b", [assistant(reasoning="hm", **{TAG: "gone"})]) == (
        [assistant()], ("reasoning",),
    )  # fmt: skip


def test_what_is_no_reasoning_is_not_copied() -> None:
    messages = [USER, assistant(), assistant(tool_calls=[CALL], refusal=None)]
    assert PROVIDERS.sent("c", messages)[0] is messages
    assert PROVIDERS.sent("c", None) == (None, ())
    answer = Answer("ok", "stop", Usage(), (CALL,))
    assert tagged(answer, "t") is answer


def test_deltas_of_a_stream_join_to_a_tagged_message() -> None:
    tag = PROVIDERS.tag("a")
    pieces = [
        Chunk(reasoning="h"),
        Chunk(reasoning="m", extra={"message": {"reasoning_details": [{"index": 0, "text": "h"}]}}),
        Chunk(extra={"message": {"reasoning_details": [{"index": 0, "text": "m"}]}}),
        Chunk("ok"),
    ]
    found = [tagged(piece, tag, again=i > 0) for i, piece in enumerate(pieces)]
    assert [TAG in piece.extra.get("message", {}) for piece in found] == [True, False, False, False]
    said = joined(found).extra["message"]
    # as OpenAI's clients join: the tag of a block repeats
    assert said["reasoning_details"] == [{"index": 0, "text": "hm", TAG: f"{tag}{tag}"}]
    sent, left_out = PROVIDERS.sent("b", [assistant(**said)])
    assert (sent, left_out) == ([assistant(reasoning_details=[{"index": 0, "text": "hm"}])], ())
