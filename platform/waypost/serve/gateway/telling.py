"""What an answer tells beside its text: headers, ``usage.waypost``, and reasons."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from waypost.contracts.generation import GenerateRequest, Usage
from waypost.contracts.records import Decision
from waypost.contracts.staying import predicted, session_state
from waypost.engines import engine_class
from waypost.engines.base import Engine
from waypost.serve.backends.asking import Opened, Whole
from waypost.serve.backends.dispatcher import Decided, Dispatcher
from waypost.serve.gateway.feedback import Record
from waypost.serve.gateway.http import Exchange
from waypost.serve.gateway.requests import Call
from waypost.serve.plan import Plan
from waypost.sessions.token import write_token

REASON = "x-waypost-reason"


def session_told(call: Call, decision: Decision, model: str | None) -> dict[str, str]:
    """Return ``session`` and ``session_token`` of an answer; empty where it has no session.

    Args:
        call: The request.
        decision: Its decision.
        model: The LLM that answers; None where it is not known.
    """
    if decision.session is None or model is None:
        return {}
    state = session_state(decision.last_model, model)
    return {"session": state, "session_token": write_token(call.turn, model)}


def reason_after_failover(decision: Decision, opened: Opened | Whole) -> str:
    """Return the reason of an answer that does not come from the LLM that the router chose.

    It names the LLMs that ranked higher, and holds the predictions for the LLM that answers.
    """
    ranking = decision.ranking
    higher = ranking[: ranking.index(opened.model)] if opened.model in ranking else ranking[:1]
    failed = [name for name in higher if name in opened.failed]
    others = [name for name in higher if name not in opened.failed]
    parts = [f"{', '.join(failed)} did not answer"] if failed else []
    if others:
        parts.append(f"{', '.join(others)} passed over: not ready, or failed lately")
    known = predicted(decision, opened.model)
    answers = f"{opened.model} answers"
    parts.append(f"{answers}: {known}" if known else answers)
    reason = "; ".join(parts)
    if decision.last_model is None:
        return reason
    return f"{session_state(decision.last_model, opened.model)}: {reason}"


def reason_of_an_empty_answer(opened: Opened | Whole) -> str:
    """Return the reason of an answer without a word, where no other LLM gave a better one."""
    others = ", ".join(sorted(opened.failed))
    asked = f"{opened.model} said nothing, and neither did {others}" if others else opened.model
    return f"{asked}; its empty answer is told" if others else f"{asked} said nothing"


def decision_told(call: Call, decided: Decided) -> dict[str, Any]:
    """Return a decision as clients see it.

    Args:
        call: The call with the text that it was routed on; see `Decided.call`.
        decided: Its decision.
    """
    found = {} if decided.retrieved is None else {"retrieved": decided.retrieved.told()}
    return {
        **decided.decision.to_dict(),
        "request_id": call.request_id,
        "decision_ms": round(1e3 * decided.seconds, 3),
        "route_on": call.route_on,
        "characters": len(call.query["query"]),
        **found,
    }


def shown(value: float | None) -> str | None:
    """Return a number as a header shows it."""
    return None if value is None else f"{value:.6g}"


class Telling:
    """Tells of the answers of one plan.

    Args:
        plan: The graph.
        dispatcher: Knows providers and prices.
    """

    def __init__(self, plan: Plan, dispatcher: Dispatcher) -> None:
        self._limits = plan.limits
        self._dispatcher = dispatcher
        self._models = {model.name: model for model in plan.models}
        self._ignored: dict[str, Callable[[GenerateRequest], tuple[str, ...]]] = {}
        self._plain: set[str] = set()  # LLMs whose engines follow the usual rule

    def answer(
        self,
        http: Exchange,
        call: Call,
        decided: Decided,
        model: str | None,
        attempts: int | None,
    ) -> None:
        """Set the headers of an answer; None is an LLM, or a number, not known yet."""
        decision = decided.decision
        cost = None if model is None else decision.cost_usd.get(model)
        ignored = () if model is None else self._left_out(call, model)
        http.extra_headers |= {
            "x-waypost-model": model,
            "x-waypost-attempts": attempts,
            "x-waypost-confidence": shown(decision.confidence),
            "x-waypost-predicted-cost-usd": shown(cost),
            "x-waypost-cost-usd": shown(cost),  # the name until 0.1
            "x-waypost-ignored": ", ".join(ignored) or None,
        }
        for name, value in session_told(call, decision, model).items():
            http.extra_headers[f"x-waypost-{name.replace('_', '-')}"] = value

    def why(self, http: Exchange, decided: Decided, found: Opened | Whole) -> None:
        """Tell why the LLM that the router chose does not answer, or says nothing."""
        if found.empty:
            http.extra_headers[REASON] = reason_of_an_empty_answer(found)
        elif found.model != decided.decision.model:
            http.extra_headers[REASON] = reason_after_failover(decided.decision, found)

    def way(
        self,
        http: Exchange,
        call: Call,
        decided: Decided,
        model: str,
        record: Record,
        failed: Collection[str],
        usage: Usage | None,
    ) -> dict[str, Any]:
        """Return all that is known of the way to an answer, where the client asks for it.

        Args:
            http: Has the reason among its headers.
            call: The request.
            decided: Its decision.
            model: Who answered.
            record: Has its times.
            failed: LLMs that were asked and did not answer.
            usage: Tokens of the one call that answered; None where there were several.
        """
        if not call.explain:
            return {}
        first = record.first_token_s
        costs = {
            name: cost
            for name in self._models
            if usage is not None and (cost := self._dispatcher.cost_usd(name, usage)) is not None
        }
        return {
            "reason": str(http.extra_headers[REASON]),
            "failed": sorted(failed),
            "predicted_cost_usd": decided.decision.cost_usd.get(model),
            "seconds": round(time.perf_counter() - record.begin, 6),
            "first_token_s": None if first is None else round(first, 6),
            "same_tokens_usd": costs,
            "decision": decision_told(call, decided),
        }

    def _left_out(self, call: Call, model: str) -> list[str]:
        """Return the fields that an LLM did not get as the client gave them."""
        entry = self._models.get(model)
        if entry is None or not call.requests:
            return list(call.dropped)  # the router itself wrote the answer
        first = call.requests[0]
        kept_back = self._dispatcher.providers.sent(model, first.messages)[1]
        found = {*call.dropped, *self._ignored_by(model, first), *kept_back}
        most = min(self._limits.max_tokens, entry.max_tokens or sys.maxsize)
        if call.asked_tokens is not None and call.asked_tokens[1] > most:
            found.add(call.asked_tokens[0])
        return sorted(found)

    def _ignored_by(self, model: str, request: GenerateRequest) -> tuple[str, ...]:
        if model not in self._ignored:
            engine = engine_class(self._models[model].engine)
            config = engine.config_class.model_validate(self._models[model].config)
            self._ignored[model] = partial(engine.ignored, config)
            if engine.ignored.__func__ is Engine.ignored.__func__:  # type: ignore[attr-defined]
                self._plain.add(model)
        # the usual rule leaves out fields of `extra` only
        plain = model in self._plain and not request.extra
        return () if plain else self._ignored[model](request)
