"""What an upstream says is kept, whole and streamed; and what is no end of an answer."""

from __future__ import annotations

import json

import pytest

from support.fake_upstream import Reply
from waypost.contracts.errors import EngineServerError, EngineTimeoutError
from waypost.contracts.generation import GenerateRequest, Usage
from waypost.engines._openai_wire import AnswerReader, read_usage
from waypost.engines.base import collect

ASK = GenerateRequest("r", messages=[{"role": "user", "content": "hello"}])
DONE = b"data: [DONE]\n\n"
CITATION = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}


def event(delta, reason=None, **beside) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]} | beside).encode() + b"\n\n"


def whole(message, reason="stop", **beside) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return Reply(body={"choices": [choice]} | beside)


async def streamed(engine, upstream, *deltas, reason="stop", end=DONE, **beside):
    raw = b"".join(event(delta) for delta in deltas) + event({}, reason, **beside) + end
    upstream.script(Reply(raw=raw))
    return await collect(await engine(max_retries=0), ASK)


# Row 17


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
async def test_reasoning_is_kept_whatever_it_is_called(upstream, engine, name):
    found = await streamed(engine, upstream, {name: "h"}, {name: "m"}, {"content": "42"})
    assert (found.reasoning, found.text) == ("hm", "42")
    upstream.script(whole({"content": "42", name: "hm"}))
    found = await collect(await engine(stream=False), ASK)
    assert (found.reasoning, found.text) == ("hm", "42")
    # under the upstream's own name, too
    own = {} if name == "reasoning_content" else {name: "hm"}
    assert found.extra.get("message", {}) == own


async def test_reasoning_under_two_names_is_told_once(upstream, engine):
    delta = {"reasoning": "hm", "reasoning_content": "hm"}
    found = await streamed(engine, upstream, delta, {"content": "42"})
    assert found.reasoning == "hm"


async def test_parts_of_thinking_are_reasoning(upstream, engine):
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    found = await streamed(
        engine, upstream, {"content": [thinking]}, {"content": [{"type": "text", "text": "42"}]}
    )
    assert (found.reasoning, found.text) == ("hm", "42")


async def test_reasoning_details_are_joined_by_their_index(upstream, engine):
    details = [{"index": 0, "type": "reasoning.text", "text": text} for text in ("h", "m")]
    deltas = [{"content": "", "reasoning_details": [detail]} for detail in details]
    found = await streamed(engine, upstream, *deltas, {"content": "42"})
    joined = [{"index": 0, "type": "reasoning.text", "text": "hm"}]
    assert found.extra["message"] == {"reasoning_details": joined}


async def test_a_stop_string_ends_the_text_and_not_the_reasoning(upstream, engine):
    raw = event({"reasoning_content": "END? no"}) + event({"content": "42 END"}) + DONE
    upstream.script(Reply(raw=raw))
    request = GenerateRequest("r", messages=ASK.messages, stop=("END",))
    found = await collect(await engine(), request)
    assert (found.reasoning, found.text) == ("END? no", "42 ")


async def test_an_llm_that_thinks_is_alive(upstream, engine):
    # each pause is within the time-outs, the thinking as a whole is not
    raw = b"".join(event({"reasoning_content": "hm "}) for _ in range(8))
    raw += event({"content": "42"}, "stop") + DONE
    size = len(event({"reasoning_content": "hm "}))
    upstream.script(Reply(raw=raw, split=size, part_s=0.08))
    one = await engine(first_token_timeout_s=0.4, token_timeout_s=0.4, max_retries=0)
    found = await collect(one, ASK)
    assert found.text == "42"
    upstream.script(Reply(raw=b": thinking\n\n" * 20 + raw, split=12, part_s=0.08))
    with pytest.raises(EngineTimeoutError):
        await collect(one, ASK)


# Rows 23 and 24, and what else upstreams say


async def test_a_refusal_is_kept(upstream, engine):
    delta = {"content": None, "refusal": "I cannot"}
    found = await streamed(engine, upstream, delta, {"refusal": " help."})
    assert (found.refusal, found.text) == ("I cannot help.", "")
    upstream.script(whole({"content": None, "refusal": "I cannot help."}))
    assert (await collect(await engine(stream=False), ASK)).refusal == "I cannot help."


async def test_annotations_are_kept_once_each(upstream, engine):
    other = {**CITATION, "url_citation": {"url": "https://b.example"}}
    found = await streamed(
        engine,
        upstream,
        {"content": "a", "annotations": [CITATION]},
        {"annotations": [CITATION, other]},
    )
    assert found.annotations == (CITATION, other)


async def test_fields_that_the_api_lacks_are_kept_by_place(upstream, engine):
    images = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    found = await streamed(
        engine,
        upstream,
        {"role": "assistant", "content": "a", "images": images, "audio": None},
        citations=["https://a.example"],
        system_fingerprint="fp",
        obfuscation="xxxx",
    )
    assert found.extra == {
        "message": {"images": images},
        "answer": {"citations": ["https://a.example"], "system_fingerprint": "fp"},
    }


async def test_what_every_event_repeats_is_kept_once(upstream, engine):
    raw = b"".join(event({"content": t}, system_fingerprint="fp", provider="P") for t in "abc")
    upstream.script(Reply(raw=raw + event({}, "stop", provider="P") + DONE, split=150, part_s=0.01))
    one = await engine()
    chunks = [chunk async for chunk in one.generate(ASK)]
    told = [chunk.extra["answer"] for chunk in chunks if chunk.extra]
    assert told == [{"system_fingerprint": "fp", "provider": "P"}]


