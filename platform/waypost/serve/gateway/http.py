"""One HTTP exchange over ASGI: admission, reading the body within bounds, writing the answer.

The number of requests in flight and in the queue is bounded; further ones are refused. A request
is admitted once its body has arrived. DECISIONS.md, 62 has the measurement beside starlette.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from typing import Any

from waypost.serve.backends.passing import Message, Passing, asked
from waypost.serve.gateway.errors import Problem, StoppingError, TooBusyError
from waypost.serve.gateway.responses import dumps, event

LONGEST_ADVICE_S = 60
_SMOOTHING = 0.1

WATCH_AFTER_S = 0.05
"""Time after which a client is watched for its end. Most fast answers are over by then, and are
spared the task."""


class Gate:
    """Admission: a bounded number of requests in flight, and a bounded queue in order of arrival.

    Attributes:
        in_flight: Number of requests in flight.
    """

    def __init__(self, max_in_flight: int, max_queued: int, timeout_s: float) -> None:
        self.in_flight = 0
        self._most = max_in_flight
        self._most_waiting = max_queued
        self._timeout_s = timeout_s
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean_s = 0.1

    @property
    def waiting(self) -> int:
        """Number of queued requests."""
        return len(self._waiting)

    def check(self) -> None:
        """Refuse a request before its body is read, if the queue is full.

        Raises:
            TooBusyError: no place is free and the queue is full.
        """
        if self.in_flight >= self._most and len(self._waiting) >= self._most_waiting:
            raise TooBusyError("the server is at its limit; retry later", self._advice())

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Queue the request until it may run; count it as in flight within the block.

        Raises:
            TooBusyError: no place is free and the queue is full, or the wait timed out.
        """
        await self._enter()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            yield
        finally:
            self._mean_s += _SMOOTHING * (loop.time() - begin - self._mean_s)
            self._leave()

    async def _enter(self) -> None:
        self.check()
        if self.in_flight < self._most:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                message = f"the request waited {self._timeout_s:g} s for its turn; retry later"
                raise TooBusyError(message, self._advice()) from None
            raise

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif not turn.cancelled():
            self._leave()  # the caller was cancelled just when it was admitted

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place goes to the next request
                return
        self.in_flight -= 1

    def _advice(self) -> int:
        ahead = (len(self._waiting) + 1) / self._most
        return max(1, min(LONGEST_ADVICE_S, math.ceil(ahead * self._mean_s)))


class Arrivals:
    """A bounded number of arriving bodies; one more ends the one that has taken longest.

    A body that is sent at once arrives quickly, so that slow clients, however many, cannot block
    fast ones.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._arriving: dict[int, asyncio.Timeout] = {}  # in order of their start

    @asynccontextmanager
    async def within(self, timeout_s: float) -> AsyncIterator[None]:
        """Limit the time of the block.

        Raises:
            TimeoutError: the time is over, or the block was ended in favour of another.
        """
        async with asyncio.timeout(timeout_s) as scope:
            if len(self._arriving) >= self._most:
                slowest = self._arriving.pop(next(iter(self._arriving)))
                if not slowest.expired():
                    slowest.reschedule(0.0)
            self._arriving[id(scope)] = scope
            try:
                yield
            finally:
                self._arriving.pop(id(scope), None)


Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
EVENTS = "text/event-stream; charset=utf-8"
MAX_HEADER = 512
DIRECT = "waypost.direct"
"""Key of a request's scope that came by the gateway's own server, not by Serve's proxy."""

INSIDE = "waypost.inside"
"""Key of a request's scope that was asked by the process itself, which needs no API key."""

MAX_HEADERS = 64 * 1024
"""Most bytes of a request's headers together; the HTTP server sets no limit."""


class ClientGoneError(Exception):
    """The client disconnected before its answer was complete."""


def header_value(value: object) -> bytes:
    """Return any value as a header value in printable ASCII.

    Control characters (CR LF would begin another header) and non-ASCII characters become ``?``.
    """
    text = str(value)[:MAX_HEADER]
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return text.strip().encode("ascii")


