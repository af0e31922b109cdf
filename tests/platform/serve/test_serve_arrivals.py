from __future__ import annotations

import asyncio

import pytest

from support.skipping_loop import skips_waits
from waypost.serve.gateway.http import Arrivals


@skips_waits
async def test_of_too_many_that_arrive_the_slowest_gives_way():
    arrivals, ended = Arrivals(2), []

    async def arrive(name: str, seconds: float) -> None:
        try:
            async with arrivals.within(10):
                await asyncio.sleep(seconds)
        except TimeoutError:
            ended.append(f"{name} gave way")
        else:
            ended.append(name)

    slow = [asyncio.create_task(arrive(name, 5)) for name in "ab"]
    await asyncio.sleep(0)
    await arrive("c", 0)
    await asyncio.gather(slow[0])
    assert sorted(ended) == ["a gave way", "c"]
    await arrive("d", 0)  # there is room again
    assert not slow[1].done()
    slow[1].cancel()
    await asyncio.gather(slow[1], return_exceptions=True)


@skips_waits
async def test_an_arrival_has_its_time():
    with pytest.raises(TimeoutError):
        async with Arrivals(1).within(0.01):
            await asyncio.sleep(5)
