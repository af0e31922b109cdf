"""Answer a parsed call: decide, ask LLMs, write the answer, count it, keep it for feedback."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from waypost.contracts.errors import EngineError, EngineServerError
from waypost.contracts.generation import Chunk, Usage
from waypost.serve.backends.asking import Opened, Whole
from waypost.serve.backends.dispatcher import PINNED, Decided, Dispatcher, add
from waypost.serve.backends.episodes import BrokenOffError, Progress
from waypost.serve.backends.failures import ExhaustedError
from waypost.serve.backends.hedging import Hedged
from waypost.serve.config import AUTO
from waypost.serve.gateway.errors import engine_problem
from waypost.serve.gateway.feedback import Record, Recording
from waypost.serve.gateway.http import Exchange
from waypost.serve.gateway.metrics import Metrics
from waypost.serve.gateway.requests import Call
from waypost.serve.gateway.responses import (
    DONE,
    ChatFormat,
    chunked,
    dumps,
    event,
    told_usage,
    usage_body,
)
from waypost.serve.gateway.telling import (
    REASON,
    Telling,
    decision_told,
    session_told,
    shown,
)
from waypost.serve.plan import Plan

logger = logging.getLogger(__name__)


class Answering:
    """Answers parsed calls.

    Args:
        plan: The graph.
        dispatcher: Decides and calls LLMs.
        metrics: Counters to update.
        recording: Keeps what becomes of requests.
    """

    def __init__(
        self, plan: Plan, dispatcher: Dispatcher, metrics: Metrics, recording: Recording
    ) -> None:
        self._dispatcher = dispatcher
        self._telling = Telling(plan, dispatcher)
        self._providers = dispatcher.providers
        self._metrics = metrics
        self._recording = recording
        self._routers = {AUTO: plan.router_names[0]}

    async def answer(
        self, http: Exchange, call: Call, form: type[ChatFormat], begin: float
    ) -> None:
        """Write the answer of the first LLM of the ranking that gives one, or of an episode.

        Args:
            http: The exchange to write to.
            call: The call.
            form: Format of the answer.
            begin: ``time.perf_counter`` at the arrival of the request.

        Raises:
            WaypostError: no decision, or no LLM answered; nothing was written.
            ClientGoneError: the client disconnected.
        """
        decided = await self._decide(http, call)
        call = decided.call(call)
        in_steps = self._dispatcher.takes_steps(call)
        write = self._in_steps if in_steps else self._by_ranking
        record = Record(self._recording, call, decided, begin)
        try:
            await write(http, call, decided, form, record)
        except BaseException as error:
            if isinstance(error, ExhaustedError):
                http.extra_headers["x-waypost-attempts"] = len(error.failures)
            record.fail(error)
            raise

    async def _by_ranking(
        self, http: Exchange, call: Call, decided: Decided, form: type[ChatFormat], record: Record
    ) -> None:
        if not call.stream:
            await self._whole(http, call, decided, form, record)
            return
        opened = await self._dispatcher.open(call, decided.decision)
        self._telling.answer(http, call, decided, opened.model, opened.attempts)
        self._telling.why(http, decided, opened)
        await self._stream(http, call, decided, opened, form, record)

    async def _whole(
        self, http: Exchange, call: Call, decided: Decided, form: type[ChatFormat], record: Record
    ) -> None:
        found = await self._dispatcher.whole(call, decided.decision)
        self._telling.answer(http, call, decided, found.model, found.attempts)
        self._telling.why(http, decided, found)
        usages = {i: answer.usage for i, answer in enumerate(found.answers)}
        ends = [answer.finish_reason for answer in found.answers]
        told = self._account(http, call, decided, found, usages, record, _only(ends))
        if found.hedged is not None:
            told["waypost"]["hedge"] = self._hedge(self._router_of(call), found.hedged)
        http.extra_headers["x-waypost-actual-cost-usd"] = shown(told["waypost"]["cost_usd"])
        writer = form(call.request_id, found.model, provider=self._providers.tag(found.model))
        await http.reply(200, writer.whole(found.answers, told))

    def _hedge(self, router: str, hedged: Hedged) -> dict[str, Any]:
        """Count what the call that lost a hedge used, where that is known; return what is told."""
        loser = next(name for name in hedged.models if name != hedged.winner)
        cost = None
        if hedged.lost is not None:
            cost = self._dispatcher.cost_usd(loser, hedged.lost)
            self._metrics.usage(router, loser, hedged.lost, cost)
        return {"models": list(hedged.models), "lost_cost_usd": cost}

    async def _stream(
        self,
        http: Exchange,
        call: Call,
        decided: Decided,
        opened: Opened,
        form: type[ChatFormat],
        record: Record,
    ) -> None:
        writer = form(
            call.request_id,
            opened.model,
            tell_usage=call.include_usage,
            provider=self._providers.tag(opened.model),
        )
        usages: dict[int, Usage] = {}
        ends: list[str | None] = []
        try:
            async with aclosing(opened.pieces) as lists:
                async for pieces in lists:
                    if not http.begun:
                        self._first_token(opened.model, record)
                        await self._begin_events(http, call, decided, writer)
                    for index, chunk in pieces:
                        if chunk.usage is not None:
                            usages[index] = chunk.usage
                            ends.append(chunk.finish_reason)
                    await http.event(b"".join(writer.events(i, chunk) for i, chunk in pieces))
            if len(usages) < len(call.requests):
                raise EngineServerError("the answer ended without its last part")
        except EngineError as error:
            await self._break_off(http, opened.model, error)
            self._account(http, call, decided, opened, usages, record, error=error)
            return
        if len(usages) == 1 and record.first_token_s is not None:
            seconds = time.perf_counter() - record.begin - record.first_token_s
            self._metrics.stream(opened.model, seconds, usages[0].output_tokens)
        told = self._account(http, call, decided, opened, usages, record, _only(ends))
        last = writer.usage_event(told) if call.include_usage else b""
        await http.end_events(last + DONE)

    async def _in_steps(
        self, http: Exchange, call: Call, decided: Decided, form: type[ChatFormat], record: Record
    ) -> None:
        """Write the answer of an episode.

        A stream begins when the answer is accepted, or with its first call where the client asked
        for progress.
        """
        writing = partial(
            form, call.request_id, tell_usage=call.include_usage, created=int(time.time())
        )
        router = self._router_of(call)
        writer = None  # of the answer
        beginning = asyncio.Lock()  # calls of one step start at the same time
        over = False

        async def begin_events(model: str | None = None, attempts: int | None = None) -> None:
            async with beginning:
                if not http.begun:
                    self._telling.answer(http, call, decided, model, attempts)
                    head = writing(model or decided.decision.model)
                    await self._begin_events(http, call, decided, head)

        async def passed(model: str, attempts: int, chunks: Sequence[Chunk]) -> None:
            nonlocal writer
            if writer is None:
                self._first_token(model, record)
                writer = writing(model, provider=self._providers.tag(model))
                await begin_events(model, attempts)
            await http.event(b"".join([writer.events(0, chunk) for chunk in chunks]))

        async def reported(progress: Progress) -> None:
            if not over:  # a cancelled call may end late
                await begin_events()
                await http.event(
                    writing(progress.model).waypost_event({"step": progress.to_dict()})
                )

        try:
            ended = await self._dispatcher.episode(
                call,
                decided.decision,
                partial(self._metrics.episode_call, router),
                passed if call.stream else None,
                reported if call.stream and call.progress else None,
            )
        except BrokenOffError as broken:
            await self._break_off(http, broken.model, broken.error)
            record.end(broken.model, error=f"{type(broken.error).__name__}: {broken.error}")
            return
        finally:
            over = True
        usage, cost = ended.answer.usage, ended.cost_usd
        self._metrics.episode(router, ended.result.ended_by)
        self._metrics.answer(router, ended.model, self._dispatcher.dearest_usd(usage))
        record.end(ended.model, ended.attempts, usage, cost, ended.answer.finish_reason)
        told = self._usage(call, decided, ended.model, ended.attempts, usage, cost)
        told["waypost"] |= ended.told()
        alone = usage if len(ended.result.calls) == 1 else None
        told["waypost"] |= self._telling.way(
            http, call, decided, ended.model, record, ended.failed, alone
        )
        if not call.stream:
            self._telling.answer(http, call, decided, ended.model, ended.attempts)
            http.extra_headers["x-waypost-actual-cost-usd"] = shown(cost)
            whole = writing(ended.model, provider=self._providers.tag(ended.model))
            await http.reply(200, whole.whole([ended.answer], told))
            return
        if writer is None:
            for chunk in chunked(ended.answer):
                await passed(ended.model, ended.attempts, [chunk])
        last = writing(ended.model).usage_event(told) if call.include_usage else b""
        await http.end_events(last + DONE)

    def _first_token(self, model: str, record: Record) -> None:
        record.first_token_s = time.perf_counter() - record.begin
        self._metrics.first_token(model, record.first_token_s)

    async def _begin_events(
        self, http: Exchange, call: Call, decided: Decided, writer: ChatFormat
    ) -> None:
        await http.begin_events()
        if call.explain:
            await http.event(writer.waypost_event({"decision": decision_told(call, decided)}))

    async def _break_off(self, http: Exchange, model: str, error: EngineError) -> None:
        """End a stream with an error event: it is too late for failover."""
        self._metrics.broken_stream(model)
        logger.warning("%s broke off an answer: %s", model, error)
        await http.end_events(event(dumps(engine_problem(error).body)))

    def _router_of(self, call: Call) -> str:
        """Return the name of a call's router in the file, for the metrics."""
        return PINNED if call.router is None else self._routers.get(call.router, call.router)

    async def _decide(self, http: Exchange, call: Call) -> Decided:
        decided = await self._dispatcher.decide(call)
        decision = decided.decision
        self._metrics.decision(self._router_of(call), decision, decided.seconds)
        http.extra_headers |= {
            "x-waypost-router": decision.router,
            "x-waypost-decision-ms": f"{1e3 * decided.seconds:.3f}",
            REASON: decision.reason,
        }
        return decided

    def _account(
        self,
        http: Exchange,
        call: Call,
        decided: Decided,
        opened: Opened | Whole,
        usages: Mapping[int, Usage],
        record: Record,
        finish_reason: str | None = None,
        error: EngineError | None = None,
    ) -> dict[str, Any]:
        """Count an answer, keep it for feedback, and return its usage as sent to the client.

        Metrics and dollars count the prompt once for each answer, because the engine read it that
        often.
        """
        usage = add(usages)
        cost = self._dispatcher.cost_usd(opened.model, usage)
        router = self._router_of(call)
        self._metrics.usage(router, opened.model, usage, cost)
        if error is None:
            self._metrics.answer(router, opened.model, self._dispatcher.dearest_usd(usage))
        why = None if error is None else f"{type(error).__name__}: {error}"
        record.end(opened.model, opened.attempts, usage, cost, finish_reason, opened.failed, why)
        told = self._usage(
            call, decided, opened.model, opened.attempts, told_usage(usages, call.n), cost
        )
        told["waypost"] |= self._telling.way(
            http, call, decided, opened.model, record, opened.failed, usage
        )
        return told

    def _usage(
        self,
        call: Call,
        decided: Decided,
        model: str,
        attempts: int,
        usage: Usage,
        cost_usd: float | None,
    ) -> dict[str, Any]:
        return usage_body(
            usage,
            {
                "cost_usd": cost_usd,
                "model": model,
                "router": decided.decision.router,
                "attempts": attempts,
                "decision_ms": round(1e3 * decided.seconds, 3),
                "request_id": call.request_id,
                **session_told(call, decided.decision, model),
            },
        )

    async def explain(self, http: Exchange, call: Call) -> None:
        """Write the decision without asking an LLM.

        Raises:
            WaypostError: the call cannot be decided.
        """
        decided = await self._decide(http, call)
        call = decided.call(call)
        Record(self._recording, call, decided, time.perf_counter() - decided.seconds).end(None)
        http.extra_headers |= {
            "x-waypost-model": decided.decision.model,
            "x-waypost-session": decided.decision.session,
        }
        await http.reply_json(decision_told(call, decided))


def _only(ends: Sequence[str | None]) -> str | None:
    return ends[0] if len(ends) == 1 else None
