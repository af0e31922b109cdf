"""The served OpenAPI document against the served gateway: generated requests, right and wrong.

About 1,000 in CI; ``make fuzz`` asks ten times as many.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from support import canaries
from support.gateway import knn_artifact
from support.served import application, served, session_folder

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/route", "/v1/feedback")
GETS = ("/v1/models", "/v1/models/{model}", "/healthz", "/readyz", "/metrics", "/openapi.json")
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
CASES = int(os.environ.get("WAYPOST_FUZZ_CASES", "80"))
"""Generated for each operation, right ones, and as many wrong ones for each POST."""

LEAST = 8 * CASES

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]

REFUSED = {
    "too_many", "not_allowed", "budget_too_low", "text_only", "no_model_allowed", "unknown_request",
    "model_not_found", "int_type", "number_too_large", "invalid_feedback",
}  # fmt: skip
"""Why a request may be refused that fits its schema: what one field asks another forbids, 1.0 is
an integer to JSON Schema alone, and free-form fields are bounded in words only."""

counted: Counter[str] = Counter()


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    pool = [{"name": name, "engine": "echo"} for name in ("cook", "prover", "tiny")]
    pool[0]["placement"] = "inline"
    app = application(
        "main", knn_artifact(folder / "artifact"), pool, api_keys=True,
        feedback_dir=str(folder / "feedback"),
    )  # fmt: skip
    with canaries.keys(), served({"applications": [app | {"route_prefix": "/"}]}, folder) as url:
        yield url


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers.update([canaries.AUTHORIZATION])
        yield session


@pytest.fixture(scope="module")
def document(url, session) -> dict[str, Any]:
    return session.get(f"{url}/openapi.json", timeout=30).json()


@pytest.fixture(scope="module")
def schema(document, url) -> Any:
    found = schemathesis.openapi.from_dict(document)
    found.config.update(base_url=url)
    # the key of the session goes with every request; wrong ones have a test of their own
    found.config.generation.update(with_security_parameters=False)
    # a wrong body may be refused for its size before anything in it is looked at
    rejection = found.config.checks.negative_data_rejection
    rejection.expected_statuses = [*rejection.expected_statuses, "413", "431"]
    return found


def test_these_are_all_operations(document):
    found = [(path, method) for path, item in document["paths"].items() for method in item]
    assert found == [*((path, "post") for path in POSTS), *((path, "get") for path in GETS)]


def test_the_document_is_valid_openapi(document):
    names = document["components"]["schemas"]
    for name in names:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).is_valid({})  # every reference is resolved
    assert {"ChatBody", "ChatAnswer", "ChatChunk", "Error"} <= set(names)


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        *((path, mode) for path in POSTS for mode in MODES),
        *((path, GenerationMode.POSITIVE) for path in GETS),  # there is little to do wrong
    ],
    ids=str,
)
def test_every_answer_is_as_the_document_has_it(path, mode, schema, session, document):
    operation = schema[path]["POST" if path in POSTS else "GET"]

    @settings(
        max_examples=CASES,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        extra = [checks.negative_data_rejection] if mode is GenerationMode.NEGATIVE else []
        reply = case.call(session=session, timeout=60)
        counted[f"{mode.name} {reply.status_code}"] += 1
        case.validate_response(reply, checks=[*CHECKS, *extra])
        canaries.check(case.operation.label, f"{reply.headers}{reply.text}")
        if reply.status_code >= 400:
            error = reply.json()["error"]
            assert len(error["message"]) <= 2_000
            if mode is GenerationMode.POSITIVE:
                assert error["code"] in REFUSED, (error, case.body)
        elif reply.headers["content-type"][0].startswith("text/event-stream"):
            check_events(reply.text, path, document)

    ask()


def check_events(text: str, path: str, document: dict[str, Any]) -> None:
    """Check each event of a stream against the chunk of the document."""
    name = "ChatChunk" if "chat" in path else "TextChunk"
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    *events, done, end = text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    for event in events:
        validator.validate(json.loads(event.removeprefix("data: ")))


@pytest.mark.parametrize("path", [*POSTS, *GETS])
def test_without_a_key_only_the_open_paths_answer(path, url, document):
    method = "POST" if path in POSTS else "GET"
    operation = document["paths"][path][method.lower()]
    tries = [
        {},
        {"headers": {"authorization": ""}},
        {"headers": {"authorization": canaries.CLIENT}},
        {"headers": {"authorization": f"Basic {canaries.CLIENT}"}},
        {"headers": {"authorization": f"Bearer {canaries.CLIENT}x"}},
        {"headers": {"authorization": f"Bearer {canaries.UPSTREAM}"}},
        {"headers": {"x-api-key": canaries.CLIENT}},
        {"params": {"api_key": canaries.CLIENT, "authorization": f"Bearer {canaries.CLIENT}"}},
        {"cookies": {"authorization": f"Bearer {quote(canaries.CLIENT)}"}},
    ]
    for options in tries:
        reply = requests.request(method, url + path.format(model="cook"), timeout=30, **options)
        canaries.check(path, f"{reply.headers}{reply.text}")
        if operation["security"]:
            assert reply.status_code == 401, options
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.json()["error"]["code"] == "invalid_api_key"
        else:
            assert reply.status_code == 200, options


@pytest.mark.parametrize("path", [*POSTS, *GETS])
def test_other_methods_are_refused_with_those_that_are_not(path, url, session, document):
    right = "POST" if path in POSTS else "GET"
    others = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - {right}
    for method in sorted(others):
        reply = session.request(method, url + path.format(model="cook"), timeout=30)
        assert reply.status_code == 405, method
        assert reply.headers["allow"] == right
        error = {"$ref": "#/components/schemas/Error", "components": document["components"]}
        jsonschema.validate(reply.json(), error)


def test_so_many_were_asked_and_none_was_lost(url, session):
    assert sum(counted.values()) >= LEAST, counted
    assert {"POSITIVE 200", "POSITIVE 404", "NEGATIVE 400"} <= set(counted), counted
    metrics = session.get(f"{url}/metrics", timeout=30).text
    assert "waypost_in_flight 0.0" in metrics
    assert "waypost_queued 0.0" in metrics
    canaries.check("metrics", metrics)


def test_no_key_and_no_traceback_is_in_any_log(url):
    assert canaries.check_logs(session_folder() / "logs") > 10
