"""Feedback of a served graph: gateway replicas that are killed, and that end gracefully."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests

from support import processes
from support.gateway import chat, knn_artifact
from support.served import application, served
from waypost.feedback import read_rated
from waypost.feedback.store import FLUSH_S

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

N_REQUESTS = 12


def rate(url: str, request_id: str, key: str) -> dict[str, object]:
    """Send a rating until a gateway takes it, as a client does."""
    body = {"request_id": request_id, "rating": 0.5, "idempotency_key": key}
    deadline = time.monotonic() + 240
    while True:
        try:
            reply = requests.post(f"{url}/v1/feedback", json=body, timeout=5)
        except requests.RequestException:  # the port is held while no gateway is behind it
            assert time.monotonic() < deadline
        else:
            if reply.status_code < 500:
                assert reply.status_code == 200, reply.text
                return reply.json()
        time.sleep(0.2)


def test_killed_gateways_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    pool = [{"name": n, "engine": "echo", "placement": "inline"} for n in ("cook", "prover")]
    app = application(
        "main", knn_artifact(tmp_path / "artifact"), pool, gateway={"num_replicas": 2},
        router={"placement": "inline"}, feedback_dir=str(tmp_path / "feedback"),
        decision_log=str(tmp_path / "log"),
    )  # fmt: skip
    with served({"applications": [app | {"route_prefix": "/"}]}, tmp_path) as url:
        ids = []
        for _ in range(N_REQUESTS):
            answer = requests.post(f"{url}/v1/chat/completions", json=chat(), timeout=60)
            ids.append(answer.headers["x-waypost-request-id"])
        time.sleep(2 * FLUSH_S)
        first = [rate(url, request_id, f"k-{request_id}") for request_id in ids[:6]]
        assert len(processes.kill("main", "Gateway")) == 2
        # those answered and rated before the kill, by gateways that no longer are
        again = [rate(url, request_id, f"k-{request_id}") for request_id in ids]
        assert again[:6] == first
        last = requests.post(f"{url}/v1/chat/completions", json=chat(), timeout=60)
    found = read_rated(tmp_path / "feedback")
    assert sorted(event["request_id"] for event in found.events) == sorted(ids)
    assert found.replaced == 0
    logged = [
        request_id
        for path in (tmp_path / "log").rglob("*.parquet")
        for request_id in pq.ParquetFile(path).read()["request_id"].to_pylist()
    ]
    assert len(logged) == len(set(logged))
    assert set(logged) <= {*ids, last.headers["x-waypost-request-id"]}
