"""What engines that call an endpoint share: keys, tries, time-outs, and reading the answer.

aiohttp, because it costs a half to a tenth of httpx's time a request (DECISIONS.md has the
numbers). Every failure is an `EngineError` that names model and host; no exception of the HTTP
library leaves, because some of them hold the request's headers, and so the key.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import aiohttp

from waypost.contracts.errors import (
    ConfigError,
    EngineConnectionError,
    EngineError,
    EngineServerError,
    EngineTimeoutError,
    Fault,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.engines._http_errors import Retries, retry_after_s
from waypost.engines._http_wire import EventParser, HTTPConfig, Reader, parse_json
from waypost.engines.base import Engine
from waypost.engines.calls import Call, Calls, Cancelled
from waypost.secrets import KeyRing, Secret, key_ring

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_DRAIN_S = 0.05
"""Wait for the end of the body after ``[DONE]``, so that the connection can be used again."""

_LONGEST_ANSWER = 64 * 2**20
"""Longest whole answer that is taken, in bytes; an endless one must not fill the memory."""


class HTTPEngine(Engine):
    """Calls one model of one endpoint.

    A key that is refused or limited rests while another of the service is tried. Retries wait
    with full jitter and for what Retry-After asks; nothing is tried again after the first token.

    Args:
        config: Its settings.
        keys: Where keys come from; default this process's `key_ring`, read at the start.

    Attributes:
        calls: What runs now; its ``output_tokens`` counts the parts passed on.
    """

    answer_field: ClassVar[str]
    """What every whole answer has."""

    remote: ClassVar[bool] = True
    multimodal: ClassVar[bool] = True
    sends_keys: ClassVar[bool] = True
    # In a data run nobody waits for the first token, and a minute's wait that an endpoint asks for
    # is worth an answer.
    data_defaults: ClassVar[Mapping[str, Any]] = {
        "stream": False,
        "max_retries": 5,
        "retry_max_s": 60.0,
    }

    def __init__(self, config: HTTPConfig, keys: KeyRing | None = None) -> None:
        self.config = config
        self.calls = Calls(self.name)
        self._keys = keys
        self._where = f"{config.model} at {urlsplit(config.base_url).netloc}"
        self._session: aiohttp.ClientSession | None = None

    @abstractmethod
    def _reader(self, request: GenerateRequest) -> Reader:
        """Return what reads the answer to a request."""

    @abstractmethod
    def _post(self, request: GenerateRequest) -> tuple[str, dict[str, Any]]:
        """Return the path below the base URL, and the JSON body."""

    @abstractmethod
    def _headers(self, key: Secret | None) -> dict[str, str]:
        """Return the headers of a request, with the key where there is one."""

    @abstractmethod
    def _error(
        self,
        status: int | None,
        error: object,
        request: GenerateRequest,
        retry_after_s: float | None = None,
    ) -> EngineError:
        """Return what a refusal means.

        Args:
            status: HTTP status; None for an error inside a stream or an answer.
            error: The ``error`` of the body or event: an object, a text, or None.
            request: What was asked.
            retry_after_s: What the upstream asked to wait.
        """

    async def start(self) -> None:
        """Read the keys and make the pool; connects nowhere.

        Raises:
            ConfigError: where the service has no key.
        """
        config = self.config
        self._ring = key_ring() if self._keys is None else self._keys
        if config.service is not None and not self._ring.count(config.service):
            problem = f"no key for the service {config.service!r}: set it in API_KEYS"
            raise ConfigError([Fault(f"engine {self.name}, {self._where}", problem)])
        connector = aiohttp.TCPConnector(
            limit=config.max_connections, keepalive_timeout=config.keepalive_s
        )
        limits = aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=limits, headers=config.headers
        )
        self.calls.open = True

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Answer one request; see `Engine.generate`."""
        with self.calls.enter(request, self.config.total_timeout_s) as call:
            reader = self._reader(request)
            retries = Retries(self.config, self._ring)
            started = False
            try:
                while True:
                    key = retries.key()
                    try:
                        async with aclosing(self._try(call, request, reader, key)) as chunks:
                            async for chunk in chunks:
                                started = True
                                self.calls.output_tokens += 1
                                yield chunk
                        break
                    except EngineError as error:
                        wait = None if started else retries.wait(error, key)
                        if wait is None or _too_late(call, wait):
                            raise
                        again = type(error).__name__, error.status, wait
                    logger.info("%s: %s (HTTP %s); again in %.2f s", self._where, *again)
                    reader = self._reader(request)
                    await call.sleep(wait)
                yield reader.last("stop" if reader.stopped else None)
            except Cancelled:
                yield reader.last("cancelled")

    async def abort(self, request_id: str) -> None:
        """Close that request's connection; it ends with the finish reason ``cancelled``."""
        self.calls.abort(request_id)

    async def healthy(self) -> bool:
        """Say whether the pool is open. Asks the upstream nothing."""
        return self.calls.open

    async def close(self) -> None:
        """Close every connection; requests end with an EngineConnectionError."""
        self.calls.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _try(
        self, call: Call, request: GenerateRequest, reader: Reader, key: Secret | None
    ) -> AsyncGenerator[Chunk, None]:
        """Call once; yields what the answer adds, without the last chunk."""
        loop = asyncio.get_running_loop()
        first_by = loop.time() + self.config.first_token_timeout_s  # counts the sending too
        response = await self._send(call, request, key)
        try:
            if response.status >= 300:
                raise await self._refusal(call, request, response)
            patience = _Patience(first_by - loop.time())
            parts = self._parts(call, response, patience)
            # an upstream that cannot stream may answer in one piece though asked for a stream
            whole = "json" in response.content_type or not self.config.stream
            read = self._whole if whole else self._stream
            events = read(request, reader, parts, patience)
            async with aclosing(parts), aclosing(events):
                async for chunk in events:
                    yield chunk
            if not reader.stopped and (rest := reader.rest()):
                yield rest
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()  # cuts the socket: the upstream sees that nobody listens

    async def _send(
        self, call: Call, request: GenerateRequest, key: Secret | None
    ) -> aiohttp.ClientResponse:
        config = self.config
        session = self._session
        if session is None:
            raise EngineConnectionError(f"the {self.name} engine was closed")
        path, body = self._post(request)
        # redirects are not followed: they would carry the key to another host
        sent = session.post(
            config.base_url + path,
            json=body,
            headers=self._headers(key),
            allow_redirects=False,
        )
        # without a stream, the status line comes when the answer is complete
        within_s = config.first_token_timeout_s if config.stream else config.total_timeout_s
        return await self._io(call, sent, within_s)

    async def _io(self, call: Call, work: Awaitable[ResultT], within_s: float) -> ResultT:
        """Await the network; its failures become ours."""
        try:
            late = f"{self._where}: no answer in {within_s:.3g} s"
            return await call.result(work, within_s, late)
        except aiohttp.ServerTimeoutError:
            problem = f"no connection in {self.config.connect_timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            problem = f"the connection failed ({type(error).__name__})"
        # raised here and not above, so that the library's error is not chained to ours
        raise EngineConnectionError(f"{self._where}: {problem}")

    async def _refusal(
        self, call: Call, request: GenerateRequest, response: aiohttp.ClientResponse
    ) -> EngineError:
        raw = b""
        patience = _Patience(self.config.token_timeout_s)
        try:
            async with aclosing(self._parts(call, response, patience)) as parts:
                async for part in parts:
                    raw += part
                    if len(raw) > 65_536:
                        break
        except (EngineTimeoutError, EngineConnectionError):
            call.check()  # the status says enough, unless it is the request that has ended
        try:
            # an object, or a list of one: Gemini
            body: object = parse_json(b'{"body":%s}' % (raw or b"null"), self._where)["body"]
        except EngineError:
            body = None
        if isinstance(body, list) and body:
            body = body[0]
        error = (body.get("error") or body) if isinstance(body, dict) else None
        wait = retry_after_s(response.headers.get("Retry-After"))
        return self._error(response.status, error, request, wait)

    async def _parts(
        self, call: Call, response: aiohttp.ClientResponse, patience: _Patience
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        while True:
            begin = loop.time()
            part = await self._io(call, response.content.readany(), max(0.001, patience.left_s))
            patience.left_s -= loop.time() - begin
            if not part:
                return
            yield part
            call.check()  # what is buffered already is read without a wait that could end

    async def _stream(
        self,
        request: GenerateRequest,
        reader: Reader,
        parts: AsyncGenerator[bytes, None],
        patience: _Patience,
    ) -> AsyncGenerator[Chunk, None]:
        parser = EventParser()
        async for part in parts:
            try:
                done = self._events(request, reader, parser.feed(part), patience)
            except EngineError:
                if chunk := reader.take():
                    yield chunk
                raise
            # what arrived together goes on together: a chunk costs every layer behind this one
            if chunk := reader.take():
                yield chunk
            if done:
                await _drain(parts)
                return
            if reader.stopped:
                return
        self._events(request, reader, parser.finish(), patience)
        if chunk := reader.take():
            yield chunk
        if reader.finish_reason is None and not reader.stopped:
            raise EngineConnectionError(f"{self._where}: the stream was cut off before its end")

    async def _whole(
        self,
        request: GenerateRequest,
        reader: Reader,
        parts: AsyncGenerator[bytes, None],
        patience: _Patience,
    ) -> AsyncGenerator[Chunk, None]:
        raw = bytearray()
        async for part in parts:
            patience.left_s = self.config.token_timeout_s
            raw += part
            if len(raw) > _LONGEST_ANSWER:
                raise EngineServerError(
                    f"{self._where}: the answer exceeds {_LONGEST_ANSWER} bytes"
                )
        self._read(request, reader, bytes(raw))
        if chunk := reader.take():
            yield chunk
        if not reader.answered:
            raise EngineServerError(f"{self._where}: the answer has no {self.answer_field}")

    def _events(
        self,
        request: GenerateRequest,
        reader: Reader,
        events: list[str],
        patience: _Patience,
    ) -> bool:
        """Read events up to the end of the answer; say whether the upstream said that it is."""
        for event in events:
            if event == "[DONE]":
                return True
            try:
                lives = self._read(request, reader, event)
            except EngineServerError:
                # an end that is none ("[DONE]" in quotes, text behind it) takes nothing away
                if reader.finish_reason is None:
                    raise
                return True
            if lives:
                patience.left_s = self.config.token_timeout_s
            if reader.stopped:
                return False
        return reader.ended

    def _read(self, request: GenerateRequest, reader: Reader, event: str | bytes) -> bool:
        data = parse_json(event, self._where)
        if error := data.get("error"):
            raise self._error(None, error, request)
        return reader.read(data)


@dataclass
class _Patience:
    """Remaining wait for the upstream.

    Attributes:
        left_s: Seconds of waiting left; time between two reads of the caller does not count.
    """

    left_s: float


def _too_late(call: Call, wait: float) -> bool:
    return call.deadline is not None and asyncio.get_running_loop().time() + wait >= call.deadline


async def _drain(parts: AsyncGenerator[bytes, None]) -> None:
    """Read to the end of the body, if it comes at once; else the connection is closed."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in parts:
                pass
    except (TimeoutError, EngineError):
        return
