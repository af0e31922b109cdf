"""A load generator: workers in a closed loop over sockets, with a sample of each request.

async with Load(f"{url}/v1", planted_asks(), workers=100) as load:
    await load.finished(300)
    fault = load.clock()
    ... kill something ...
    await load.finished(1000)
assert not load.failed
recovered = recovery_s(load.samples, fault, slow_s=2.0)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

import aiohttp
import numpy as np

from support.gateway import ALGEBRA, COOKING

End = Literal["whole", "done", "error", "cut", "refused", "lost", "late"]
"""End of a request, in order: a whole answer with status 200; a stream with [DONE], with an error
event, or cut off; another status; no answer; the client's time-out."""

_DONE = b"data: [DONE]\n\n"
_KEPT = 500


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request.

    Attributes:
        model: Name in the request: a model, a router or ``auto``.
        text: The user's message.
        wanted: The model that answers without faults; None for any.
        stream: Whether to request a stream.
        fields: Further fields of the body.
    """

    model: str = "auto"
    text: str = COOKING
    wanted: str | None = None
    stream: bool = False
    fields: dict[str, Any] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the body of the chat request."""
        messages = [{"role": "user", "content": self.text}]
        whole = {"model": self.model, "messages": messages, "stream": self.stream, **self.fields}
        return json.dumps(whole).encode()


def planted_asks(
    pinned: Iterable[str] = (), *, streams: Iterable[bool] = (False, True), **fields: Any
) -> list[Ask]:
    """Return asks for the planted pool (cook, prover, tiny), streaming and not.

    Args:
        pinned: Models to request by name as well; the other asks are routed to cook and prover.
        streams: Values of ``stream`` to include.
        fields: Further fields of each body.
    """
    routed = [("auto", COOKING, "cook"), ("auto", ALGEBRA, "prover")]
    named = [(name, COOKING, name) for name in pinned]
    kinds = tuple(streams)
    return [Ask(*each, stream, fields) for each in (*routed, *named) for stream in kinds]


