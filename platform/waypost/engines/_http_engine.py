"""What engines that call an endpoint share: keys, tries, time-outs, and reading the answer.

aiohttp, because it costs a half to a tenth of httpx's time a request (DECISIONS.md has the
numbers). Every failure is an `EngineError` that names model and host; no exception of the HTTP
library leaves, because some of them hold the request's headers, and so the key.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiohttp

from waypost.contracts.errors import (
    ConfigError,
    EngineError,
    Fault,
)
from waypost.contracts.generation import Answer, Chunk, FinishReason, GenerateRequest, joined
from waypost.engines._http_errors import Retries
from waypost.engines._http_try import Try
from waypost.engines._http_wire import HTTPConfig, Reader
from waypost.engines.base import Engine, collect
from waypost.engines.calls import Call, Calls, Cancelled
from waypost.secrets import KeyRing, Secret, key_ring

logger = logging.getLogger(__name__)


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

    @classmethod
    def provider(cls, config: HTTPConfig) -> str:
        """Return engine and base URL; see `Engine.provider`."""
        return f"{cls.name} {config.base_url.rstrip('/')}"

    def __init__(self, config: HTTPConfig, keys: KeyRing | None = None) -> None:
        self.config = config
        self.calls = Calls(self.name)
        self.answers_whole = config.whole or not config.stream
        self._keys = keys
        self.where = f"{config.model} at {urlsplit(config.base_url).netloc}"
        self.session: aiohttp.ClientSession | None = None

    @abstractmethod
    def _reader(self, request: GenerateRequest) -> Reader:
        """Return what reads the answer to a request."""

    @abstractmethod
    def post(self, request: GenerateRequest, *, stream: bool) -> tuple[str, dict[str, Any]]:
        """See `Endpoint.post`."""

    @abstractmethod
    def key_headers(self, key: Secret | None) -> dict[str, str]:
        """See `Endpoint.key_headers`."""

    @abstractmethod
    def error(
        self,
        status: int | None,
        error: object,
        request: GenerateRequest,
        retry_after_s: float | None = None,
    ) -> EngineError:
        """See `Endpoint.error`."""

    async def start(self) -> None:
        """Read the keys and make the pool; connects nowhere.

        Raises:
            ConfigError: where the service has no key.
        """
        config = self.config
        self._ring = key_ring() if self._keys is None else self._keys
        if config.service is not None and not self._ring.count(config.service):
            problem = f"no key for the service {config.service!r}: set it in API_KEYS"
            raise ConfigError([Fault(f"engine {self.name}, {self.where}", problem)])
        connector = aiohttp.TCPConnector(
            limit=config.max_connections, keepalive_timeout=config.keepalive_s
        )
        limits = aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s)
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=limits,
            headers=config.headers,
            # what an upstream sets for one client's request is not sent with another's
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self.calls.open = True

    async def answer(self, request: GenerateRequest) -> Answer:
        """Answer one request as a whole; see `Engine.answer`."""
        if not self.answers_whole:
            return await collect(self, request)
        return joined(await self._ask_whole(request))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Answer one request; see `Engine.generate`."""
        if not self.config.stream:
            for chunk in await self._ask_whole(request):
                yield chunk
            return
        with self.calls.enter(request, self.config.total_timeout_s) as call:
            reader = self._reader(request)
            retries = Retries(self.config, self._ring)
            started = False
            try:
                while True:
                    key = retries.key()
                    try:
                        tried = Try(self, call, request, reader, key)
                        async with aclosing(tried.stream()) as chunks:
                            async for chunk in chunks:
                                started = True
                                self.calls.output_tokens += 1
                                yield chunk
                        break
                    except EngineError as error:
                        if started:
                            raise
                        wait = self._wait(call, retries, error, key)
                    await call.sleep(wait)
                    reader = self._reader(request)
                yield reader.last("stop" if reader.stopped else None)
            except Cancelled:
                yield reader.last("cancelled")

    async def _ask_whole(self, request: GenerateRequest) -> list[Chunk]:
        """Ask for a whole answer; return what it says, and the last chunk."""
        with self.calls.enter(request, self.config.total_timeout_s) as call:
            reader = self._reader(request)
            retries = Retries(self.config, self._ring)
            try:
                while True:
                    key = retries.key()
                    try:
                        await Try(self, call, request, reader, key).whole()
                        break
                    except EngineError as error:
                        wait = self._wait(call, retries, error, key)
                    await call.sleep(wait)
                    reader = self._reader(request)
                reason: FinishReason | None = "stop" if reader.stopped else None
            except Cancelled:
                reason = "cancelled"
            said = reader.take()
            rest = None if reader.stopped or reason == "cancelled" else reader.rest()
            chunks = [chunk for chunk in (said, rest) if chunk is not None]
            self.calls.output_tokens += len(chunks)
            return [*chunks, reader.last(reason)]

    def _wait(self, call: Call, retries: Retries, error: EngineError, key: Secret | None) -> float:
        """Return the seconds until the next try; raise the error where there is none."""
        wait = retries.wait(error, key)
        if wait is None or _too_late(call, wait):
            raise error
        again = type(error).__name__, error.status, wait
        logger.info("%s: %s (HTTP %s); again in %.2f s", self.where, *again)
        return wait

    async def abort(self, request_id: str) -> None:
        """Close that request's connection; it ends with the finish reason ``cancelled``."""
        self.calls.abort(request_id)

    async def healthy(self) -> bool:
        """Say whether the pool is open. Asks the upstream nothing."""
        return self.calls.open

    async def close(self) -> None:
        """Close every connection; requests end with an EngineConnectionError."""
        self.calls.close()
        session, self.session = self.session, None
        if session is not None:
            await session.close()


def _too_late(call: Call, wait: float) -> bool:
    return call.deadline is not None and asyncio.get_running_loop().time() + wait >= call.deadline
