"""Client of the gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp

from waypost.contracts.errors import (
    EngineAuthError,
    EngineConnectionError,
    EngineError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.engines._http_wire import EventParser, parse_json
from waypost.secrets import Secret

CONNECT_S = 5.0
SILENCE_S = 660.0
"""Longest wait for the next bytes: somewhat more than the gateway itself waits for an LLM."""

_DONE = b"[DONE]"


@dataclass(frozen=True)
class Pool:
    """What the gateway serves.

    Attributes:
        llms: Names of the LLMs; routers: of the routers, the default one first.
        waiting: LLMs that load or failed to load.
        version: Of the gateway.
        status: ``ready``, ``loading`` or ``failed``.
        lam: Cost weight where a request sets none.
        route_on: What is routed on where a request does not say it; ``top_k``: how many earlier
            turns the mode ``retrieval`` takes.
        feedback: Whether votes are kept.
    """

    llms: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    waiting: frozenset[str] = field(default_factory=frozenset)
    version: str = ""
    status: str = "ready"
    lam: float = 0.0
    route_on: str = "current_only"
    top_k: int = 3
    feedback: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that can be asked."""
        return ("auto", *(name for name in self.routers if name != "auto"), *self.llms)

    @property
    def ready_llms(self) -> tuple[str, ...]:
        """The LLMs that can answer now."""
        return tuple(name for name in self.llms if name not in self.waiting)


class GatewayClient:
    """Calls one gateway. Every error is one sentence.

    Args:
        url: Where the gateway listens, with or without ``/v1``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._open: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._open is None:  # belongs to the event loop of its first call
            self._open = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S
                ),
            )
        return self._open

    async def close(self) -> None:
        """Close the connections."""
        session, self._open = self._open, None
        if session is not None:
            await session.close()

    async def pool(self, key: Secret | None = None) -> Pool:
        """Return what the gateway serves.

        Raises:
            EngineError: it cannot be reached, or refuses the key.
        """
        try:
            return _pool(await self._json("GET", "/v1/status", key))
        except EngineRequestError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        listed = (await self._json("GET", "/v1/models", key)).get("data", [])
        kinds: dict[str, list[str]] = {"llm": [], "router": []}
        for model in listed:
            kinds.setdefault(model.get("kind", "llm"), []).append(str(model["id"]))
        return Pool(tuple(kinds["llm"]), tuple(kinds["router"]))

    async def route(self, body: Mapping[str, Any], key: Secret | None = None) -> dict[str, Any]:
        """Return a decision without an answer.

        Raises:
            EngineError: there is none.
        """
        return await self._json("POST", "/v1/route", key, body)

    async def rate(self, body: Mapping[str, Any], key: Secret | None = None) -> dict[str, Any]:
        """Send one event of feedback.

        Raises:
            EngineError: it is not kept.
        """
        return await self._json("POST", "/v1/feedback", key, body)

    async def stream(
        self, body: Mapping[str, Any], key: Secret | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Ask for an answer and return the events of its stream.

        Closing the generator closes the connection, at which the gateway stops the LLM.

        Raises:
            EngineError: there is no answer, or it broke off.
        """
        parser = EventParser()
        async with self._sent("POST", "/v1/chat/completions", key, body) as response:
            async for part in response.content.iter_any():
                for data in parser.feed(part):
                    if data == _DONE:
                        return
                    yield _event(data)
        raise EngineConnectionError("the answer broke off: the gateway closed the connection")

    async def _json(
        self, method: str, path: str, key: Secret | None, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        async with self._sent(method, path, key, body) as response:
            return parse_json(await response.read(), f"{self.url}{path}")

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, key: Secret | None, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(
                method, f"{self.url}{path}", json=body, headers=_headers(key), allow_redirects=False
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise _refusal(response.status, await response.read())
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> EngineError:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return EngineConnectionError(
                f"the gateway at {self.url} cannot be reached; is it running?"
            )
        if isinstance(error, aiohttp.InvalidURL):
            return EngineConnectionError(f"{self.url} is no URL of a gateway; expected http://...")
        if isinstance(error, TimeoutError):
            return EngineTimeoutError(f"the gateway said nothing for {SILENCE_S:g} s")
        return EngineConnectionError("the answer broke off: the connection to the gateway is lost")


def _headers(key: Secret | None) -> dict[str, str]:
    return {} if key is None else {"authorization": f"Bearer {key.reveal()}"}


def _event(data: bytes) -> dict[str, Any]:
    event = parse_json(data, "an event of the answer")
    if error := event.get("error"):
        message = error.get("message") if isinstance(error, dict) else error
        raise EngineServerError(str(message))
    return event


def _refusal(status: int, body: bytes) -> EngineError:
    """Return what a response with an error status says; never its raw body."""
    try:
        error = parse_json(body, "the answer").get("error")
    except EngineServerError:
        error = None
    told = error.get("message") if isinstance(error, dict) else None
    message = str(told or f"the gateway answered with HTTP status {status}")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return EngineAuthError(f"the gateway asks for a key: {message}", status=status)
    kind = EngineServerError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else EngineRequestError
    return kind(message, status=status)


def _pool(told: Mapping[str, Any]) -> Pool:
    models = told.get("models") or ()
    routers = sorted(told.get("routers") or (), key=lambda one: not one.get("default"))
    waiting = {one["name"] for one in models if one.get("state", "ready") != "ready"}
    return Pool(
        llms=tuple(one["name"] for one in models),
        routers=tuple(one["name"] for one in routers),
        waiting=frozenset(waiting),
        version=str(told.get("version", "")),
        status=str(told.get("status", "ready")),
        lam=float(told.get("lambda") or 0.0),
        route_on=str(told.get("route_on", "current_only")),
        top_k=int(told.get("top_k") or 3),
        feedback=bool(told.get("feedback", True)),
    )
