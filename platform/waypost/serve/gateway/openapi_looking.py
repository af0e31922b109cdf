"""Schemas of what the gateway tells of itself: models, health, readiness, status, decisions."""

from __future__ import annotations

from typing import Any

from waypost.contracts.session import MODES
from waypost.serve.gateway.openapi_parts import (
    COUNT,
    NUMBER,
    NUMBER_OR_NULL,
    TEXT,
    TEXT_OR_NULL,
    by_model,
    closed,
    listed,
    ref,
)

_FLAG: dict[str, Any] = {"type": "boolean"}
_COUNT_OR_NULL: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_STATUS: dict[str, Any] = {"enum": ["ready", "loading", "failed"]}

_READINESS: dict[str, Any] = {
    "status": _STATUS,
    "loading_s": {**by_model(NUMBER), "description": "seconds so far of what loads"},
    "failed": {**by_model(TEXT), "description": "why an LLM could not load"},
}
_RECENT: dict[str, Any] = {
    "time": {**NUMBER, "description": "Unix seconds of the end of the answer"},
    "request_id": TEXT,
    "router": TEXT,
    "chosen": TEXT,
    "answered": {**TEXT_OR_NULL, "description": "null where none did, or none was asked"},
    "reason": TEXT,
    "lambda": NUMBER_OR_NULL,
    "attempts": COUNT,
    "failed": listed(TEXT),
    "predicted_cost_usd": NUMBER_OR_NULL,
    "cost_usd": NUMBER_OR_NULL,
    "input_tokens": _COUNT_OR_NULL,
    "output_tokens": _COUNT_OR_NULL,
    "seconds": NUMBER_OR_NULL,
    "error": TEXT_OR_NULL,
    "text": {**TEXT, "description": "the beginning of what was routed on, with log_queries"},
}
_SERVED_LLM: dict[str, Any] = {
    "name": TEXT,
    "input_price": NUMBER_OR_NULL,
    "output_price": {**NUMBER_OR_NULL, "description": "USD per million tokens"},
    "state": _STATUS,
    "resting": {**_FLAG, "description": "it failed lately and is asked after all others"},
}

LOOKING: dict[str, Any] = {
    "Model": closed(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": COUNT,
            "owned_by": TEXT,
            "kind": {"enum": ["router", "llm"]},
            "lambda": {**NUMBER, "description": "cost weight that this name stands for"},
            "pricing": {
                "type": "object",
                "description": "USD per million tokens, and source, where it is the price library",
            },
        },
        optional=("pricing", "lambda"),
    ),
    "Models": closed({"object": {"const": "list"}, "data": listed(ref("Model"))}),
    "Health": closed({"status": {"const": "ok"}}),
    "Readiness": closed(_READINESS),
    "Status": closed(
        {
            "version": TEXT,
            **_READINESS,
            "routers": listed(closed({"name": TEXT, "default": _FLAG, "steps": _FLAG})),
            "models": listed(closed(_SERVED_LLM)),
            "route_on": {"enum": list(MODES)},
            "top_k": COUNT,
            "keeps_turns": _FLAG,
            "lambda": NUMBER,
            "feedback": {**_FLAG, "description": "whether answers can be rated"},
            "chat": {**TEXT_OR_NULL, "description": "path of the chat page"},
            "api_keys": _FLAG,
        }
    ),
    "Decisions": closed({"decisions": listed(closed(_RECENT, ("text",)))}),
    "Deleted": closed({"deleted": COUNT}),
}
