"""A load generator: workers in a closed loop over sockets, and what became of each request.

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
"""How a request ended: a whole answer with status 200; a stream with [DONE], with an error event,
or with neither; another status; no answer at all; not within the client's own time."""

_DONE = b"data: [DONE]\n\n"
_KEPT = 500


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request.

    Attributes:
        model: What is asked for: a model, a router or ``auto``.
        text: The user's message.
        wanted: The model that answers it while all is well; None for any.
        stream: Whether a stream is asked for.
        fields: Further fields of the body.
    """

    model: str = "auto"
    text: str = COOKING
    wanted: str | None = None
    stream: bool = False
    fields: dict[str, Any] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the body of a chat."""
        messages = [{"role": "user", "content": self.text}]
        whole = {"model": self.model, "messages": messages, "stream": self.stream, **self.fields}
        return json.dumps(whole).encode()


def planted_asks(
    pinned: Iterable[str] = (), *, streams: Iterable[bool] = (False, True), **fields: Any
) -> list[Ask]:
    """Return asks for the planted pool (cook, prover, tiny), streaming and not.

    Args:
        pinned: Models asked for by name besides; the others are routed to cook and prover.
        streams: Which of the two kinds of answer.
        fields: Further fields of each body.
    """
    routed = [("auto", COOKING, "cook"), ("auto", ALGEBRA, "prover")]
    named = [(name, COOKING, name) for name in pinned]
    kinds = tuple(streams)
    return [Ask(*each, stream, fields) for each in (*routed, *named) for stream in kinds]


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of one request.

    Attributes:
        ask: What was asked.
        start: When, on `Load.clock`, in seconds.
        seconds: Until its end.
        first_s: Until the first bytes of the body; None where none came.
        status: HTTP status; 0 where none came.
        model: Who answered, as the gateway says.
        attempts: Models asked for it, as the gateway says; 0 where it does not.
        end: How it ended.
        retry_after: That header.
        error: The error's body or event, at most 500 characters.
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
        """Whether a complete answer came."""
        return self.end in {"whole", "done"}

    @property
    def finish(self) -> float:
        """When it ended, on `Load.clock`."""
        return self.start + self.seconds

    @property
    def astray(self) -> bool:
        """Whether another model answered than the one that does while all is well."""
        return self.ask.wanted is not None and self.model != self.ask.wanted


class Load:
    """Workers that each send one request after another until the block ends.

    At the end of the block every worker ends the request it is at.

    Args:
        base_url: Up to and with ``/v1``.
        asks: Taken in turn.
        workers: Requests in flight.
        total: Requests after which the workers stop by themselves; None for never.
        timeout_s: A request that takes longer is given up: its end is ``late``.
        think_s: Pause of a worker between two requests.

    Attributes:
        samples: Ended requests, in the order of their ends.
        in_flight: Requests under way.
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
        """Return the seconds since the load was made."""
        return time.perf_counter() - self._begin

    @property
    def failed(self) -> list[Sample]:
        """Requests without an answer; a stream that ended with an error event is not among them."""
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
        """Wait until that many more requests have ended.

        Raises:
            TimeoutError: they did not in time.
        """
        wanted = len(self.samples) + more
        async with asyncio.timeout(within_s):
            while len(self.samples) < wanted:
                self._news.clear()
                await self._news.wait()

    def abandon(self) -> None:
        """Close the connections of all requests under way; no worker sends another."""
        self._abandoned = True
        for task in self._tasks:
            task.cancel()

    async def ended(self) -> None:
        """Wait until the workers have sent `total` requests and seen them end."""
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
    """Return how long a fault was felt.

    From the fault to the end of the last request that began after it, or was under way, and that
    failed, was slow, or was answered by another model than while all is well. 0 where none was.

    Args:
        samples: Of a `Load`.
        fault: When it happened, on `Load.clock`.
        slow_s: A request that took longer is slow.
    """
    felt = [
        sample.finish - fault
        for sample in samples
        if sample.finish > fault and (not sample.ok or sample.astray or sample.seconds > slow_s)
    ]
    return max(felt, default=0.0)


def percentile(seconds: Iterable[float], percent: float) -> float:
    """Return a percentile; NaN of nothing."""
    values = np.fromiter(seconds, float)
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def summary(samples: Sequence[Sample]) -> str:
    """Return one line: counts by end, p50, p95, p99 of complete answers, requests a second."""
    if not samples:
        return "no request ended"
    ends = ", ".join(f"{n} {end}" for end, n in Counter(s.end for s in samples).most_common())
    times = [sample.seconds for sample in samples if sample.ok]
    shown = "/".join(f"{1e3 * percentile(times, p):.0f}" for p in (50, 95, 99))
    span = max(s.finish for s in samples) - min(s.start for s in samples)
    rate = len(samples) / span if span else float("nan")
    return f"{len(samples)} requests ({ends}), p50/95/99 {shown} ms, {rate:.0f}/s"
