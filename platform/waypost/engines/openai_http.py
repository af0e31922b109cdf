"""The `openai` engine: any endpoint that speaks OpenAI's HTTP API.

aiohttp, because it costs a half to a tenth of httpx's time a request (DECISIONS.md has the
numbers). Every failure is an `EngineError` that names model and host; no exception of the HTTP
library leaves, because some of them hold the request's headers, and so the key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import Field, field_validator

from waypost.config import StrictModel
from waypost.contracts.errors import (
    ConfigError,
    EngineAuthError,
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineServerError,
    EngineTimeoutError,
    Fault,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.engines._calls import Call, Calls, Cancelled
from waypost.engines._openai_errors import NO_MONEY, stream_status, upstream_error
from waypost.engines._openai_wire import AnswerReader, parse_json, request_body, request_path
from waypost.engines._retry import backoff_s, retry_after_s
from waypost.engines._sse import EventParser
from waypost.engines.base import Engine
from waypost.secrets import KeyRing, Secret, key_ring

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_DRAIN_S = 0.05
"""Wait for the end of the body after ``[DONE]``, so that the connection can be used again."""

_KEY_HEADERS = {"authorization", "proxy-authorization", "api-key", "x-api-key", "cookie"}


class Config(StrictModel):
    """Settings of the `openai` engine."""

    base_url: str
    """Up to and with the version: ``https://api.openai.com/v1``."""

    model: str = Field(min_length=1)
    """The upstream's name of the model."""

    service: str | None = None
    """Whose keys are sent (``API_KEYS``); None sends none."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers; never a key."""

    stream: bool = True
    """False asks the upstream for whole answers, which come as one chunk."""

    include_usage: bool = True
    """Ask for the token counts of a stream. False for an upstream that refuses the question;
    counts are then estimated as a quarter of the characters."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the upstream calls the limit."""

    connect_timeout_s: float = Field(default=5.0, gt=0)
    """To open a connection."""

    first_token_timeout_s: float = Field(default=60.0, gt=0)
    """From sending the request to the first bytes of the answer's body."""

    token_timeout_s: float = Field(default=30.0, gt=0)
    """Between two parts of a stream."""

    total_timeout_s: float = Field(default=600.0, gt=0)
    """The whole call, tries included; a request's ``timeout_s`` may shorten it."""

    max_connections: int = Field(default=256, ge=1)
    """Sockets open at once; further requests wait for one."""

    keepalive_s: float = Field(default=30.0, gt=0)
    """How long an idle socket is kept."""

    max_retries: int = Field(default=2, ge=0)
    """Further tries after a connection loss, 408, 429 or 5xx, before the first token only."""

    retry_base_s: float = Field(default=0.5, ge=0)
    """Longest wait before the first further try; it doubles with each."""

    retry_max_s: float = Field(default=8.0, ge=0)
    """Longest wait; an upstream that asks for more (Retry-After) is not tried again."""

    @field_validator("base_url")
    @classmethod
    def _is_plain_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected a URL such as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("a URL holds no key: put it into API_KEYS and name its service")
        return value.rstrip("/")

    @field_validator("headers")
    @classmethod
    def _holds_no_key(cls, value: dict[str, str]) -> dict[str, str]:
        if found := sorted(name for name in value if name.lower() in _KEY_HEADERS):
            raise ValueError(
                f"{', '.join(found)}: a key goes into API_KEYS, and its service into `service`"
            )
        return value


