"""Schemas of the gateway's answers: bodies by name, response headers, errors by status.

DECISIONS.md, 61 has the measurement beside pydantic models.
"""

from __future__ import annotations

from typing import Any

from waypost.contracts.session import MODES
from waypost.serve.gateway.openapi_looking import LOOKING
from waypost.serve.gateway.openapi_parts import (
    COUNT,
    LOGPROBS,
    NULL,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    by_model,
    closed,
    listed,
    opened,
    ref,
)

_DETAILS: dict[str, Any] = {
    "prompt_tokens_details": {"type": "object"},
    "completion_tokens_details": {"type": "object"},
}
_EPISODE: dict[str, Any] = {
    "steps": {**COUNT, "description": "this and the next: where the router works in steps"},
    "calls": {**COUNT, "description": "of LLMs; the tokens and dollars told are those of all"},
    "unpriced_calls": {**COUNT, "description": "calls whose dollars are not known"},
    "input_tokens": COUNT,
    "output_tokens": COUNT,
    "ended_by": {"enum": ["answer", "steps", "tokens", "money", "time"]},
}
_HEDGE = closed(
    {
        "models": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 2},
        "lost_cost_usd": {
            **NUMBER_OR_NULL,
            "description": "of the answer that came too late; null where the call was cancelled",
        },
    }
)
_STEP: dict[str, Any] = {
    "number": {"type": "integer", "minimum": 1, "description": "of the call, as calls start"},
    "purpose": {**TEXT, "description": "answer, verify, plan, repair, step, merge or another"},
    "model": TEXT,
    "state": {"enum": ["started", "done", "failed", "cancelled"]},
    "seconds": {**NUMBER, "description": "since the start: where the call has ended"},
    "input_tokens": {**COUNT, "description": "this and the next: where the call is done"},
    "output_tokens": COUNT,
    "cost_usd": {**NUMBER_OR_NULL, "description": "null where prices are unknown"},
}
_REASONS = ["stop", "length", "tool_calls", "content_filter"]


