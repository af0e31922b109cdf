"""``waypost serve --haproxy``: generated requests, slow bodies, a stop.

`test_served_schema` and `test_served_hostile` try the same by the other ingresses.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest
import requests

from support.fuzzing import CASES, KINDS, ask_all
from support.gateway import chat, knn_artifact
from support.raw_http import request_bytes
from support.served import IN_TIME_S, Command, application, command
from support.slow_bodies import check_hold_no_place

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CHAT = "/v1/chat/completions"
SHARE = 3
"""One in so many of the cases of the other ingresses."""

LIMITS = {"body_timeout_s": 2.0, "max_in_flight": 4, "max_queued": 4}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Command]:
    folder = tmp_path_factory.mktemp("haproxy")
    pool = [{"name": name, "engine": "echo", "placement": "inline"} for name in ("cook", "prover")]
    pool.append({"name": "tiny", "engine": "echo", "config": {"tokens_per_s": 10}})
    app = application(
        "main",
        knn_artifact(folder / "artifact"),
        pool,
        feedback_dir=str(folder / "feedback"),
        router={"placement": "inline"},
        limits=LIMITS,
        gateway={"graceful_shutdown_timeout_s": 2},
    )
    data = {"applications": [app | {"route_prefix": "/"}]}
    with command(data, folder, "--haproxy") as found:
        found.until(lambda: "Ctrl-C stops it" in found.said())
        yield found


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_every_answer_is_as_the_document_has_it(server, session):
    document = session.get(f"{server.url}/openapi.json", timeout=30).json()
    counted: Counter[str] = Counter()
    for kind in KINDS:
        counted += ask_all((server.url,), session, document, kind, CASES // SHARE)
    assert sum(counted.values()) >= 8 * (CASES // SHARE), counted
    assert {"POSITIVE 200", "POSITIVE 404", "NEGATIVE 400"} <= set(counted), counted


def test_slow_bodies_hold_no_place(server):
    body = request_bytes(CHAT, headers=[("content-length", "1000")])
    asyncio.run(check_hold_no_place(server.url, body, LIMITS["max_in_flight"]))


def test_a_stream_that_is_open_when_the_server_stops_is_told(server):
    body = chat("a " * 10_000, model="tiny", stream=True)
    with httpx2.stream("POST", f"{server.url}{CHAT}", json=body, timeout=IN_TIME_S) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        server.process.send_signal(signal.SIGINT)
        *_, last = [line for line in lines if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_stopping"
    server.process.wait(IN_TIME_S)
    assert server.said().endswith("stopping: open requests have up to 2 s\nstopped\n")
