"""One try of a call of an endpoint: send the request, read the answer within its times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any, ClassVar, Protocol, TypeVar

import aiohttp

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.engines._http_errors import retry_after_s
from waypost.engines._http_wire import EventParser, HTTPConfig, Reader, parse_json
from waypost.engines.calls import Call
from waypost.secrets import Secret

ResultT = TypeVar("ResultT")

_DRAIN_S = 0.05
"""Wait for the end of the body after ``[DONE]``, so that the connection can be used again."""

_LONGEST_ANSWER = 64 * 2**20
"""Longest whole answer that is taken, in bytes; an endless one must not fill the memory."""

_LONGEST_REFUSAL = 65_536


class Endpoint(Protocol):
    """What differs between APIs; see `HTTPEngine`."""

    name: ClassVar[str]
    answer_field: ClassVar[str]
    config: HTTPConfig
    where: str
    session: aiohttp.ClientSession | None

    def post(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """Return the path below the base URL, and the JSON body; ``stream`` asks for a stream."""
        ...

    def key_headers(self, key: Secret | None) -> dict[str, str]:
        """Return the headers of a request, with the key where there is one."""
        ...

    def error(
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
        ...


class Try:
    """One try.

    Args:
        endpoint: Who is asked.
        call: Bounds the time of all tries.
        request: What is asked.
        reader: Reads the answer.
        key: The key to send, if any.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        call: Call,
        request: GenerateRequest,
        reader: Reader,
        key: Secret | None,
    ) -> None:
        self._endpoint = endpoint
        self._config = endpoint.config
        self._call = call
        self._request = request
        self._reader = reader
        self._key = key
        self._left_s = 0.0  # of waiting; time between two reads of the caller does not count

    async def whole(self) -> None:
        """Ask for a whole answer, and give it to the reader.

        Raises:
            EngineError: there is none.
        """
        response = await self._send(stream=False)
        try:
            if response.status >= 300:
                raise await self._refusal(response)
            raw = await self._io(self._body(response), self._config.total_timeout_s)
            # some endpoints stream whatever they are asked for
            if response.content_type == "text/event-stream":
                parser = EventParser()
                done = self._events([*parser.feed(raw), *parser.finish()])
                self._check_end(done)
            else:
                self._read_whole(raw)
        finally:
            _let_go(response)

    async def stream(self) -> AsyncGenerator[Chunk, None]:
        """Ask for a stream; yield what the answer adds, without the last chunk.

        Raises:
            EngineError: at the first or any later chunk.
        """
        loop = asyncio.get_running_loop()
        first_by = loop.time() + self._config.first_token_timeout_s  # counts the sending too
        reader = self._reader
        response = await self._send(stream=True)
        try:
            if response.status >= 300:
                raise await self._refusal(response)
            self._left_s = first_by - loop.time()
            if "json" in response.content_type:
                # an upstream that cannot stream may answer in one piece
                await self._read_in_one_piece(response)
                if chunk := reader.take():
                    yield chunk
            else:
                parser, ended = EventParser(), False
                while not ended:
                    part = await self._part(response)
                    try:
                        ended = self._events(parser.feed(part) if part else parser.finish())
                    except EngineError:
                        if chunk := reader.take():
                            yield chunk
                        raise
                    # what arrived together goes on together: a chunk costs every layer behind it
                    if chunk := reader.take():
                        yield chunk
                    if not part:
                        self._check_end(ended)
                        break
                    ended = ended or reader.stopped
                    self._call.check()  # what is buffered is read without a wait that could end
                if not reader.stopped:
                    await _drain(response)
            if not reader.stopped and (rest := reader.rest()):
                yield rest
        finally:
            _let_go(response)

    async def _send(self, *, stream: bool) -> aiohttp.ClientResponse:
        endpoint, config = self._endpoint, self._config
        if endpoint.session is None:
            raise EngineConnectionError(f"the {endpoint.name} engine was closed")
        path, body = endpoint.post(self._request, stream=stream)
        # redirects are not followed: they would carry the key to another host
        sent = endpoint.session.post(
            config.base_url + path,
            json=body,
            headers=endpoint.key_headers(self._key),
            allow_redirects=False,
        )
        # without a stream, the status line comes when the answer is complete
        return await self._io(
            sent, config.first_token_timeout_s if stream else config.total_timeout_s
        )

    async def _io(self, work: Awaitable[ResultT], within_s: float) -> ResultT:
        """Await the network; its failures become ours."""
        where = self._endpoint.where
        try:
            late = f"{where}: no answer in {within_s:.3g} s"
            return await self._call.result(work, within_s, late)
        except aiohttp.ServerTimeoutError:
            problem = f"no connection in {self._config.connect_timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            problem = f"the connection failed ({type(error).__name__})"
        # raised here and not above, so that the library's error is not chained to ours
        raise EngineConnectionError(f"{where}: {problem}")

    async def _part(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the next bytes, none at the end."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        part = await self._io(response.content.readany(), max(0.001, self._left_s))
        self._left_s -= loop.time() - begin
        return part

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        length = 0
        while part := await response.content.readany():
            parts.append(part)
            length += len(part)
            self._check_length(length)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_in_one_piece(self, response: aiohttp.ClientResponse) -> None:
        raw = bytearray()
        while part := await self._part(response):
            self._left_s = self._config.token_timeout_s
            raw += part
            self._check_length(len(raw))
        self._read_whole(bytes(raw))

    def _check_length(self, length: int) -> None:
        if length > _LONGEST_ANSWER:
            problem = f"the answer exceeds {_LONGEST_ANSWER} bytes"
            raise EngineServerError(f"{self._endpoint.where}: {problem}")

    async def _refusal(self, response: aiohttp.ClientResponse) -> EngineError:
        raw = b""
        self._left_s = self._config.token_timeout_s
        try:
            while len(raw) <= _LONGEST_REFUSAL and (part := await self._part(response)):
                raw += part
        except (EngineTimeoutError, EngineConnectionError):
            self._call.check()  # the status says enough, unless it is the request that has ended
        try:
            # an object, or a list of one: Gemini
            wrapped = b'{"body":%s}' % (raw or b"null")
            body: object = parse_json(wrapped, self._endpoint.where)["body"]
        except EngineError:
            body = None
        if isinstance(body, list) and body:
            body = body[0]
        error = (body.get("error") or body) if isinstance(body, dict) else None
        wait = retry_after_s(response.headers.get("Retry-After"))
        return self._endpoint.error(response.status, error, self._request, wait)

    def _check_end(self, done: bool) -> None:
        if self._reader.finish_reason is None and not (done or self._reader.stopped):
            problem = "the stream was cut off before its end"
            raise EngineConnectionError(f"{self._endpoint.where}: {problem}")

    def _read_whole(self, raw: bytes) -> None:
        self._read(raw)
        if not self._reader.answered:
            endpoint = self._endpoint
            raise EngineServerError(f"{endpoint.where}: the answer has no {endpoint.answer_field}")

    def _events(self, events: list[bytes]) -> bool:
        """Read events up to the end of the answer; say whether the upstream said that it is."""
        reader = self._reader
        for event in events:
            if event == b"[DONE]":
                return True
            try:
                lives = self._read(event)
            except EngineServerError:
                # an end that is none ("[DONE]" in quotes, text behind it) takes nothing away
                if reader.finish_reason is None:
                    raise
                return True
            if lives:
                self._left_s = self._config.token_timeout_s
            if reader.stopped:
                return False
        return reader.ended

    def _read(self, event: bytes) -> bool:
        data = parse_json(event, self._endpoint.where)
        if error := data.get("error"):
            raise self._endpoint.error(None, error, self._request)
        return self._reader.read(data)


def _let_go(response: aiohttp.ClientResponse) -> None:
    if response.content.at_eof():
        response.release()
    else:
        response.close()  # cuts the socket: the upstream sees that nobody listens


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, if it comes at once; else the connection is closed."""
    if response.content.at_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_DRAIN_S):
            while await response.content.readany():
                pass
