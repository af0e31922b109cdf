from __future__ import annotations

import pytest

from waypost.contracts.errors import ConfigError, EngineError, EngineOverloadedError
from waypost.contracts.generation import GenerateRequest
from waypost.engines import make_engine
from waypost.engines.base import collect


def ask(text: str = "say this", **fields) -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": text}], **fields)


async def started(**config):
    engine = make_engine("echo", config)
    await engine.start()
    return engine


async def outcomes(engine, count: int) -> list[bool]:
    """Return for each request whether it failed."""
    failed = []
    for _ in range(count):
        try:
            await collect(engine, ask())
            failed.append(False)
        except EngineError:
            failed.append(True)
    return failed


async def test_echoes_the_last_message_of_the_user():
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": [{"type": "text", "text": "second one"}]},
    ]
    answer = await collect(await started(), GenerateRequest("r", messages=messages))
    assert answer.text == "second one"
    assert answer.usage.output_tokens == 2
    assert answer.usage.input_tokens == 5  # first, an, answer, second, one


async def test_fixed_text_and_length_by_repeating_and_cutting():
    engine = await started(text="a b c", tokens=5)
    assert (await collect(engine, ask())).text == "a b ca b"
    engine = await started(text="a b c", tokens=2)
    assert (await collect(engine, ask())).text == "a b"


async def test_one_chunk_a_token_then_the_last():
    chunks = [chunk async for chunk in (await started()).generate(ask("a b"))]
    assert [chunk.text for chunk in chunks] == ["a", " b", ""]


async def test_fail_first_n_then_answers():
    engine = await started(fail_with="500", fail_first_n=2)
    assert await outcomes(engine, 4) == [True, True, False, False]


async def test_fail_rate_repeats_with_its_seed_and_start():
    engine = await started(fail_with="connection", fail_rate=0.5, seed=1)
    first = await outcomes(engine, 40)
    assert 8 < sum(first) < 32
    await engine.start()
    assert await outcomes(engine, 40) == first


async def test_429_carries_its_wait():
    engine = await started(fail_with="429", retry_after_s=7)
    with pytest.raises(EngineOverloadedError) as caught:
        await collect(engine, ask())
    assert caught.value.retry_after_s == 7
    assert caught.value.status == 429


async def test_mid_stream_fails_after_half_of_the_tokens():
    engine = await started(text="a b c d", fail_with="mid_stream")
    chunks = engine.generate(ask())
    assert [(await anext(chunks)).text for _ in range(2)] == ["a", " b"]
    with pytest.raises(EngineError):
        await anext(chunks)


def test_failures_need_their_kind():
    with pytest.raises(ConfigError, match="fail_with"):
        make_engine("echo", {"fail_rate": 0.5})