class Exchange:
    """A request and the answer to it.

    Attributes:
        method: HTTP method in upper case.
        path: Path below the route prefix, such as ``/v1/models``.
        status: Status of the answer; 0 until it has begun.
        extra_headers: Headers sent with any answer.
        direct: Whether it came by the gateway's own server.
        inside: Whether the process itself asks.
    """

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        root = scope.get("root_path", "")
        path: str = scope["path"]
        path = path[len(root) :] if root and path.startswith(f"{root}/") else path
        if "//" in path or path.endswith(
            "/"
        ):  # a base URL that was written with a slash at its end
            path = "/" + "/".join(part for part in path.split("/") if part)
        self.path = path
        self.status = 0
        self.extra_headers: dict[str, object] = {}
        self.direct = DIRECT in scope
        self.inside = INSIDE in scope
        self._scope = scope
        self._receive = receive
        self._send = send
        self._working: asyncio.Task[Any] | None = None
        self._ended: Exception | None = None

    @cached_property
    def headers(self) -> dict[str, str]:
        """The request's headers, names in lower case; the last value of a repeated one.

        Raises:
            Problem: 431 where they are longer than `MAX_HEADERS`.
        """
        pairs = self._scope["headers"]
        if sum([len(name) + len(value) for name, value in pairs]) > MAX_HEADERS:
            message = f"the headers: expected at most {MAX_HEADERS} bytes"
            raise Problem(431, message, code="headers_too_long")
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}

    @property
    def begun(self) -> bool:
        """Whether the status line was sent."""
        return self.status != 0

    async def body(self, most: int, timeout_s: float, arrivals: Arrivals) -> bytes:
        """Read the body.

        Args:
            most: Most bytes.
            timeout_s: Longest time until it has arrived.
            arrivals: The other bodies that are being read.

        Raises:
            Problem: 413 where it is longer than ``most`` bytes, 408 where it is slow, 415 where
                it is compressed or its content type is not JSON.
            ClientGoneError: the client disconnected.
        """
        if self.headers.get("content-encoding", "identity").lower() not in {"identity", ""}:
            raise Problem(415, "content-encoding: send the body uncompressed", code="encoded")
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        # A web page may send these types to a server on the user's machine without a preflight
        # request, but then with an Origin header; without that header it is a plain `curl -d`.
        if kind != JSON and (kind not in {"", FORM} or "origin" in self.headers):
            raise Problem(415, f"content-type: expected {JSON}", code="not_json")
        return await self.upload(most, timeout_s, arrivals)

    async def upload(self, most: int, timeout_s: float, arrivals: Arrivals) -> bytes:
        """Read a body of any kind; see `body`."""
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > most:
            raise _too_long(most)
        try:
            async with arrivals.within(timeout_s):
                return await self._read(most)
        except TimeoutError:
            message = f"the body did not arrive within {timeout_s:g} s, or gave way to many others"
            raise Problem(408, message, code="slow_body") from None

    async def _read(self, most: int) -> bytes:
        parts: list[bytes] = []
        length = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            length += len(part)
            if length > most:
                raise _too_long(most)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def until_gone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work``, and cancel it when the client disconnects or `stop` is called.

        Call it after the body was read.

        Raises:
            ClientGoneError: the client disconnected; ``work`` has ended.
            StoppingError: `stop` was called; ``work`` has ended.
        """
        task = self._working = asyncio.current_task()
        assert task is not None  # ASGI servers run applications in tasks

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._end(ClientGoneError())

        watcher: asyncio.Task[None] | None = None

        def begin() -> None:
            nonlocal watcher
            watcher = asyncio.create_task(watch())

        later = asyncio.get_running_loop().call_later(WATCH_AFTER_S, begin)
        try:
            await work()
        except asyncio.CancelledError:
            if self._ended is None:
                raise
            task.uncancel()
            raise self._ended from None
        finally:
            self._working = None
            later.cancel()
            if watcher is not None:
                watcher.cancel()

    async def pass_on(self, passing: Passing, body: bytes) -> None:
        """Send the answer of another application to this request, whose body was read.

        Raises:
            EngineError: there is no answer, or not the rest of it.
        """
        async with aclosing(passing(asked(self._scope, body))) as lists:
            async for messages in lists:
                for message in messages:
                    if message["type"] == "http.response.start":
                        self.status = message["status"]
                        pairs = [*message["headers"], *_pairs(self.extra_headers)]
                        message = {**message, "headers": pairs}
                    await self._put(message)

    def stop(self) -> None:
        """End the work of `until_gone`."""
        self._end(StoppingError())

    def _end(self, why: Exception) -> None:
        if self._working is not None and self._ended is None:
            self._ended = why
            self._working.cancel()

    async def reply(
        self,
        status: int,
        body: bytes,
        kind: str = JSON,
        headers: Mapping[str, object] | None = None,
    ) -> None:
        """Send a whole answer."""
        await self._start(status, kind, headers, len(body))
        await self._put({"type": "http.response.body", "body": body})

    async def reply_empty(self, headers: Mapping[str, object]) -> None:
        """Send an answer without a body (204)."""
        await self._start(204, None, headers)
        await self._put({"type": "http.response.body", "body": b""})

    async def reply_json(self, value: Any) -> None:
        """Send a value as JSON with status 200."""
        await self.reply(200, dumps(value))

    async def reply_problem(self, problem: Problem) -> None:
        """Send an error; where a stream has begun, as its last event."""
        if self.begun:
            await self.end_events(event(dumps(problem.body)))
        else:
            await self.reply(problem.status, dumps(problem.body), headers=problem.headers)

    async def begin_events(self) -> None:
        """Send the status and headers of a stream of events."""
        await self._start(200, EVENTS, {"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def event(self, data: bytes) -> None:
        """Send further events."""
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def end_events(self, data: bytes = b"") -> None:
        """Send the last events and end the answer."""
        await self._put({"type": "http.response.body", "body": data})

    async def _start(
        self,
        status: int,
        kind: str | None,
        headers: Mapping[str, object] | None,
        length: int | None = None,
    ) -> None:
        pairs = [] if kind is None else [(b"content-type", kind.encode("ascii"))]
        if length is not None:
            pairs.append((b"content-length", str(length).encode("ascii")))
        pairs += _pairs({**self.extra_headers, **(headers or {})})
        self.status = status
        await self._put({"type": "http.response.start", "status": status, "headers": pairs})

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:
            raise ClientGoneError from None


def _pairs(headers: Mapping[str, object]) -> list[tuple[bytes, bytes]]:
    found = headers.items()
    return [(name.encode("ascii"), header_value(v)) for name, v in found if v is not None]


def _too_long(most: int) -> Problem:
    return Problem(413, f"the body is longer than {most} bytes", code="too_long")
