"""The OpenAPI document that the gateway serves: its bodies are those that `bodies` checks."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

import waypost
from waypost.serve.bodies import Body, ChatBody, CompletionBody, FeedbackBody, RouteBody
from waypost.serve.plan import Plan
from waypost.serve.settings import AUTO

_REF = "#/components/schemas/{model}"
_POSTS: tuple[tuple[str, type[Body], str, str], ...] = (
    ("/v1/chat/completions", ChatBody, "Answer a chat.", "an answer, or a stream of events"),
    ("/v1/completions", CompletionBody, "Continue a text.", "an answer, or a stream of events"),
    ("/v1/route", RouteBody, "Decide, and ask no model.", "the decision"),
    ("/v1/feedback", FeedbackBody, "Rate an answer.", "kept"),
)
_GETS = (
    ("/v1/models", "application/json", "List routers and models."),
    ("/healthz", "application/json", "Say that the gateway runs."),
    ("/metrics", "text/plain", "Prometheus metrics."),
    ("/openapi.json", "application/json", "This document."),
)
_ERRORS = {
    "400": "the request is wrong: which field, and what was expected",
    "401": "a key is asked for and this is none",
    "404": "no such model or request id",
    "408": "the body did not arrive in time",
    "413": "the body is too long",
    "429": "overloaded: retry after the time given",
    "502": "no model of the ranking answered",
    "503": "the router cannot be reached",
    "504": "no model answered in time",
}
_KNOBS = {
    "x-waypost-lambda": {"type": "number", "minimum": 0},
    "x-waypost-max-cost-usd": {"type": "number", "minimum": 0},
    "x-waypost-allowed-models": {"type": "string"},
    "x-waypost-user-id": {"type": "string"},
    "x-waypost-session-id": {"type": "string"},
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(plan: Plan) -> dict[str, Any]:
    """Return the document for one graph: its models and limits stand in it."""
    _, definitions = models_json_schema(
        [(model, "validation") for _, model, _, _ in _POSTS], ref_template=_REF
    )
    schemas = definitions["$defs"]
    for name in ("ChatBody", "CompletionBody", "RouteBody"):
        _bound(schemas[name]["properties"], plan)
    models = [model.name for model in plan.models]
    schemas["Extras"]["properties"]["allowed_models"] = {
        "anyOf": [
            {"type": "array", "minItems": 1, "items": {"enum": models}},
            {"type": "null"},
        ]
    }
    schemas["Error"] = _ERROR_SCHEMA
    secured: list[dict[str, Any]] = [{"bearer": []}] if plan.api_keys else []
    return {
        "openapi": "3.1.0",
        "info": {"title": "Waypost", "version": waypost.__version__},
        "paths": _paths(secured),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _bound(properties: dict[str, Any], plan: Plan) -> None:
    known = [AUTO, *plan.router_names, *(model.name for model in plan.models)]
    properties["model"] = {"enum": known, "default": AUTO}
    for field in ("max_tokens", "max_completion_tokens"):
        if field in properties:
            properties[field] = {
                "anyOf": [
                    {"type": "integer", "minimum": 1, "maximum": plan.limits.max_tokens},
                    {"type": "null"},
                ]
            }
    properties["n"] = {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": plan.limits.max_choices},
            {"type": "null"},
        ]
    }


def _paths(secured: list[dict[str, Any]]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    parameters = [
        {"name": name, "in": "header", "required": False, "schema": schema}
        for name, schema in _KNOBS.items()
    ]
    for path, model, summary, what in _POSTS:
        content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
        if "stream" in model.model_fields and path != "/v1/route":
            content["text/event-stream"] = {"schema": {"type": "string"}}
        paths[path] = {
            "post": {
                "summary": summary,
                "security": secured,
                "parameters": [] if path == "/v1/feedback" else parameters,
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}
                    },
                },
                "responses": {
                    "200": {"description": what, "content": content},
                    **{status: _error(text) for status, text in _ERRORS.items()},
                },
            }
        }
    for path, kind, summary in _GETS:
        schema = {"type": "object"} if kind == "application/json" else {"type": "string"}
        paths[path] = {
            "get": {
                "summary": summary,
                "security": [] if path in {"/healthz", "/openapi.json"} else secured,
                "responses": {
                    "200": {"description": summary, "content": {kind: {"schema": schema}}},
                    "401": _error(_ERRORS["401"]),
                },
            }
        }
    return paths


def _error(text: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model="Error")}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
