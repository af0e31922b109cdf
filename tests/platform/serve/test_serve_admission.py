from __future__ import annotations

import asyncio

import pytest

from support.skipping_loop import skips_waits
from waypost.serve.gateway.errors import TooBusyError
from waypost.serve.gateway.http import Gate


async def hold(gate: Gate, until: asyncio.Event, done: list | None = None, name: str = "") -> None:
    async with gate.admit():
        if done is not None:
            done.append(name)
        await until.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_queue_is_served_in_order_and_the_next_one_is_turned_away():
    gate, until, done = Gate(1, 2, 10), asyncio.Event(), []
    tasks = [asyncio.create_task(hold(gate, until, done, name)) for name in "abc"]
    await settle()
    assert (gate.in_flight, gate.waiting, done) == (1, 2, ["a"])
    with pytest.raises(TooBusyError) as caught:
        await hold(gate, until)
    assert 1 <= caught.value.retry_after_s <= 60
    until.set()
    await asyncio.gather(*tasks)
    assert done == ["a", "b", "c"]
    assert (gate.in_flight, gate.waiting) == (0, 0)


@skips_waits
async def test_a_wait_that_is_too_long_is_turned_away_and_leaves_the_queue():
    gate, until = Gate(1, 1, 0.02), asyncio.Event()
    task = asyncio.create_task(hold(gate, until))
    await settle()
    with pytest.raises(TooBusyError, match=r"waited 0\.02 s"):
        await hold(gate, until)
    assert gate.waiting == 0
    until.set()
    await task
    assert gate.in_flight == 0


async def test_a_caller_that_goes_while_it_waits_frees_its_place():
    gate, until = Gate(1, 5, 10), asyncio.Event()
    first, second, third = (asyncio.create_task(hold(gate, until)) for _ in range(3))
    await settle()
    second.cancel()
    await settle()
    assert gate.waiting == 1
    until.set()
    await asyncio.gather(first, third)
    assert (gate.in_flight, gate.waiting) == (0, 0)


async def test_a_caller_that_goes_as_its_turn_comes_passes_the_place_on():
    gate, release, until = Gate(1, 5, 10), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(hold(gate, release))
    await settle()
    second, third = (asyncio.create_task(hold(gate, until)) for _ in range(2))
    await settle()
    release.set()
    await asyncio.sleep(0)  # the first leaves: the turn is the second's, which has not run yet
    second.cancel()
    await settle()
    assert gate.in_flight == 1
    until.set()
    await asyncio.gather(first, third)
    assert (gate.in_flight, gate.waiting) == (0, 0)


async def test_an_error_inside_frees_the_place():
    gate = Gate(1, 0, 10)
    with pytest.raises(ValueError, match="inside"):
        async with gate.admit():
            raise ValueError("inside")
    assert gate.in_flight == 0
