"""The served OpenAPI document against the served gateway: generated requests, right and wrong.

1,500 in CI, ``make fuzz`` asks seven times as many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
import requests

from support import canaries
from support.fuzzing import CASES, KINDS, METHODS, ask_all
from support.gateway import knn_artifact
from support.served import application, by_proxy, served, session_folder

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

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


def test_these_are_all_operations(document):
    found = [(path, method) for path, item in document["paths"].items() for method in item]
    assert found == [(path, method.lower()) for path, method in METHODS.items()]


def test_the_document_is_valid_openapi(document):
    names = document["components"]["schemas"]
    for name in names:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).is_valid({})  # every reference is resolved
    assert {"ChatBody", "ChatAnswer", "ChatChunk", "Error"} <= set(names)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_answer_is_as_the_document_has_it(kind, url, session, document):
    """By the gateway's own server and by Serve's proxy in turns; `test_served_haproxy` has more."""
    counted.update(ask_all((url, by_proxy()), session, document, kind, CASES))


@pytest.mark.parametrize("path", METHODS)
def test_without_a_key_only_the_open_paths_answer(path, url, document):
    method = METHODS[path]
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


@pytest.mark.parametrize("path", METHODS)
def test_other_methods_are_refused_with_those_that_are_not(path, url, session, document):
    right = METHODS[path]
    others = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - {right}
    for method in sorted(others):
        reply = session.request(method, url + path.format(model="cook"), timeout=30)
        assert reply.status_code == 405, method
        assert reply.headers["allow"] == right
        error = {"$ref": "#/components/schemas/Error", "components": document["components"]}
        jsonschema.validate(reply.json(), error)


def test_so_many_were_asked_and_none_was_lost(url, session):
    assert sum(counted.values()) >= 8 * CASES, counted
    assert {"POSITIVE 200", "POSITIVE 404", "NEGATIVE 400"} <= set(counted), counted
    metrics = session.get(f"{url}/metrics", timeout=30).text
    assert "waypost_requests_in_flight 0.0" in metrics
    assert "waypost_requests_queued 0.0" in metrics
    canaries.check("metrics", metrics)


def test_no_key_and_no_traceback_is_in_any_log(url):
    assert canaries.check_logs(session_folder() / "logs") > 10
