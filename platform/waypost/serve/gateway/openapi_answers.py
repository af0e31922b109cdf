"""Schemas of the gateway's answers: bodies by name, response headers, errors by status.

DECISIONS.md, 61 has the measurement beside pydantic models.
"""

from __future__ import annotations

from typing import Any

REF = "#/components/schemas/{model}"


def ref(name: str) -> dict[str, str]:
    """Return a reference to a schema of the document."""
    return {"$ref": REF.format(model=name)}


def _closed(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an object of exactly these members."""
    return {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        "additionalProperties": False,
    }


def _open(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an object of these members and of what else an upstream said."""
    told = "also fields of the upstream that OpenAI's API lacks, as it sent them"
    return {**_closed(properties, optional), "additionalProperties": True, "description": told}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _by_model(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": value}


_TEXT: dict[str, Any] = {"type": "string"}
_TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_NUMBER: dict[str, Any] = {"type": "number"}
_NUMBER_OR_NULL: dict[str, Any] = {"type": ["number", "null"]}
_NULL: dict[str, Any] = {"type": "null"}
_LOGPROBS: dict[str, Any] = {"type": ["object", "null"]}
_DETAILS: dict[str, Any] = {
    "prompt_tokens_details": {"type": "object"},
    "completion_tokens_details": {"type": "object"},
}
_EPISODE: dict[str, Any] = {
    "steps": {**_COUNT, "description": "this and the next: where the router works in steps"},
    "calls": {**_COUNT, "description": "of LLMs; the tokens and dollars told are those of all"},
    "unpriced_calls": {**_COUNT, "description": "calls whose dollars are not known"},
    "input_tokens": _COUNT,
    "output_tokens": _COUNT,
    "ended_by": {"enum": ["answer", "steps", "tokens", "money", "time"]},
}
_HEDGE = _closed(
    {
        "models": {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2},
        "lost_cost_usd": {
            **_NUMBER_OR_NULL,
            "description": "of the answer that came too late; null where the call was cancelled",
        },
    }
)
_STEP: dict[str, Any] = {
    "number": {"type": "integer", "minimum": 1, "description": "of the call, as calls start"},
    "purpose": {**_TEXT, "description": "answer, verify, plan, repair, step, merge or another"},
    "model": _TEXT,
    "state": {"enum": ["started", "done", "failed", "cancelled"]},
    "seconds": {**_NUMBER, "description": "since the start: where the call has ended"},
    "input_tokens": {**_COUNT, "description": "this and the next: where the call is done"},
    "output_tokens": _COUNT,
    "cost_usd": {**_NUMBER_OR_NULL, "description": "null where prices are unknown"},
}
_REASONS = ["stop", "length", "tool_calls", "content_filter"]


def _answer(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return _object(kind, content, {"enum": _REASONS}, ref("Usage"))


def _chunk(kind: str, content: dict[str, Any]) -> dict[str, Any]:
    usage = {"anyOf": [ref("Usage"), _NULL], "description": "where include_usage asks for it"}
    found = _object(kind, content, {"enum": [*_REASONS, None]}, usage, optional=("usage",))
    found["properties"]["waypost"] = {
        **_closed({"step": ref("Progress")}),
        "description": "where waypost.progress asks for it; the event then has no choices, "
        "and its model is the LLM of the call",
    }
    return found


def _object(
    kind: str,
    content: dict[str, Any],
    reason: dict[str, Any],
    usage: dict[str, Any],
    optional: tuple[str, ...] = (),
) -> dict[str, Any]:
    choice = {"index": _COUNT, **content, "logprobs": _LOGPROBS, "finish_reason": reason}
    return _open(
        {
            "id": _TEXT,
            "object": {"const": kind},
            "created": {**_COUNT, "description": "seconds since 1970"},
            "model": {**_TEXT, "description": "the LLM that answers"},
            "choices": _list(_open(choice)),
            "usage": usage,
        },
        optional,
    )


_SAID: dict[str, Any] = {
    "reasoning_content": {**_TEXT, "description": "visible thinking, where the LLM shows it"},
    "reasoning_provider": {**_TEXT, "description": "tag of its maker: send it back, too"},
    "annotations": _list({"type": "object"}),
    "tool_calls": _list({"type": "object"}),
}
_MESSAGE = _open(
    {
        "role": {"const": "assistant"},
        "content": _TEXT_OR_NULL,
        "refusal": _TEXT_OR_NULL,
        **_SAID,
    },
    optional=tuple(_SAID),
)
_DELTA = _open(
    {
        "role": {"const": "assistant"},
        "content": _TEXT_OR_NULL,
        "refusal": _TEXT,
        **_SAID,
    },
    optional=("role", "content", "refusal", *_SAID),
)

_SESSION: dict[str, Any] = {"enum": ["new", "kept", "moved"]}

_KEPT: dict[str, Any] = {
    "request_id": _TEXT,
    "model": _TEXT,
    "kept": {"const": True},
    "replaced": {"type": "boolean", "description": "whether it replaces an earlier event"},
}
_KEPT_EVENT = _closed({"status": {"const": 200}, **_KEPT})
_REFUSED_EVENT = _closed(
    {
        "status": {"enum": [404, 409, 410]},
        "request_id": _TEXT,
        "error": {"type": "object", "description": "as in Error"},
    }
)

SCHEMAS: dict[str, Any] = {
    "Error": _closed(
        {
            "error": _closed(
                {
                    "message": _TEXT,
                    "type": {
                        "enum": [
                            "invalid_request_error",
                            "authentication_error",
                            "rate_limit_error",
                            "server_error",
                        ]
                    },
                    "param": {**_TEXT_OR_NULL, "description": "the field or header at fault"},
                    "code": _TEXT_OR_NULL,
                }
            )
        }
    ),
    "Usage": _open(
        {
            "prompt_tokens": _COUNT,
            "completion_tokens": _COUNT,
            "total_tokens": _COUNT,
            **_DETAILS,
            "waypost": _closed(
                {
                    "cost_usd": {**_NUMBER_OR_NULL, "description": "null where prices are unknown"},
                    "model": _TEXT,
                    "router": _TEXT,
                    "attempts": {"type": "integer", "minimum": 1},
                    "decision_ms": _NUMBER,
                    "request_id": _TEXT,
                    "estimated": {
                        "const": True,
                        "description": "the upstream told no counts; these are of the characters",
                    },
                    "hedge": _HEDGE,
                    "session": _SESSION,
                    "session_token": _TEXT,
                    **_EPISODE,
                },
                optional=("estimated", "hedge", "session", "session_token", *_EPISODE),
            ),
        },
        optional=tuple(_DETAILS),
    ),
    "Progress": _closed(_STEP, optional=tuple(_STEP)[4:]),
    "ChatAnswer": _answer("chat.completion", {"message": _MESSAGE}),
    "ChatChunk": _chunk("chat.completion.chunk", {"delta": _DELTA}),
    "TextAnswer": _answer("text_completion", {"text": _TEXT}),
    "TextChunk": _chunk("text_completion", {"text": _TEXT}),
    "Decision": _closed(
        {
            "model_name": _TEXT,
            "predicted_llm": _TEXT,
            "ranking": _list(_TEXT),
            "quality": _by_model(_NUMBER),
            "cost_usd": _by_model(_NUMBER),
            "confidence": _NUMBER_OR_NULL,
            "lambda": _NUMBER_OR_NULL,
            "propensity": _NUMBER_OR_NULL,
            "reason": _TEXT,
            "router": _TEXT,
            "router_version": _TEXT,
            "request_id": _TEXT,
            "decision_ms": _NUMBER,
            "route_on": {"enum": ["current_only", "full_context"]},
            "characters": _COUNT,
            "session": _SESSION,
            "last_model": _TEXT_OR_NULL,
        },
        optional=("session", "last_model"),
    ),
    "Kept": _closed(_KEPT),
    "KeptEvents": _closed({"events": _list({"anyOf": [_KEPT_EVENT, _REFUSED_EVENT]})}),
    "Model": _closed(
        {
            "id": _TEXT,
            "object": {"const": "model"},
            "created": _COUNT,
            "owned_by": _TEXT,
            "kind": {"enum": ["router", "llm"]},
            "pricing": {
                "type": "object",
                "description": "USD per million tokens, and source, where it is the price library",
            },
        },
        optional=("pricing",),
    ),
    "Models": _closed({"object": {"const": "list"}, "data": _list(ref("Model"))}),
    "Health": _closed({"status": {"const": "ok"}}),
    "Readiness": _closed(
        {
            "status": {"enum": ["ready", "loading", "failed"]},
            "loading_s": {**_by_model(_NUMBER), "description": "seconds so far of what loads"},
            "failed": {**_by_model(_TEXT), "description": "why an LLM could not load"},
        }
    ),
}

_REQUEST_ID = {
    "x-waypost-request-id": {
        "description": "of this request, in logs and for feedback",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
    }
}
_DECIDED = {
    "x-waypost-router": ("the router that decided", True, _TEXT),
    "x-waypost-model": ("the LLM that answers", True, _TEXT),
    "x-waypost-decision-ms": ("what the decision took", True, _NUMBER),
    "x-waypost-reason": ("why this LLM", True, _TEXT),
    "x-waypost-session": ("what becomes of the session's LLM", False, _SESSION),
}
_ANSWERED = {
    **_DECIDED,
    "x-waypost-model": ("the LLM that answers; not in a stream with progress", False, _TEXT),
    "x-waypost-attempts": (
        "calls tried, with the last; of an episode, LLMs called; not in a stream with progress",
        False,
        _COUNT,
    ),
    "x-waypost-confidence": ("of the decision, 0 to 1", False, _NUMBER),
    "x-waypost-predicted-cost-usd": ("predicted cost of the call", False, _NUMBER),
    "x-waypost-actual-cost-usd": ("of a whole answer; also in usage.waypost", False, _NUMBER),
    "x-waypost-cost-usd": ("older name of x-waypost-predicted-cost-usd", False, _NUMBER),
    "x-waypost-session-token": ("to be returned with the session's next turn", False, _TEXT),
    "x-waypost-ignored": ("fields that were left out or lowered for this LLM", False, _TEXT),
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
