from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from support.skipping_loop import skips_waits
from waypost.contracts.errors import EngineServerError, EngineTimeoutError
from waypost.serve.backends.llm_replica import MOST_HELD, batched, only_engine_errors, within


async def numbers(count: int, pause_s: float = 0.0, first_s: float = 0.0, closed=None):
    try:
        await asyncio.sleep(first_s)
        for number in range(count):
            yield number
            await asyncio.sleep(pause_s)
    finally:
        if closed is not None:
            closed.append(True)


async def gathered(source) -> list:
    async with aclosing(source):
        return [item async for item in source]


@skips_waits
async def test_within_passes_every_item_on():
    assert await gathered(within(numbers(3), 1.0, 1.0)) == [0, 1, 2]


@skips_waits
async def test_within_names_a_first_token_that_is_late_and_closes_the_source():
    closed: list[bool] = []
    with pytest.raises(EngineTimeoutError, match=r"no first token within 0\.02 s"):
        await gathered(within(numbers(1, first_s=1.0, closed=closed), 0.02, 1.0))
    assert closed == [True]


@skips_waits
async def test_within_allows_a_slow_first_token_and_no_slow_second():
    async with aclosing(within(numbers(2, pause_s=1.0, first_s=0.05), 1.0, 0.02)) as items:
        assert await anext(items) == 0
        with pytest.raises(EngineTimeoutError, match="no further token"):
            await anext(items)


async def test_batched_gives_what_is_there_at_once_as_one_list():
    async def at_once():
        for number in range(5):
            yield number

    assert await gathered(batched(at_once(), 10.0)) == [[0, 1, 2, 3, 4]]


@skips_waits
async def test_batched_passes_the_first_item_at_once_and_gathers_the_next_ones():
    lists = await gathered(batched(numbers(8, pause_s=0.004), 0.022))
    assert lists == [[0], [1, 2, 3, 4, 5], [6, 7]]


@skips_waits
async def test_batched_sends_a_full_list_before_its_time():
    async def burst():
        yield "first"
        await asyncio.sleep(0.01)
        for number in range(MOST_HELD):
            yield number
        await asyncio.sleep(30)

    async with aclosing(batched(burst(), 20.0)) as lists:
        assert await anext(lists) == ["first"]
        assert len(await anext(lists)) == MOST_HELD
        assert asyncio.get_running_loop().time() < 1


async def test_batched_gives_what_came_before_an_error_then_the_error():
    async def failing():
        yield 1
        raise EngineServerError("broken")

    async with aclosing(batched(failing(), 0.01)) as lists:
        assert await anext(lists) == [1]
        with pytest.raises(EngineServerError, match="broken"):
            await anext(lists)


@skips_waits
async def test_closing_batched_closes_the_source():
    closed: list[bool] = []
    async with aclosing(batched(numbers(100, 0.01, closed=closed), 0.01)) as lists:
        await anext(lists)
    assert closed == [True]


async def test_another_exception_of_an_engine_becomes_a_server_error_without_its_message():
    async def failing():
        yield 1
        raise KeyError("text of a user")

    with pytest.raises(EngineServerError, match=r"^the engine failed: KeyError$"):
        await gathered(only_engine_errors(failing()))
