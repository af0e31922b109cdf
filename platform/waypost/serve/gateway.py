"""The gateway: OpenAI's API over a router and a pool of LLMs. No Ray here.

`Gateway` is the ASGI application. It reads a request, has it decided, asks the LLMs of the
ranking in turn, and writes the answer; where router and LLMs run is the clients' business.
"""

from __future__ import annotations

import logging
import secrets as random_ids
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from waypost.contracts.errors import EngineError, EngineServerError, WaypostError
from waypost.contracts.generation import Usage
from waypost.serve.access import ClientKeys
from waypost.serve.answers import DONE, ChatFormat, TextFormat, dumps, event, usage_body
from waypost.serve.bodies import FeedbackBody
from waypost.serve.clients import LLMClient, RouterClient
from waypost.serve.decisions import Decisions, FeedbackStore, Remembered
from waypost.serve.dispatch import Decided, Dispatcher, add
from waypost.serve.failover import ExhaustedError, Failure, Opened
from waypost.serve.gate import Gate
from waypost.serve.http import ClientGoneError, Exchange, Receive, Send
from waypost.serve.logs import where_raised
from waypost.serve.metrics import Metrics
from waypost.serve.openapi import document
from waypost.serve.parsing import Call, Parser, read_body
from waypost.serve.plan import Plan
from waypost.serve.problems import Problem, engine_problem, problem_of
from waypost.serve.settings import AUTO, UserConfig

logger = logging.getLogger(__name__)

Handler = Callable[[Exchange, str], Awaitable[None]]

OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})
"""Answered without a key."""

MAX_FEEDBACK_BYTES = 64 * 1024


