"""An OpenAI-style endpoint in its own thread that records every call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class CountedCall:
    """One call.

    Attributes:
        model: Model of the request.
        text: Last message of the user.
        begin: Time of the request, in monotonic seconds.
        end: Time of its answer; infinite before, and if the client disconnected.
    """

    model: str
    text: str
    begin: float
    end: float = float("inf")


@dataclass
class CountingUpstream:
    """The endpoint and its record.

    Attributes:
        url: ``base_url`` for a client.
        calls: The calls in the order of their begin.
        delay_s: Seconds to wait before an answer.
        text: Text of every answer.
    """

    delay_s: float = 0.0
    text: str = "The answer is 7"
    refuse_first: int = 0
    retry_after_s: float = 0.0
    url: str = ""
    calls: list[CountedCall] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one call."""
        body = await request.json()
        call = CountedCall(body["model"], body["messages"][-1]["content"], time.monotonic())
        self.calls.append(call)
        if len(self.calls) <= self.refuse_first:
            call.end = time.monotonic()
            return web.json_response(
                {"error": {"message": "later"}},
                status=429,
                headers={"Retry-After": str(self.retry_after_s)},
            )
        await asyncio.sleep(self.delay_s)
        message = {"role": "assistant", "content": self.text}
        call.end = time.monotonic()
        return web.json_response(
            {
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5},
            }
        )


@contextmanager
def counting_upstream(
    delay_s: float = 0.0, refuse_first: int = 0, retry_after_s: float = 0.0
) -> Iterator[CountingUpstream]:
    """Serve on a free loopback port.

    Args:
        delay_s: Seconds to wait before each answer.
        refuse_first: Number of first calls that are answered with 429.
        retry_after_s: ``Retry-After`` of those answers, in seconds.
    """
    upstream = CountingUpstream(delay_s, refuse_first=refuse_first, retry_after_s=retry_after_s)
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", upstream.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield upstream
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
