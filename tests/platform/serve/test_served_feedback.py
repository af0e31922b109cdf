"""Feedback of a served graph whose gateways share an owner: each of them killed in mid-write."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import requests

from support import processes
from support.gateway import chat, knn_artifact
from support.rating import Raters, rate
from support.served import application, served
from waypost.feedback import read_rated
from waypost.feedback.database import DATABASE
from waypost.feedback.store import FLUSH_S

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

BETWEEN = 15
"""Acknowledged events between two kills."""


def writers(deployment: str) -> list[bool]:
    """Return for each replica whether it has the database open."""
    folders = (Path(f"/proc/{pid}/fd") for pid in processes.replicas("main", deployment))
    return [any(link.readlink().name == DATABASE for link in f.iterdir()) for f in folders]


def test_killed_gateways_and_owners_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    pool = [{"name": n, "engine": "echo", "placement": "inline"} for n in ("cook", "prover")]
    app = application(
        "main", knn_artifact(tmp_path / "artifact"), pool, gateway={"num_replicas": 2},
        router={"placement": "inline"}, feedback_dir=str(tmp_path / "feedback"),
        store_place="head", decision_log=str(tmp_path / "log"),
    )  # fmt: skip
    with served({"applications": [app | {"route_prefix": "/"}]}, tmp_path) as url:
        answer = requests.post(f"{url}/v1/chat/completions", json=chat(), timeout=60)
        early = answer.headers["x-waypost-request-id"]
        time.sleep(2 * FLUSH_S)
        first = rate(url, early)
        assert writers("Gateway") == [False, False]
        assert writers("Owner") == [True]
        with Raters(url) as raters:
            for deployment in ("Owner", "Gateway"):
                raters.until(BETWEEN)
                assert processes.kill("main", deployment)
            raters.until(BETWEEN)
        # by gateways that no longer are
        assert rate(url, early) == first
    found = read_rated(tmp_path / "feedback")
    counts = Counter(event["request_id"] for event in found.events)
    assert {early, *raters.acknowledged} <= set(counts)
    assert set(counts.values()) == {1}
    assert found.replaced == 0
    logged = Counter(
        request_id
        for path in (tmp_path / "log").rglob("*.parquet")
        for request_id in pq.ParquetFile(path).read()["request_id"].to_pylist()
    )
    assert set(logged.values()) == {1}
