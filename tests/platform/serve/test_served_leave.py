"""preStop of a pod: its Ray node is drained, and no stream is cut off."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml

from support import one_ray
from support.gateway import chat, knn_artifact
from support.served import application, free_port
from support.two_nodes import two_nodes
from waypost.serve import launch, leave

pytestmark = [
    pytest.mark.ray,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STREAMS = 12
TOKENS, A_SECOND = 60, 4
"""A stream takes 15 s: longer than Serve takes to start a gateway elsewhere."""


def test_a_node_leaves_without_a_cut_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_ray.end()
    for name, value in launch.environment(throughput=False).items():
        monkeypatch.setenv(name, value)
    port = free_port()
    slow = {"tokens": TOKENS, "tokens_per_s": A_SECOND}
    pool = [
        {"name": name, "engine": "echo", "placement": "inline", "config": slow}
        for name in ("cook", "prover")
    ]
    app = application(
        "main", knn_artifact(tmp_path / "artifact"), pool,
        gateway={
            "num_replicas": 2, "port": port, "graceful_shutdown_timeout_s": 60,
            "ray_actor_options": {"resources": {"gateway": 1}},
        },
        router={"placement": "inline"},
    )  # fmt: skip
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1"}, "applications": [app]}))
    url = f"http://127.0.0.1:{port}/v1/chat/completions"

    def stream() -> tuple[int, str]:
        with requests.post(url, json=chat(stream=True), stream=True, timeout=120) as reply:
            lines = [line for line in reply.iter_lines() if line]
            return len(lines), lines[-1].decode()

    with two_nodes(path, {"gateway": 2}, {"gateway": 1}) as (_, node):
        with ThreadPoolExecutor(STREAMS) as threads:
            running = [threads.submit(stream) for _ in range(STREAMS)]
            time.sleep(2)
            (own,) = [one for one in leave.nodes() if one.id == node.node_id]
            assert leave.replicas(own) == 1
            command = [sys.executable, "-m", "waypost.serve.leave"]
            done = subprocess.run(
                [*command, "--within", "120", "--node", node.node_id],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, "no replica is left" in done.stderr) == (0, True), done.stderr
            assert leave.replicas(own) == 0
            for one in running:
                length, last = one.result()
                assert last == "data: [DONE]"
                assert length > TOKENS
        # the other gateway, and the one that came in place of this one
        assert stream()[1] == "data: [DONE]"
