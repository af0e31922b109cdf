"""The gateway: OpenAI's API over a router and a pool of LLMs. This module does not use Ray.

`Gateway` is the ASGI application. It reads a request, asks the router, asks the LLMs of the ranking
in turn, and writes the answer. The backend clients know where router and LLMs run.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as random_ids
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

from waypost.contracts.errors import EngineError, WaypostError
from waypost.feedback import Writer
from waypost.serve.backends.base import RouterClient
from waypost.serve.backends.dispatcher import Dispatcher, Reach
from waypost.serve.backends.failures import Failure
from waypost.serve.backends.messages import StaleDecisionError
from waypost.serve.backends.passing import Passing
from waypost.serve.gateway.access import ClientKeys
from waypost.serve.gateway.closing import Closing
from waypost.serve.gateway.cors import allowed, preflight
from waypost.serve.gateway.errors import Problem, problem_of
from waypost.serve.gateway.feedback import MAX_FEEDBACK_BYTES, Recording
from waypost.serve.gateway.gauges import Gauges
from waypost.serve.gateway.graph import Graph
from waypost.serve.gateway.http import (
    Arrivals,
    ClientGoneError,
    Exchange,
    Gate,
    Receive,
    Send,
)
from waypost.serve.gateway.looking import ANY_MODEL, CHAT, MODEL, Looking
from waypost.serve.gateway.metrics import PAGE, Metrics
from waypost.serve.gateway.requests import Call, Parser
from waypost.serve.gateway.responses import ChatFormat, TextFormat
from waypost.serve.logs import where_raised
from waypost.serve.plan import Plan

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange, str], Awaitable[None]]

OPEN_PATHS = frozenset({"/", "/docs", "/healthz", "/readyz", "/openapi.json", CHAT})
"""Endpoints that need no API key: a browser sends none. The pages hold no data, and the chat has a
login of its own."""

ANY_METHOD = "*"

METRICS_PATH = "/metrics"

SETTLE_S = 10.0
SETTLE_POLL_S = 0.1
"""A changed config reaches gateway and router one after the other. In between, a request whose
decision names only models that the other side does not have is decided again."""

FEWEST_ARRIVALS = 1024
"""Least bound of concurrently arriving bodies, also where ``max_in_flight`` is lower. In a burst of
requests whose bodies have arrived unread, the surplus must get 429, not 408 for a slow body."""

OPEN_HEADER = "x-waypost-open"
"""Response header of a stopping gateway: number of requests still in flight."""


class Gateway:
    """The ASGI application.

    Args:
        plan: The graph.
        router: Client of the routers.
        reach: Builds the client of an LLM of the plan.
        keys: Accepted keys of clients; None requires no key.
        feedback: Writes the folder of feedback; None writes it from here.
        chat: Answers requests to the chat page; None has none.
        figures: Folder in which the gateways of the machine count; None counts in memory.
    """

    def __init__(
        self,
        plan: Plan,
        router: RouterClient,
        reach: Reach,
        keys: ClientKeys | None = None,
        feedback: Writer | None = None,
        chat: Passing | None = None,
        figures: Path | None = None,
    ) -> None:
        limits = plan.limits
        self.limits = limits
        self.metrics = Metrics(figures)
        self._router = router
        self._reach = reach
        self._recording = Recording(plan, router, self.metrics, feedback)
        dispatcher = Dispatcher(plan, router, reach, self._failed, on_hedge=self.metrics.hedge)
        self._graph = Graph(dispatcher, self.metrics, self._recording)
        self._leaving: set[asyncio.Task[None]] = set()
        self.closing = Closing()
        self.gate = Gate(limits.max_in_flight, limits.max_queued, limits.queue_timeout_s)
        self._arrivals = Arrivals(max(limits.max_in_flight, FEWEST_ARRIVALS))
        self.metrics.begin(dispatcher.llms)
        gauges = Gauges(self.gate, plan.metrics.budget_usd_per_day)
        self.metrics.watch(
            lambda counters: gauges.set(counters, self.dispatcher, self._recording.lost)
        )
        self._keys = keys
        looking = Looking(lambda: self._graph, keys, self.closing, self._recording.recent)
        self._open = {*OPEN_PATHS, *([METRICS_PATH] if plan.metrics.access == "open" else [])}
        self._handlers: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._admitted(self._chat)},
            "/v1/completions": {"POST": self._admitted(self._completion)},
            "/v1/route": {"POST": self._admitted(self._route)},
            "/v1/feedback": {"POST": self._rate},
            "/v1/turns": {"DELETE": self._forget_turns},
            "/v1/models": {"GET": looking.list_models},
            ANY_MODEL: {"GET": looking.show_model},
            "/v1/status": {"GET": looking.status},
            "/v1/decisions": {"GET": looking.decisions},
            "/healthz": {"GET": self._health},
            "/readyz": {"GET": looking.readiness},
            METRICS_PATH: {"GET": self._show_metrics},
            "/openapi.json": {"GET": looking.describe},
            "/docs": {"GET": looking.docs},
            "/": {"GET": looking.home},
        }
        self._chat_page = chat
        if chat is not None:
            self._handlers[CHAT] = {ANY_METHOD: self._pass_to_chat}

    async def start(self) -> None:
        """Start the engines and routers of this process.

        Raises:
            WaypostError: an engine or a router cannot be loaded, or the folder of feedback or
                decisions cannot be written.
        """
        await self._recording.start()
        await self.dispatcher.start()
        await self.metrics.start()

    async def close(self) -> None:
        """Close the engines and routers of this process."""
        for leaving in self._leaving:
            leaving.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._recording.settle()  # needs the routers
        await self.dispatcher.close()
        await self.close_records()

    async def close_records(self) -> None:
        """Write the feedback and decisions that wait in memory; further ones are lost."""
        await self._recording.close()
        self.metrics.close()

    @property
    def plan(self) -> Plan:
        """The graph in force."""
        return self._graph.plan

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher of the plan in force."""
        return self._graph.dispatcher

    async def adopt(self, plan: Plan) -> None:
        """Serve further requests by a changed plan; requests in flight end by the earlier one.

        `Limits` and the accepted keys do not change.

        Raises:
            WaypostError: a router cannot be loaded; the earlier plan stays in force.
        """
        earlier = self.dispatcher
        dispatcher = Dispatcher(
            plan, self._router, self._reach, self._failed, earlier, self.metrics.hedge
        )
        await dispatcher.start()
        self._graph = Graph(dispatcher, self.metrics, self._recording)
        self._recording.adopt(plan)
        self.metrics.begin(dispatcher.llms)
        leaving = asyncio.create_task(earlier.leave(dispatcher))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def stop(self, after_s: float) -> None:
        """Refuse new requests, and end those still in flight after ``after_s`` seconds.

        A stream then ends with an error event, another request with 503.
        """
        self.closing.begin(after_s)

    # -- ASGI ---------------------------------------------------------------------------------

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(Exchange(scope, receive, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, http: Exchange) -> None:
        begin = time.perf_counter()
        request_id = random_ids.token_hex(12)
        http.extra_headers["x-waypost-request-id"] = request_id
        endpoint = self._endpoint(http.path)
        try:
            try:
                if http.direct:  # as Serve's proxy does
                    own = http.headers.get("x-request-id", request_id)
                    http.extra_headers["x-request-id"] = own
                if not await self._cross_origin(http):
                    await self._handler(http, endpoint)(http, request_id)
            except Problem as problem:
                await http.reply_problem(problem)
            except WaypostError as error:
                await http.reply_problem(problem_of(error))
        except ClientGoneError:
            self.metrics.request(endpoint, 499, time.perf_counter() - begin)
            return
        # Last handler: an internal error is logged with an id, and the client sees only the id.
        except Exception as error:
            logger.error("request %s failed: %s", request_id, where_raised(error))
            if http.begun:
                raise  # the server cuts the connection: the answer is not complete
            message = f"the server failed on this request; its id is {request_id}"
            await http.reply_problem(Problem(500, message, code="internal_error"))
        self.metrics.request(endpoint, http.status, time.perf_counter() - begin)

    async def _cross_origin(self, http: Exchange) -> bool:
        """Allow a web page of an allowed origin to read the answer; answer its preflight request.

        Returns whether the exchange is over.
        """
        origins = self.plan.cors.allow_origins
        if not origins:
            return False
        http.extra_headers |= allowed(origins, http.headers)
        asked = preflight(origins, http.method, http.headers)
        if asked is not None:
            await http.reply_empty(asked)
        return asked is not None

    def _endpoint(self, path: str) -> str:
        if path in self._handlers:
            return path
        if path.startswith(MODEL):
            return ANY_MODEL
        return CHAT if path.startswith(f"{CHAT}/") and CHAT in self._handlers else "other"

    def _handler(self, http: Exchange, endpoint: str) -> Handler:
        methods = self._handlers.get(endpoint)
        if methods is None:
            known = ", ".join(self._handlers)
            raise Problem(404, f"nothing is here; there are: {known}", code="not_found")
        method = "GET" if http.method == "HEAD" else http.method
        if ANY_METHOD in methods:
            method = ANY_METHOD
        if method not in methods:
            allowed = ", ".join(methods)
            raise Problem(
                405,
                f"method {http.method[:16]} is not allowed here; expected {allowed}",
                code="method_not_allowed",
                headers={"allow": allowed},
            )
        if self._keys is not None and not http.inside and endpoint not in self._open:
            wanted = http.headers.get("authorization")
            self._keys.check(wanted, metrics=endpoint == METRICS_PATH)
        return methods[method]

    def _admitted(self, handler: Callable[[Exchange, str, bytes], Awaitable[None]]) -> Handler:
        async def admitted(http: Exchange, request_id: str) -> None:
            self.closing.check()
            self.gate.check()
            raw = await self._body(http, self.limits.max_body_bytes)
            async with self.gate.admit():
                with self.closing.working(http):
                    await handler(http, request_id, raw)

        return admitted

    async def _body(self, http: Exchange, most: int) -> bytes:
        return await http.body(most, self.limits.body_timeout_s, self._arrivals)

    # -- answers ------------------------------------------------------------------------------

    async def _chat(self, http: Exchange, request_id: str, raw: bytes) -> None:
        begin = time.perf_counter()
        await self._answer(
            http, lambda parser: parser.chat(raw, http.headers, request_id), ChatFormat, begin
        )

    async def _completion(self, http: Exchange, request_id: str, raw: bytes) -> None:
        begin = time.perf_counter()
        await self._answer(
            http, lambda parser: parser.completion(raw, http.headers, request_id), TextFormat, begin
        )

    async def _answer(
        self, http: Exchange, read: Callable[[Parser], Call], form: type[ChatFormat], begin: float
    ) -> None:
        """Answer by the plan in force; retry while router and gateway have different plans."""
        first_stale: float | None = None  # an episode may have run for long before it
        while True:
            graph = self._graph
            call = read(graph.parser)
            work = partial(graph.answering.answer, http, call, form, begin)
            try:
                return await http.until_gone(work)
            except StaleDecisionError:
                first_stale = first_stale or time.perf_counter()
                if time.perf_counter() - first_stale > SETTLE_S:
                    raise
            await asyncio.sleep(SETTLE_POLL_S)

    async def _route(self, http: Exchange, request_id: str, raw: bytes) -> None:
        graph = self._graph
        call = graph.parser.route(raw, http.headers, request_id)
        await graph.answering.explain(http, call)

    def _failed(self, failure: Failure) -> None:
        self.metrics.failover(failure.model, failure.reason)
        logger.warning("%s did not answer (%s)", failure.model, failure.reason)

    # -- the other endpoints ------------------------------------------------------------------

    async def _pass_to_chat(self, http: Exchange, request_id: str) -> None:
        """Let the chat page answer; see `Passing`."""
        page, settings = self._chat_page, self.plan.chat
        assert page is not None  # else it is no endpoint
        assert settings is not None
        self.closing.check()
        raw = await http.upload(
            settings.max_upload_mb * 1_000_000, self.limits.body_timeout_s, self._arrivals
        )
        with self.closing.working(http):
            try:
                await http.until_gone(partial(http.pass_on, page, raw))
            except EngineError as error:
                if http.begun:  # a part of a page cannot become an error: the server cuts it off
                    raise RuntimeError("the chat page broke off") from error
                message = f"the chat page cannot be reached now: {error}; load it again in a moment"
                wait = {"retry-after": "2"}
                raise Problem(503, message, code="chat_unavailable", headers=wait) from None

    async def _forget_turns(self, http: Exchange, request_id: str) -> None:
        await http.reply_json({"deleted": self._recording.forget_turns(http.headers)})

    async def _rate(self, http: Exchange, request_id: str) -> None:
        raw = await self._body(http, MAX_FEEDBACK_BYTES)
        await http.reply_json(await self._recording.take(raw, http.headers))

    async def _health(self, http: Exchange, request_id: str) -> None:
        if self.closing.begun:
            http.extra_headers[OPEN_HEADER] = self.closing.open
            self.closing.check()
        await http.reply_json({"status": "ok"})

    async def _show_metrics(self, http: Exchange, request_id: str) -> None:
        await http.reply(200, await self.metrics.text(), PAGE)


async def _lifespan(receive: Receive, send: Send) -> None:
    # the owner calls start and close, where it can report a failure
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