async def test_the_log_probabilities_of_a_stream_go_on(upstream, engine):
    parts = [
        {"index": 0, "delta": {"content": t}, "logprobs": {"content": [{"token": t}]}} for t in "ab"
    ]
    raw = b"".join(b"data: " + json.dumps({"choices": [p]}).encode() + b"\n\n" for p in parts)
    upstream.script(Reply(raw=raw + event({}, "stop") + DONE))
    found = await collect(await engine(), ASK)
    tokens = [{"token": "a"}, {"token": "b"}]
    assert found.extra == {"choice": {"logprobs": {"content": tokens}}}


async def test_a_whole_message_at_the_end_of_a_stream_adds_nothing(upstream, engine):
    choice = {"index": 0, "delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}
    last = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    upstream.script(Reply(raw=event({"content": "a"}) + event({"content": "b"}) + last + DONE))
    assert (await collect(await engine(), ASK)).text == "ab"


@pytest.mark.parametrize("name", ["delta", "message"])
@pytest.mark.parametrize("wrong", ["text", 1, [1], None])
async def test_a_message_that_is_no_object_says_nothing(upstream, engine, name, wrong):
    raw = json.dumps({"choices": [{"index": 0, name: wrong, "finish_reason": "stop"}]}).encode()
    upstream.script(Reply(raw=b"data: " + raw + b"\n\n" + DONE))
    assert (await collect(await engine(), ASK)).text == ""


# Rows 20 and 21: usage


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ((1000, 200, 1700, 500), (700, 500)),  # xAI: reasoning beside the completion
        ((1000, 700, 1700, 500), (700, 500)),  # OpenAI: in it
        ((1000, 200, 1700, 0), (700, 500)),  # Gemini: in the total alone
        ((1000, 200, 1200, 500), (700, 500)),  # more than the completion holds
        ((1000, 200, 1450, 100), (200, 100)),  # a total of something else
        ((1000, 200, None, 100), (200, 100)),
        ((1000, 200, 900, 0), (200, 0)),
        ((1000, 200, "x", 0), (200, 0)),
    ],
)
def test_all_that_was_generated_is_output(told, found):
    prompt, completion, total, reasoning = told
    usage = read_usage(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    assert (usage.output_tokens, usage.reasoning_tokens) == found
    assert usage.input_tokens == 1000


@pytest.mark.parametrize(
    "told",
    [
        {"prompt_tokens_details": {"cached_tokens": 4900}},
        {"prompt_cache_hit_tokens": 4900, "prompt_cache_miss_tokens": 100},  # DeepSeek
        {"cached_tokens": 4900},  # Moonshot
    ],
)
def test_cached_tokens_are_read_and_details_passed_on(told):
    usage = read_usage({"prompt_tokens": 5000, "completion_tokens": 1, "cost": 0.5} | told)
    assert usage == Usage(5000, 1, 4900, 0, {"cost": 0.5} | told)


@pytest.mark.parametrize("wrong", [-1, "4900", 1.5, None, True, {"a": 1}])
def test_details_that_are_no_counts_are_not_counted(wrong):
    usage = read_usage(
        {
            "prompt_tokens": 10,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": wrong},
            "completion_tokens_details": wrong,
        }
    )
    assert (usage.cached_tokens, usage.reasoning_tokens) == (0, 0)


def test_a_usage_that_is_not_told_counts_all_that_was_generated():
    reader = AnswerReader(ASK)
    call = {"index": 0, "id": "c", "function": {"name": "f" * 4, "arguments": "1" * 4}}
    delta = {"reasoning_content": "x" * 8, "refusal": "y" * 8, "content": "z" * 8}
    reader.read({"choices": [{"index": 0, "delta": delta | {"tool_calls": [call]}}]})
    assert reader.last().usage.output_tokens == 8


# Row 7, and ends that are none


@pytest.mark.parametrize("word", ["error", "abort", "ERROR", "insufficient_system_resource"])
async def test_an_answer_that_broke_off_is_no_answer(upstream, engine, word):
    raw = event({"content": "Hel"}) + event({}, word) + DONE
    upstream.script(Reply(raw=raw), whole({"content": "Hel"}, word))
    chunks = []

    async def read():
        one = await engine(max_retries=0)
        async for chunk in one.generate(ASK):
            chunks.append(chunk.text)  # noqa: PERF401 - what came before the error

    with pytest.raises(EngineServerError, match="broke the answer off"):
        await read()
    assert chunks == ["Hel"]
    with pytest.raises(EngineServerError, match="broke the answer off"):
        await collect(await engine(stream=False, max_retries=0), ASK)


@pytest.mark.parametrize("end", [b'data: "[DONE]"\n\n', b"data: [DONE] bye\n\n", b"data: bye\n\n"])
async def test_an_end_that_is_none_takes_nothing_from_a_complete_answer(upstream, engine, end):
    assert (await streamed(engine, upstream, {"content": "42"}, end=end)).text == "42"
    upstream.script(Reply(raw=event({"content": "42"}) + end))
    with pytest.raises(EngineServerError):
        await collect(await engine(max_retries=0), ASK)


@pytest.mark.parametrize(
    ("word", "reason"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("eos", "stop")],
)
async def test_the_words_of_other_apis_for_an_end(upstream, engine, word, reason):
    assert (await streamed(engine, upstream, {"content": "a"}, reason=word)).finish_reason == reason