class OpenAIEngine(Engine):
    """Calls one model of one endpoint.

    A key that is refused or limited rests while another of the service is tried. Retries wait
    with full jitter and for what Retry-After asks; nothing is tried again after the first token.

    Args:
        config: Its settings.
        keys: Where keys come from; default this process's `key_ring`, read at the start.

    Attributes:
        calls: What runs now; its ``output_tokens`` counts the parts passed on.
    """

    name: ClassVar[str] = "openai"

    def __init__(self, config: Config, keys: KeyRing | None = None) -> None:
        self.config = config
        self.calls = Calls(self.name)
        self._keys = keys
        self._where = f"{config.model} at {urlsplit(config.base_url).netloc}"
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Read the keys and make the pool; connects nowhere.

        Raises:
            ConfigError: where the service has no key.
        """
        config = self.config
        self._ring = key_ring() if self._keys is None else self._keys
        if config.service is not None and not self._ring.count(config.service):
            problem = f"no key for the service {config.service!r}: set it in API_KEYS"
            raise ConfigError([Fault(f"engine openai, {self._where}", problem)])
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
            reader = AnswerReader(request)
            retries = _Retries(self.config, self._ring)
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
                    reader = AnswerReader(request)
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
        self, call: Call, request: GenerateRequest, reader: AnswerReader, key: Secret | None
    ) -> AsyncGenerator[Chunk, None]:
        """Call once; yields what the answer adds, without the last chunk."""
        loop = asyncio.get_running_loop()
        first_by = loop.time() + self.config.first_token_timeout_s  # counts the sending too
        response = await self._send(call, request, key)
        try:
            if response.status >= 300:
                raise await self._refusal(call, request, response)
            parts = self._parts(call, response, first_by - loop.time())
            # an upstream that cannot stream may answer in one piece though asked for a stream
            whole = "json" in response.content_type or not self.config.stream
            read = self._whole if whole else self._stream
            events = read(request, reader, parts)
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
            raise EngineConnectionError("the openai engine was closed")
        body = request_body(
            request,
            config.model,
            stream=config.stream,
            max_tokens_field=config.max_tokens_field,
            usage=config.include_usage,
        )
        # redirects are not followed: they would carry the key to another host
        sent = session.post(
            config.base_url + request_path(request),
            json=body,
            headers={"Authorization": f"Bearer {key.reveal()}"} if key else None,
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
        while len(raw) < 65_536:
            part = await self._io(call, response.content.readany(), self.config.token_timeout_s)
            if not part:
                break
            raw += part
        try:
            body: object = parse_json(raw, self._where)
        except EngineError:
            body = None
        error = (body.get("error") or body) if isinstance(body, dict) else None
        wait = retry_after_s(response.headers.get("Retry-After"))
        return upstream_error(self._where, response.status, error, request, wait)

    async def _parts(
        self, call: Call, response: aiohttp.ClientResponse, first_s: float
    ) -> AsyncGenerator[bytes, None]:
        within_s = max(0.001, first_s)
        while part := await self._io(call, response.content.readany(), within_s):
            yield part
            call.check()  # what is buffered already is read without a wait that could end
            within_s = self.config.token_timeout_s

    async def _stream(
        self, request: GenerateRequest, reader: AnswerReader, parts: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[Chunk, None]:
        parser = EventParser()
        async for part in parts:
            for event in parser.feed(part):
                if event == "[DONE]":
                    await _drain(parts)
                    return
                if chunk := self._read(request, reader, event):
                    yield chunk
                if reader.stopped:
                    return
        for event in parser.finish():
            if event != "[DONE]" and (chunk := self._read(request, reader, event)):
                yield chunk
        if reader.finish_reason is None and not reader.stopped:
            raise EngineConnectionError(f"{self._where}: the stream was cut off before its end")

    async def _whole(
        self, request: GenerateRequest, reader: AnswerReader, parts: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[Chunk, None]:
        raw = b"".join([part async for part in parts])
        if chunk := self._read(request, reader, raw):
            yield chunk
        if not reader.answered:
            raise EngineServerError(f"{self._where}: the answer has no choices")

    def _read(
        self, request: GenerateRequest, reader: AnswerReader, event: str | bytes
    ) -> Chunk | None:
        data = parse_json(event, self._where)
        if error := data.get("error"):
            raise upstream_error(self._where, stream_status(error), error, request)
        return reader.read(data)


class _Retries:
    """How often, with which key and after what wait one request is tried."""

    def __init__(self, config: Config, ring: KeyRing) -> None:
        self._config = config
        self._ring = ring
        self._tries = 0
        self._other_keys = ring.count(config.service) - 1 if config.service else 0

    def key(self) -> Secret | None:
        """Return the key of the next try."""
        return self._ring.take(self._config.service) if self._config.service else None

    def wait(self, error: EngineError, key: Secret | None) -> float | None:
        """Return the seconds to wait before another try, or None to give up."""
        if key is not None and self._rests(error, key):
            self._other_keys -= 1
            return 0.0
        # A time-out of our own is not tried again: the wait is what the caller would double.
        ours = isinstance(error, EngineTimeoutError) and error.status is None
        final = isinstance(error, EngineAuthError) or error.status == 404 or NO_MONEY in str(error)
        if not error.retryable or ours or final or self._tries >= self._config.max_retries:
            return None
        wait = backoff_s(self._tries, self._config.retry_base_s, self._config.retry_max_s)
        self._tries += 1
        asked = error.retry_after_s or 0.0
        return max(wait, asked) if asked <= self._config.retry_max_s else None

    def _rests(self, error: EngineError, key: Secret) -> bool:
        """Let a refused or limited key rest; say whether another one can be tried at once."""
        if isinstance(error, EngineAuthError):
            self._ring.refused(key)
        elif isinstance(error, EngineOverloadedError):
            self._ring.limited(key, error.retry_after_s)
        else:
            return False
        service = self._config.service or ""
        return self._other_keys > 0 and self._ring.ready(service) > 0


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


def build(config: Config) -> OpenAIEngine:
    """Make the engine."""
    return OpenAIEngine(config)