@dataclass(frozen=True, slots=True)
class Sample:
    """The outcome of one request.

    Attributes:
        ask: The request.
        start: Time of sending on `Load.clock`, in seconds.
        seconds: Seconds until its end.
        first_s: Seconds until the first bytes of the body; None without a body.
        status: HTTP status; 0 without a response.
        model: Model that answered, from the gateway's header.
        attempts: Number of attempts, from the gateway's header; 0 without that header.
        end: See `End`.
        retry_after: The ``Retry-After`` header.
        error: Last 500 characters of the error's body or event.
    """

    ask: Ask
    start: float
    seconds: float
    first_s: float | None
    status: int
    model: str | None
    attempts: int
    end: End
    retry_after: str | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the answer is complete."""
        return self.end in {"whole", "done"}

    @property
    def finish(self) -> float:
        """Time of its end, on `Load.clock`."""
        return self.start + self.seconds

    @property
    def astray(self) -> bool:
        """Whether a model other than ``ask.wanted`` answered."""
        return self.ask.wanted is not None and self.model != self.ask.wanted


class Load:
    """Workers that each send one request after another until the block ends.

    At the end of the block every worker finishes its current request.

    Args:
        base_url: Base URL of the API, with ``/v1``.
        asks: Requests, sent in turn.
        workers: Number of workers, each with one request in flight.
        total: Number of requests after which the workers stop; None for no limit.
        timeout_s: Seconds after which a request is given up with the end ``late``.
        think_s: Seconds that a worker pauses between two requests.

    Attributes:
        samples: Samples of ended requests, in the order of their ends.
        in_flight: Number of requests in flight.
    """

    def __init__(
        self,
        base_url: str,
        asks: Sequence[Ask],
        *,
        workers: int = 100,
        total: int | None = None,
        timeout_s: float = 120.0,
        think_s: float = 0.0,
    ) -> None:
        self.samples: list[Sample] = []
        self.in_flight = 0
        self._url = f"{base_url}/chat/completions"
        self._asks = [(ask, ask.body()) for ask in asks]
        self._workers = workers
        self._left = total
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._think_s = think_s
        self._sent = 0
        self._stopping = False
        self._abandoned = False
        self._news = asyncio.Event()
        self._begin = time.perf_counter()

    def clock(self) -> float:
        """Return the seconds since this object was created."""
        return time.perf_counter() - self._begin

    @property
    def failed(self) -> list[Sample]:
        """Requests without a complete answer, except streams that ended with an error event."""
        return [sample for sample in self.samples if not sample.ok and sample.end != "error"]

    async def __aenter__(self) -> Load:
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"content-type": "application/json"}
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, headers=headers
        )
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        if error is not None:
            self.abandon()
        await asyncio.gather(*self._tasks, return_exceptions=self._abandoned)
        await self._session.close()

    async def finished(self, more: int, within_s: float = 120.0) -> None:
        """Wait until ``more`` further requests have ended.

        Raises:
            TimeoutError: They have not ended within ``within_s`` seconds.
        """
        wanted = len(self.samples) + more
        async with asyncio.timeout(within_s):
            while len(self.samples) < wanted:
                self._news.clear()
                await self._news.wait()

    def abandon(self) -> None:
        """Cancel all requests in flight and stop the workers."""
        self._abandoned = True
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until ``total`` requests have ended."""
        await asyncio.gather(*self._tasks)

    async def _work(self) -> None:
        while not self._stopping and self._left != 0:
            if self._left is not None:
                self._left -= 1
            ask, body = self._asks[self._sent % len(self._asks)]
            self._sent += 1
            self.in_flight += 1
            try:
                sample = await self._send(ask, body)
            finally:
                self.in_flight -= 1
            self.samples.append(sample)
            self._news.set()
            if self._think_s:
                await asyncio.sleep(self._think_s)

    async def _send(self, ask: Ask, body: bytes) -> Sample:
        start = self.clock()
        status, attempts = 0, 0
        model: str | None = None
        retry_after: str | None = None
        first_s: float | None = None
        parts: list[bytes] = []
        broken: End | None = None
        try:
            async with self._session.post(self._url, data=body) as reply:
                status, headers = reply.status, reply.headers
                model, retry_after = headers.get("x-waypost-model"), headers.get("retry-after")
                attempts = int(headers.get("x-waypost-attempts", 0))
                async for part in reply.content.iter_any():
                    if first_s is None:
                        first_s = self.clock() - start
                    parts.append(part)
        except TimeoutError:
            broken = "late"
        except (aiohttp.ClientError, OSError):
            broken = "cut" if status else "lost"
        text = b"".join(parts)
        end = broken or _end(ask, status, text)
        error = "" if end in {"whole", "done"} else text[-_KEPT:].decode(errors="replace")
        return Sample(
            ask,
            start,
            self.clock() - start,
            first_s,
            status,
            model,
            attempts,
            end,
            retry_after,
            error,
        )


def _end(ask: Ask, status: int, text: bytes) -> End:
    if status != 200:
        return "refused"
    if not ask.stream:
        return "whole"
    if text.endswith(_DONE):
        return "done"
    last = text.rsplit(b"data: ", 1)[-1]
    return "error" if last.startswith(b'{"error"') and last.endswith(b"\n\n") else "cut"


def recovery_s(samples: Sequence[Sample], fault: float, slow_s: float) -> float:
    """Return the seconds from a fault to the end of the last request affected by it; 0 if none.

    A request that ended after the fault is affected if it failed, was slow, or was answered by
    a model other than the wanted one.

    Args:
        samples: Samples of a `Load`.
        fault: Time of the fault, on `Load.clock`.
        slow_s: Seconds above which a request is slow.
    """
    felt = [
        sample.finish - fault
        for sample in samples
        if sample.finish > fault and (not sample.ok or sample.astray or sample.seconds > slow_s)
    ]
    return max(felt, default=0.0)


def percentile(seconds: Iterable[float], percent: float) -> float:
    """Return a percentile; NaN without values."""
    values = np.fromiter(seconds, float)
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def summary(samples: Sequence[Sample]) -> str:
    """Return one line: counts by end, p50, p95 and p99 of complete answers, requests per second."""
    if not samples:
        return "no request ended"
    ends = ", ".join(f"{n} {end}" for end, n in Counter(s.end for s in samples).most_common())
    times = [sample.seconds for sample in samples if sample.ok]
    shown = "/".join(f"{1e3 * percentile(times, p):.0f}" for p in (50, 95, 99))
    span = max(s.finish for s in samples) - min(s.start for s in samples)
    rate = len(samples) / span if span else float("nan")
    return f"{len(samples)} requests ({ends}), p50/95/99 {shown} ms, {rate:.0f}/s"
