"""Generated requests, right and wrong, that a served gateway must answer as its document has it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import jsonschema
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from support import canaries

POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/route", "/v1/feedback")
METHODS = {
    **dict.fromkeys(POSTS, "POST"),
    "/v1/turns": "DELETE",
    **dict.fromkeys(
        (
            "/v1/status", "/v1/decisions", "/v1/models", "/v1/models/{model}", "/healthz",
            "/readyz", "/metrics", "/openapi.json", "/", "/docs",
        ),
        "GET",
    ),
}  # fmt: skip
"""Method of each path, in the order of the document."""

KINDS = (
    *((path, mode) for path in POSTS for mode in GenerationMode),
    # there is little to do wrong
    *((path, GenerationMode.POSITIVE) for path in METHODS if path not in POSTS),
)

CASES = int(os.environ.get("WAYPOST_FUZZ_CASES", "110"))
"""Generated for each of `KINDS`, where there are so many: a GET without parameters is one."""

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]

REFUSED = {
    "too_many", "not_allowed", "budget_too_low", "text_only", "no_model_allowed", "unknown_request",
    "model_not_found", "int_type", "number_too_large", "invalid_feedback", "no_turns",
}  # fmt: skip
"""Why a request may be refused that fits its schema: what one field asks another forbids, 1.0 is
an integer to JSON Schema alone, and free-form fields are bounded in words only."""


def load(document: dict[str, Any]) -> Any:
    """Return schemathesis' schema of a served OpenAPI document."""
    found = schemathesis.openapi.from_dict(document)
    # the key of the session goes with every request; wrong ones have a test of their own
    found.config.generation.update(with_security_parameters=False)
    # a wrong body may be refused for its size before anything in it is looked at
    rejection = found.config.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "413", "431"]
    return found


def ask_all(
    urls: Sequence[str],
    session: requests.Session,
    document: dict[str, Any],
    kind: tuple[str, GenerationMode],
    count: int,
) -> Counter[str]:
    """Ask generated requests of one kind, of each URL in turn, and check every answer.

    Args:
        urls: Base URLs of one graph, each another way to it.
        session: Has the key.
        document: The served OpenAPI document.
        kind: One of `KINDS`.
        count: Number of requests.

    Returns:
        Requests by kind and status.

    Raises:
        AssertionError: An answer is not as the document has it.
    """
    path, mode = kind
    counted: Counter[str] = Counter()
    operation = load(document)[path][METHODS[path]]
    turns = cycle(urls)

    @settings(
        max_examples=count,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        extra = [checks.negative_data_rejection] if mode is GenerationMode.NEGATIVE else []
        reply = case.call(base_url=next(turns), session=session, timeout=60)
        counted[f"{mode.name} {reply.status_code}"] += 1
        case.validate_response(reply, checks=[*CHECKS, *extra])
        canaries.check(case.operation.label, f"{reply.headers}{reply.text}")
        if reply.status_code >= 400:
            error = reply.json()["error"]
            assert len(error["message"]) <= 2_000
            if mode is GenerationMode.POSITIVE:
                assert error["code"] in REFUSED, (error, case.body)
        elif reply.headers["content-type"][0].startswith("text/event-stream"):
            _check_events(reply.text, path, document)

    ask()
    return counted


def _check_events(text: str, path: str, document: dict[str, Any]) -> None:
    """Check each event of a stream against the chunk of the document."""
    name = "ChatChunk" if "chat" in path else "TextChunk"
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    for event in events:
        validator.validate(json.loads(event.removeprefix("data: ")))
