"""Gateways on two Ray nodes with one store on the head: a node killed, then the whole head."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
import requests
import yaml

from support import one_ray, processes
from support.gateway import chat, knn_artifact
from support.rating import Raters, rate
from support.served import application, free_port
from support.two_nodes import two_nodes
from waypost.feedback import read_rated
from waypost.feedback.store import FLUSH_S
from waypost.serve import launch

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ONE_EACH = {"gateway": 1}
"""Resource of which each node has one, and each gateway needs one."""


def test_two_machines_share_feedback_and_neither_loss_of_one_loses_it(tmp_path, monkeypatch):
    one_ray.end()
    for name, value in launch.environment(throughput=False).items():
        monkeypatch.setenv(name, value)
    port = free_port()
    pool = [{"name": n, "engine": "echo", "placement": "inline"} for n in ("cook", "prover")]
    app = application(
        "main", knn_artifact(tmp_path / "artifact"), pool,
        gateway={"num_replicas": 2, "port": port, "ray_actor_options": {"resources": ONE_EACH}},
        router={"placement": "inline"}, feedback_dir=str(tmp_path / "feedback"),
        store_place="head",
    )  # fmt: skip
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [app]}))
    url = f"http://127.0.0.1:{port}"

    def ask() -> str:
        answer = requests.post(f"{url}/v1/chat/completions", json=chat(), timeout=60)
        return answer.headers["x-waypost-request-id"]

    with two_nodes(path, ONE_EACH, ONE_EACH) as (cluster, node):
        # the gateways share the port, and each connection is one of them's
        early = [ask() for _ in range(12)]
        time.sleep(2 * FLUSH_S)
        first = [rate(url, request_id) for request_id in early]
        assert None not in first
        before = processes.replicas("main", "Gateway")
        assert len(before) == 2
        with Raters(url) as raters:
            raters.until(20)
            cluster.remove_node(node, allow_graceful=False)
            raters.until(20)
            lost = set(before) - set(processes.replicas("main", "Gateway"))
            assert len(lost) == 1
            raters.over()
            # the head with its store, in the middle of the writes
            for pid, title in list(processes.descendants()):
                if "gcs_server" in title or title.startswith("ray::ServeReplica:main"):
                    os.kill(pid, signal.SIGKILL)
    with two_nodes(path, ONE_EACH, ONE_EACH):
        assert [rate(url, request_id) for request_id in early] == first
        with Raters(url) as again:
            again.until(10)
    counts = Counter(event["request_id"] for event in read_rated(tmp_path / "feedback").events)
    assert {*early, *raters.acknowledged, *again.acknowledged} <= set(counts)
    assert set(counts.values()) == {1}
