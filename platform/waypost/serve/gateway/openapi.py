"""The gateway's OpenAPI document; its request bodies are the models of `schemas`."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

import waypost
from waypost.contracts.session import MODES, MOST_TOP_K
from waypost.serve.dials import AUTO, PATTERN
from waypost.serve.gateway.openapi_answers import SCHEMAS, errors, events, success
from waypost.serve.gateway.openapi_parts import REF, ref
from waypost.serve.gateway.reading import MAX_MEMBERS, MAX_VALUES
from waypost.serve.gateway.schemas import Body, ChatBody, CompletionBody, FeedbackBody, RouteBody
from waypost.serve.plan import Plan

_JSON = "application/json"
_EVENTS = "text/event-stream"
_BODIES: tuple[type[Body], ...] = (ChatBody, CompletionBody, RouteBody, FeedbackBody)
_READ = ("400", "408", "413", "415", "431", "500")
_DECIDED = (*_READ, "404", "429", "503")
_ASKED = (*_DECIDED, "502", "504")
_ABOUT = (
    "OpenAI's API over a router and a pool of LLMs. Other paths are answered 404, other methods "
    "405 with `allow`, both with an Error; HEAD is answered as GET. A body holds fewer than "
    f"{MAX_VALUES} values, and each of its objects at most {MAX_MEMBERS} members."
)


def document(plan: Plan) -> dict[str, Any]:
    """Return the document for one graph, with its models and limits."""
    schemas = json.loads(_bodies())
    for name in ("ChatBody", "CompletionBody", "RouteBody"):
        _bound(schemas[name]["properties"], plan)
        schemas[name]["additionalProperties"] = plan.unknown_fields != "refuse"
    schemas["Extras"]["properties"]["allowed_models"] = _or_null(_models(plan))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Waypost", "version": waypost.__version__, "description": _ABOUT},
        "paths": _paths(plan),
        "components": {
            "schemas": {**schemas, **SCHEMAS},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


@cache  # as text, so that each document has its own objects to change
def _bodies() -> str:
    _, definitions = models_json_schema(
        [(model, "validation") for model in _BODIES], ref_template=REF
    )
    return json.dumps(definitions["$defs"])


def _models(plan: Plan) -> dict[str, Any]:
    models = [model.name for model in plan.models]
    return {"type": "array", "minItems": 1, "maxItems": 256, "items": {"enum": models}}


def _knobs(plan: Plan) -> list[dict[str, Any]]:
    """Return the optional headers of a request; several models are separated by commas."""
    number, name = {"type": "number", "minimum": 0}, {"type": "string", "maxLength": 256}
    knobs: dict[str, dict[str, Any]] = {
        "x-waypost-lambda": number,
        "x-waypost-max-cost-usd": number,
        "x-waypost-allowed-models": _models(plan),
        "x-waypost-user-id": name,
        "x-waypost-session-id": name,
        "x-waypost-session-token": {"type": "string"},
        "x-waypost-route-on": {"enum": list(MODES)},
        "x-waypost-top-k": {"type": "integer", "minimum": 1, "maximum": MOST_TOP_K},
    }
    return [
        {"name": name, "in": "header", "required": False, "style": "simple", "schema": schema}
        for name, schema in knobs.items()
    ]


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _bound(properties: dict[str, Any], plan: Plan) -> None:
    known = [AUTO, *plan.dials, *plan.router_names, *(model.name for model in plan.models)]
    with_lambda = {"type": "string", "pattern": PATTERN}
    properties["model"] = {"anyOf": [{"enum": known}, with_lambda], "default": AUTO}
    most = plan.limits.max_choices
    properties["n"] = _or_null({"type": "integer", "minimum": 1, "maximum": most})


def _paths(plan: Plan) -> dict[str, Any]:
    return {
        "/v1/chat/completions": _post(
            "Answer a chat.",
            ChatBody,
            success("an answer", {_JSON: ref("ChatAnswer"), _EVENTS: events("Chat")}, "answered"),
            _ASKED,
            plan,
        ),
        "/v1/completions": _post(
            "Continue a text.",
            CompletionBody,
            success("an answer", {_JSON: ref("TextAnswer"), _EVENTS: events("Text")}, "answered"),
            _ASKED,
            plan,
        ),
        "/v1/route": _post(
            "Decide, and ask no model.",
            RouteBody,
            success("the decision", {_JSON: ref("Decision")}, "decided"),
            _DECIDED,
            plan,
        ),
        "/v1/feedback": _post(
            "Say how good one or several answers are.",
            FeedbackBody,
            success("kept", {_JSON: {"anyOf": [ref("Kept"), ref("KeptEvents")]}}),
            (*_READ, "404", "409", "410", "503"),
            plan,
        ),
        "/v1/turns": _turns(plan),
        "/v1/status": _get("Say what is served, and how it is.", _JSON, ref("Status"), plan),
        "/v1/decisions": _get(
            "List the latest decisions of this gateway, newest first.",
            _JSON,
            ref("Decisions"),
            plan,
        ),
        "/v1/models": _get("List routers and models.", _JSON, ref("Models"), plan),
        "/v1/models/{model}": _one_model(plan),
        "/healthz": _health("Say that the gateway runs, and takes requests.", "Health"),
        "/readyz": _ready(),
        "/metrics": _get("Prometheus metrics.", "text/plain", {"type": "string"}, plan),
        "/openapi.json": _get("This document.", _JSON, {"type": "object"}, None),
        "/": _get("The gateway's page.", "text/html", {"type": "string"}, None),
        "/docs": _get("A page of this document.", "text/html", {"type": "string"}, None),
    }


def _post(
    summary: str, model: type[Body], found: dict[str, Any], failures: tuple[str, ...], plan: Plan
) -> dict[str, Any]:
    return {
        "post": {
            "summary": summary,
            "parameters": [] if model is FeedbackBody else _knobs(plan),
            "requestBody": {"required": True, "content": {_JSON: {"schema": ref(model.__name__)}}},
            **_guarded(found, failures, plan),
        }
    }


def _get(summary: str, kind: str, schema: dict[str, Any], plan: Plan | None) -> dict[str, Any]:
    found = success(summary, {kind: schema})
    return {"get": {"summary": summary, **_guarded(found, ("431", "500"), plan)}}


def _turns(plan: Plan) -> dict[str, Any]:
    found = success("deleted", {_JSON: ref("Deleted")})
    named = ("x-waypost-user-id", "x-waypost-session-id")
    return {
        "delete": {
            "summary": "Delete the turns that are kept of a user, or of a session without a user.",
            "parameters": [knob for knob in _knobs(plan) if knob["name"] in named],
            **_guarded(found, ("400", "404", "431", "500"), plan),
        }
    }


def _health(summary: str, schema: str) -> dict[str, Any]:
    found = _get(summary, _JSON, ref(schema), None)
    found["get"]["responses"] |= errors("503")
    return found


def _ready() -> dict[str, Any]:
    found = _health("Say whether all has loaded that can, or what is awaited.", "Readiness")
    content = found["get"]["responses"]["503"]["content"]
    content[_JSON] = {"schema": {"anyOf": [ref("Readiness"), ref("Error")]}}
    return found


def _one_model(plan: Plan) -> dict[str, Any]:
    found = _get("Show a router or model; its name may hold slashes.", _JSON, ref("Model"), plan)
    found["get"]["responses"] |= errors("404")
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    found["get"]["parameters"] = [name]
    return found


def _guarded(found: dict[str, Any], failures: tuple[str, ...], plan: Plan | None) -> dict[str, Any]:
    """Return the responses and the required key; without a plan the path requires no key."""
    asks = plan is not None and plan.api_keys
    listed = (*failures, "401") if asks else failures
    return {
        "security": [{"bearer": []}] if asks else [],
        "responses": {"200": found, **errors(*sorted(listed))},
    }
