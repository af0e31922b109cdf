"""Clients whose bodies do not come."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

from support.gateway import chat
from support.raw_http import exchange, request_bytes

PART_S = 0.2


async def check_hold_no_place(url: str, head: bytes, places: int, *headers: tuple) -> None:
    """Check that requests are answered beside slow ones, and that those end with 408.

    Args:
        url: ``http://host:port`` of a graph with a short ``limits.body_timeout_s``.
        head: Head of a request whose body is longer than what comes.
        places: ``limits.max_in_flight``; thrice as many are slow.
        headers: Headers of the requests beside them.

    Raises:
        AssertionError: They hold places, or end otherwise.
    """
    slow = [asyncio.create_task(_drip(url, head)) for _ in range(3 * places)]
    await asyncio.sleep(2 * PART_S)  # all have begun
    body = json.dumps(chat("hello", model="cook")).encode()
    beside = request_bytes("/v1/chat/completions", body, headers)
    for _ in range(3):
        (reply,) = await exchange(url, beside, timeout_s=60)
        assert reply.status == 200, reply.body
    assert {await each for each in slow} == {408}


async def _drip(url: str, head: bytes) -> int:
    """Send a byte of the body now and then; return the status of the answer."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(head)

    async def drip() -> None:
        while True:
            writer.write(b" ")
            await asyncio.sleep(PART_S)

    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(60):
            return int((await reader.readline()).split()[1])
    finally:
        dripping.cancel()
        writer.close()