class Gateway:
    """The ASGI application.

    Args:
        plan: The graph.
        router: How to reach the routers.
        llms: How to reach each LLM of the plan.
        keys: Keys of the clients; None asks for none.
    """

    def __init__(
        self,
        plan: Plan,
        router: RouterClient,
        llms: Mapping[str, LLMClient],
        keys: ClientKeys | None = None,
    ) -> None:
        limits = plan.limits
        self.plan = plan
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(plan, router, llms, self._failed)
        self.gate = Gate(limits.max_in_flight, limits.max_queued, limits.queue_timeout_s)
        self.metrics.watch(
            lambda: self.gate.in_flight,
            lambda: self.gate.waiting,
            lambda: len(self.dispatcher.circuit.resting()),
        )
        self._keys = keys
        self._parser = Parser(plan)
        self._decisions = Decisions(plan.remember_decisions)
        self._feedback: FeedbackStore | None = None
        if plan.feedback_dir is not None:
            folder = Path(plan.feedback_dir)
            self._feedback = FeedbackStore(folder, keep_queries=plan.log_queries)
        self._openapi = dumps(document(plan))
        self._handlers: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._admitted(self._chat)},
            "/v1/completions": {"POST": self._admitted(self._completion)},
            "/v1/route": {"POST": self._admitted(self._route)},
            "/v1/feedback": {"POST": self._rate},
            "/v1/models": {"GET": self._list_models},
            "/healthz": {"GET": self._health},
            "/metrics": {"GET": self._show_metrics},
            "/openapi.json": {"GET": self._describe},
        }

    async def start(self) -> None:
        """Start what runs in this process.

        Raises:
            WaypostError: an engine or a router cannot be had.
        """
        await self.dispatcher.start()

    async def close(self) -> None:
        """Close what runs in this process."""
        await self.dispatcher.close()

    def configure(self, config: UserConfig) -> None:
        """Apply policy and prices without a restart; see `Dispatcher.configure`."""
        self.dispatcher.configure(config)

    # -- ASGI ---------------------------------------------------------------------------------

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(Exchange(scope, receive, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _serve(self, http: Exchange) -> None:
        request_id = random_ids.token_hex(12)
        http.extra_headers["x-waypost-request-id"] = request_id
        endpoint = http.path if http.path in self._handlers else "other"
        try:
            try:
                await self._handler(http)(http, request_id)
            except Problem as problem:
                await http.reply_problem(problem)
            except WaypostError as error:
                await http.reply_problem(problem_of(error))
        except ClientGoneError:
            self.metrics.request(endpoint, 499)
            return
        # The edge of the process: a fault of ours is logged by an id, and shown only as that.
        except Exception as error:  # noqa: BLE001
            logger.error("request %s failed: %s", request_id, where_raised(error))  # noqa: TRY400
            if http.begun:
                raise  # the server cuts the connection: the answer is not complete
            message = f"the server failed on this request; its id is {request_id}"
            await http.reply_problem(Problem(500, message, code="internal_error"))
        self.metrics.request(endpoint, http.status)

    def _handler(self, http: Exchange) -> Handler:
        methods = self._handlers.get(http.path)
        if methods is None:
            known = ", ".join(self._handlers)
            raise Problem(404, f"nothing is here; there are: {known}", code="not_found")
        method = "GET" if http.method == "HEAD" else http.method
        if method not in methods:
            allowed = ", ".join(methods)
            raise Problem(
                405,
                f"method {http.method[:16]} is not allowed here; expected {allowed}",
                code="method_not_allowed",
                headers={"allow": allowed},
            )
        if self._keys is not None and http.path not in OPEN_PATHS:
            self._keys.check(http.headers.get("authorization"))
        return methods[method]

    def _admitted(self, handler: Handler) -> Handler:
        async def admitted(http: Exchange, request_id: str) -> None:
            async with self.gate.admit():
                await handler(http, request_id)

        return admitted

    async def _body(self, http: Exchange) -> bytes:
        return await http.body(self.plan.limits.max_body_bytes, self.plan.limits.body_timeout_s)

    # -- answers ------------------------------------------------------------------------------

    async def _chat(self, http: Exchange, request_id: str) -> None:
        begin = time.perf_counter()
        call = self._parser.chat(await self._body(http), http.headers, request_id)
        await http.until_gone(lambda: self._answer(http, call, ChatFormat, begin))

    async def _completion(self, http: Exchange, request_id: str) -> None:
        begin = time.perf_counter()
        call = self._parser.completion(await self._body(http), http.headers, request_id)
        await http.until_gone(lambda: self._answer(http, call, TextFormat, begin))

    async def _answer(
        self, http: Exchange, call: Call, form: type[ChatFormat], begin: float
    ) -> None:
        decided = await self._decide(http, call)
        try:
            opened = await self.dispatcher.open(call, decided.decision, whole=not call.stream)
        except ExhaustedError as error:
            http.extra_headers["x-waypost-attempts"] = len(error.failures)
            raise
        self._tell(http, call, decided, opened)
        if call.stream:
            await self._stream(http, call, decided, opened, form, begin)
        else:
            await self._whole(http, call, decided, opened, form)

    async def _whole(
        self,
        http: Exchange,
        call: Call,
        decided: Decided,
        opened: Opened,
        form: type[ChatFormat],
    ) -> None:
        answers = await self.dispatcher.answers(opened)
        usage = add({i: answer.usage for i, answer in enumerate(answers)})
        told = self._account(call, decided, opened, usage)
        await http.reply(200, form(call.request_id, opened.model).whole(answers, told))

    async def _stream(
        self,
        http: Exchange,
        call: Call,
        decided: Decided,
        opened: Opened,
        form: type[ChatFormat],
        begin: float,
    ) -> None:
        writer = form(call.request_id, opened.model, tell_usage=call.include_usage)
        usages: dict[int, Usage] = {}
        try:
            async with aclosing(opened.pieces) as lists:
                async for pieces in lists:
                    if not http.begun:
                        self.metrics.first_token(opened.model, time.perf_counter() - begin)
                        await http.begin_events()
                    for index, chunk in pieces:
                        if chunk.usage is not None:
                            usages[index] = chunk.usage
                    await http.event(b"".join(writer.events(i, chunk) for i, chunk in pieces))
            if len(usages) < len(call.requests):
                raise EngineServerError("the answer ended without its last part")
        except EngineError as error:
            await self._break_off(http, opened, error)
            self._account(call, decided, opened, add(usages))
            return
        told = self._account(call, decided, opened, add(usages))
        last = writer.usage_event(told) if call.include_usage else b""
        await http.end_events(last + DONE)

    async def _break_off(self, http: Exchange, opened: Opened, error: EngineError) -> None:
        """End a stream with an error event: too late for another model, never silent."""
        self.dispatcher.broke_off(opened.model, error)
        self.metrics.broken_stream(opened.model)
        logger.warning("%s broke off an answer: %s", opened.model, error)
        await http.end_events(event(dumps(engine_problem(error).body)))

    async def _decide(self, http: Exchange, call: Call) -> Decided:
        decided = await self.dispatcher.decide(call)
        decision = decided.decision
        self.metrics.decision(decision.router, decision.model, decided.seconds)
        http.extra_headers |= {
            "x-waypost-router": decision.router,
            "x-waypost-decision-ms": f"{1e3 * decided.seconds:.3f}",
            "x-waypost-reason": decision.reason,
        }
        return decided

    def _tell(self, http: Exchange, call: Call, decided: Decided, opened: Opened) -> None:
        decision = decided.decision
        cost = decision.cost_usd.get(opened.model)
        ignored = () if self._honours_all(opened.model) else call.ignorable
        http.extra_headers |= {
            "x-waypost-model": opened.model,
            "x-waypost-attempts": opened.attempts,
            "x-waypost-confidence": _shown(decision.confidence),
            "x-waypost-cost-usd": _shown(cost),
            "x-waypost-ignored": ", ".join(ignored) or None,
        }
        if opened.model != decision.model:
            reason = f"{decision.model} did not answer; {decision.reason}"
            http.extra_headers["x-waypost-reason"] = reason

    def _honours_all(self, model: str) -> bool:
        return any(served.takes_parts for served in self.plan.models if served.name == model)

    def _account(
        self, call: Call, decided: Decided, opened: Opened, usage: Usage
    ) -> dict[str, Any]:
        """Count an answer, remember it for feedback, and return its usage as it is told."""
        cost = self.dispatcher.cost_usd(opened.model, usage)
        self.metrics.usage(opened.model, usage, cost)
        remembered = Remembered(
            call.query, decided.decision, opened.model, usage, cost, time.time()
        )
        self._decisions.remember(call.request_id, remembered)
        return usage_body(
            usage,
            {
                "cost_usd": cost,
                "model": opened.model,
                "router": decided.decision.router,
                "attempts": opened.attempts,
                "decision_ms": round(1e3 * decided.seconds, 3),
                "request_id": call.request_id,
            },
        )

    def _failed(self, failure: Failure) -> None:
        self.metrics.failover(failure.model, failure.reason)
        logger.warning("%s did not answer (%s)", failure.model, failure.reason)

    # -- the other endpoints ------------------------------------------------------------------

    async def _route(self, http: Exchange, request_id: str) -> None:
        call = self._parser.route(await self._body(http), http.headers, request_id)
        decided = await self._decide(http, call)
        http.extra_headers["x-waypost-model"] = decided.decision.model
        await http.reply_json(
            {
                **decided.decision.to_dict(),
                "request_id": request_id,
                "decision_ms": round(1e3 * decided.seconds, 3),
                "route_on": self.plan.route_on,
                "characters": len(call.query["query"]),
            }
        )

    async def _rate(self, http: Exchange, request_id: str) -> None:
        body, _ = read_body(
            FeedbackBody, await http.body(MAX_FEEDBACK_BYTES, self.plan.limits.body_timeout_s)
        )
        if self._feedback is None:
            raise Problem(404, "feedback is not kept here: set feedback_dir", code="no_feedback")
        rated = body.request_id.removeprefix("chatcmpl-").removeprefix("cmpl-")
        remembered = self._decisions.get(rated)
        if remembered is None:
            raise Problem(
                404,
                f"request_id: not among the latest {self.plan.remember_decisions} answers",
                param="request_id",
                code="unknown_request",
            )
        await self._feedback.add(rated, remembered, body.rating, body.comment)
        await http.reply_json({"request_id": rated, "model": remembered.model, "kept": True})

    async def _list_models(self, http: Exchange, request_id: str) -> None:
        routers = [(AUTO, "router"), *((name, "router") for name in self.plan.router_names)]
        llms = [(model.name, "llm") for model in self.plan.models]
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "waypost", "kind": kind}
            for name, kind in (*routers, *llms)
        ]
        await http.reply_json({"object": "list", "data": data})

    async def _health(self, http: Exchange, request_id: str) -> None:
        await http.reply_json({"status": "ok"})

    async def _show_metrics(self, http: Exchange, request_id: str) -> None:
        await http.reply(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")

    async def _describe(self, http: Exchange, request_id: str) -> None:
        await http.reply(200, self._openapi)


async def _lifespan(receive: Receive, send: Send) -> None:
    # start and close are the owner's: it calls them where a failure can be reported
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"