def _answer(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return _object(kind, content, {"enum": _REASONS}, ref("Usage"))


def _chunk(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    usage = {"anyOf": [ref("Usage"), NULL], "description": "where include_usage asks for it"}
    found = _object(kind, content, {"enum": [*_REASONS, None]}, usage, optional=("usage",))
    found["properties"]["waypost"] = {
        **closed({"step": ref("Progress"), "decision": ref("Decision")}, ("step", "decision")),
        "description": "where waypost.progress asks for the calls of an episode, or "
        "waypost.explain for the decision; the event then has no choices, and its model is the "
        "LLM of the call",
    }
    return found


def _object(
    kind: str,
    content: dict[str, Any],
    reason: dict[str, Any],
    usage: dict[str, Any],
    optional: tuple[str, ...] = (),
) -> dict[str, Any]:
    choice = {"index": COUNT, **content, "logprobs": LOGPROBS, "finish_reason": reason}
    return opened(
        {
            "id": TEXT,
            "object": {"const": kind},
            "created": {**COUNT, "description": "seconds since 1970"},
            "model": {**TEXT, "description": "the LLM that answers"},
            "choices": listed(opened(choice)),
            "usage": usage,
        },
        optional,
    )


_SAID: dict[str, Any] = {
    "reasoning_content": {**TEXT, "description": "visible thinking, where the LLM shows it"},
    "reasoning_provider": {**TEXT, "description": "tag of its maker: send it back, too"},
    "annotations": listed({"type": "object"}),
    "tool_calls": listed({"type": "object"}),
}
_MESSAGE = opened(
    {
        "role": {"const": "assistant"},
        "content": TEXT_OR_NULL,
        "refusal": TEXT_OR_NULL,
        **_SAID,
    },
    optional=tuple(_SAID),
)
_DELTA = opened(
    {
        "role": {"const": "assistant"},
        "content": TEXT_OR_NULL,
        "refusal": TEXT,
        **_SAID,
    },
    optional=("role", "content", "refusal", *_SAID),
)

_SESSION: dict[str, Any] = {"enum": ["new", "kept", "moved"]}

_KEPT: dict[str, Any] = {
    "request_id": TEXT,
    "model": TEXT,
    "kept": {"const": True},
    "replaced": {"type": "boolean", "description": "whether it replaces an earlier event"},
}
_KEPT_EVENT = closed({"status": {"const": 200}, **_KEPT})
_REFUSED_EVENT = closed(
    {
        "status": {"enum": [404, 409, 410]},
        "request_id": TEXT,
        "error": {"type": "object", "description": "as in Error"},
    }
)

_EXPLAINED: dict[str, Any] = {
    "reason": {**TEXT, "description": "this and the following: where waypost.explain asks for it"},
    "failed": {**listed(TEXT), "description": "LLMs that were asked and did not answer"},
    "predicted_cost_usd": NUMBER_OR_NULL,
    "seconds": NUMBER,
    "first_token_s": NUMBER_OR_NULL,
    "same_tokens_usd": {
        **by_model(NUMBER),
        "description": "what the tokens of this answer cost at each LLM's prices",
    },
    "decision": ref("Decision"),
}

SCHEMAS: dict[str, Any] = {
    "Error": closed(
        {
            "error": closed(
                {
                    "message": TEXT,
                    "type": {
                        "enum": [
                            "invalid_request_error",
                            "authentication_error",
                            "rate_limit_error",
                            "server_error",
                        ]
                    },
                    "param": {**TEXT_OR_NULL, "description": "the field or header at fault"},
                    "code": TEXT_OR_NULL,
                }
            )
        }
    ),
    "Usage": opened(
        {
            "prompt_tokens": COUNT,
            "completion_tokens": COUNT,
            "total_tokens": COUNT,
            **_DETAILS,
            "waypost": closed(
                {
                    "cost_usd": {**NUMBER_OR_NULL, "description": "null where prices are unknown"},
                    "model": TEXT,
                    "router": TEXT,
                    "attempts": {"type": "integer", "minimum": 1},
                    "decision_ms": NUMBER,
                    "request_id": TEXT,
                    "estimated": {
                        "const": True,
                        "description": "the upstream told no counts; these are of the characters",
                    },
                    "hedge": _HEDGE,
                    "session": _SESSION,
                    "session_token": TEXT,
                    **_EPISODE,
                    **_EXPLAINED,
                },
                optional=(
                    "estimated",
                    "hedge",
                    "session",
                    "session_token",
                    *_EPISODE,
                    *_EXPLAINED,
                ),
            ),
        },
        optional=tuple(_DETAILS),
    ),
    "Progress": closed(_STEP, optional=tuple(_STEP)[4:]),
    "ChatAnswer": _answer("chat.completion", {"message": _MESSAGE}),
    "ChatChunk": _chunk("chat.completion.chunk", {"delta": _DELTA}),
    "TextAnswer": _answer("text_completion", {"text": TEXT}),
    "TextChunk": _chunk("text_completion", {"text": TEXT}),
    "Decision": closed(
        {
            "model_name": TEXT,
            "predicted_llm": TEXT,
            "ranking": listed(TEXT),
            "quality": by_model(NUMBER),
            "cost_usd": by_model(NUMBER),
            "confidence": NUMBER_OR_NULL,
            "lambda": NUMBER_OR_NULL,
            "propensity": NUMBER_OR_NULL,
            "reason": TEXT,
            "router": TEXT,
            "router_version": TEXT,
            "out_of_distribution": {"type": "boolean"},
            "request_id": TEXT,
            "decision_ms": NUMBER,
            "route_on": {"enum": list(MODES)},
            "characters": COUNT,
            "retrieved": closed({"turns": COUNT, "of": COUNT}),
            "session": _SESSION,
            "last_model": TEXT_OR_NULL,
        },
        optional=("retrieved", "session", "last_model"),
    ),
    "Kept": closed(_KEPT),
    "KeptEvents": closed({"events": listed({"anyOf": [_KEPT_EVENT, _REFUSED_EVENT]})}),
    **LOOKING,
}

_REQUEST_ID = {
    "x-waypost-request-id": {
        "description": "of this request, in logs and for feedback",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
    }
}
_DECIDED = {
    "x-waypost-router": ("the router that decided", True, TEXT),
    "x-waypost-model": ("the LLM that answers", True, TEXT),
    "x-waypost-decision-ms": ("what the decision took", True, NUMBER),
    "x-waypost-reason": ("why this LLM", True, TEXT),
    "x-waypost-session": ("what becomes of the session's LLM", False, _SESSION),
}
_ANSWERED = {
    **_DECIDED,
    "x-waypost-model": ("the LLM that answers; not in a stream with progress", False, TEXT),
    "x-waypost-attempts": (
        "calls tried, with the last; of an episode, LLMs called; not in a stream with progress",
        False,
        COUNT,
    ),
    "x-waypost-confidence": ("of the decision, 0 to 1", False, NUMBER),
    "x-waypost-predicted-cost-usd": ("predicted cost of the call", False, NUMBER),
    "x-waypost-actual-cost-usd": ("of a whole answer; also in usage.waypost", False, NUMBER),
    "x-waypost-cost-usd": ("older name of x-waypost-predicted-cost-usd", False, NUMBER),
    "x-waypost-session-token": ("to be returned with the session's next turn", False, TEXT),
    "x-waypost-ignored": ("fields that were left out or lowered for this LLM", False, TEXT),
}

_WHAT = {
    "400": "the request is wrong: which field or header, and what was expected",
    "401": "a key is asked for and this is none",
    "404": "no such model or request id",
    "408": "the body did not arrive in time",
    "409": "the idempotency key came with another event",
    "410": "the request was answered too long ago",
    "413": "the body is too long",
    "415": "the body is compressed, or is said not to be JSON",
    "429": "overloaded: retry after the time given",
    "431": "the headers are too long",
    "500": "a fault of the gateway's own, told by the request's id alone",
    "502": "no model of the ranking answered",
    "503": "the router cannot be reached, models still load, the server is stopping, or "
    "feedback cannot be written",
    "504": "no model answered in time",
}
_SECONDS = {"required": True, "schema": {"type": "integer", "minimum": 1}}
_BESIDE: dict[str, dict[str, Any]] = {
    "401": {"www-authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    "429": {"retry-after": {**_SECONDS, "description": "seconds"}},
    "503": {"retry-after": {**_SECONDS, "description": "seconds"}},
}


def error(status: str) -> dict[str, Any]:
    """Return the response of an error."""
    return {
        "description": _WHAT[status],
        "headers": {**_REQUEST_ID, **_BESIDE.get(status, {})},
        "content": {"application/json": {"schema": ref("Error")}},
    }


def errors(*statuses: str) -> dict[str, Any]:
    """Return the responses of these errors by status."""
    return {status: error(status) for status in statuses}


def events(kind: str) -> dict[str, Any]:
    """Describe a stream of ``Chat`` or ``Text`` in words; JSON Schema cannot express it."""
    return {
        "description": f"server-sent events: `data: ` with a {kind}Chunk each, then "
        "`data: [DONE]`; an answer that breaks off ends with an event that holds an Error instead"
    }


def success(what: str, content: dict[str, dict[str, Any]], headers: str = "") -> dict[str, Any]:
    """Return the response of a success.

    Args:
        what: Description.
        content: Media type -> schema.
        headers: ``decided`` or ``answered``: the group of its headers besides the request's id.
    """
    kinds: dict[str, Any] = {"": {}, "decided": _DECIDED, "answered": _ANSWERED}
    return {
        "description": what,
        "headers": {
            **_REQUEST_ID,
            **{
                name: {"description": text, "required": required, "schema": schema}
                for name, (text, required, schema) in kinds[headers].items()
            },
        },
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
    }
