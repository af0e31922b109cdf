"""Events of a stream that arrive together, and text that is cut within a character."""

from __future__ import annotations

import json

import pytest

from support.fake_upstream import Reply
from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import GenerateRequest

ASK = GenerateRequest("r", messages=[{"role": "user", "content": "hello"}])
DONE = b"data: [DONE]\n\n"


def event(**delta) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"


def end() -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n" + DONE


async def chunks(engine, upstream, reply):
    upstream.script(reply)
    one = await engine()
    return [chunk async for chunk in one.generate(ASK)]


async def test_events_that_arrive_together_are_one_chunk(upstream, engine):
    words = [f"w{i} " for i in range(50)]
    raw = b"".join(event(content=word) for word in words) + end()
    text, last = await chunks(engine, upstream, Reply(raw=raw))
    assert text.text == "".join(words)
    assert last.finish_reason == "stop"


async def test_events_that_arrive_apart_are_chunks_of_their_own(upstream, engine):
    found = await chunks(engine, upstream, Reply(text="one two three", token_s=0.05))
    assert [chunk.text for chunk in found] == ["one", " two", " three", ""]


async def test_tool_calls_and_text_that_arrive_together_are_both_kept(upstream, engine):
    begun = {"name": "f", "arguments": "{"}
    call = {"index": 0, "id": "c", "type": "function", "function": begun}
    rest = {"index": 0, "function": {"arguments": "}"}}
    raw = event(content="so: ") + event(tool_calls=[call]) + event(tool_calls=[rest]) + end()
    chunk, _ = await chunks(engine, upstream, Reply(raw=raw))
    assert (chunk.text, chunk.tool_calls) == ("so: ", (call, rest))


async def test_text_before_an_error_is_passed_on_though_both_arrive_together(upstream, engine):
    error = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    upstream.script(Reply(raw=event(content="as far as ") + event(content="here") + error))
    one = await engine(max_retries=0)
    found = []

    async def read():
        async for chunk in one.generate(ASK):
            found.append(chunk.text)  # noqa: PERF401 - what came before the error

    with pytest.raises(EngineServerError):
        await read()
    assert found == ["as far as here"]


async def test_a_character_cut_in_two_between_events_comes_out_whole(upstream, engine):
    # JSON escapes of UTF-16: each event alone is no valid text
    raw = event(content="\ud83d") + event(content="\ude00") + end()
    assert b"\\ud83d" in raw
    text, _ = await chunks(engine, upstream, Reply(raw=raw))
    assert text.text.encode("utf-16", "surrogatepass").decode("utf-16") == "\N{GRINNING FACE}"
