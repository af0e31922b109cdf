"""Readiness of graphs under Ray Serve: one application waits for an LLM, one passes it over."""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gateway import COOKING, chat, unservable
from support.served import Command, application, command

CHAT = "/v1/chat/completions"

STARTERS = {
    "waypost serve": (sys.executable, "-P", "-m", "waypost.cli", "serve"),
    "serve run": (str(Path(sys.executable).parent / "serve"), "run", "--address", "local"),
}


class Graph:
    """Two applications whose LLM ``cook`` loads until it is released."""

    def __init__(self, server: Command, file: Path, ours: bool) -> None:
        self.server, self.file, self.ours = server, file, ours

    def get(self, path: str) -> tuple[int, Any, Any]:
        return self._ask(urllib.request.Request(f"{self.server.url}{path}"))

    def post(self, app: str, body: dict[str, Any]) -> tuple[int, Any, Any]:
        url, data = f"{self.server.url}/{app}{CHAT}", json.dumps(body).encode()
        return self._ask(urllib.request.Request(url, data))

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any, Any]:
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, reply.headers, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, json.loads(error.read() or b"null")

    def says(self, app: str, *awaited: str) -> bool:
        """Say whether exactly these are awaited by now."""
        try:
            _, _, body = self.get(f"/{app}/readyz")
        except (OSError, ValueError):
            return False  # nobody listens yet, or Serve itself says that there is no application
        return body is not None and set(body.get("loading_s", "?")) == set(awaited)


@pytest.fixture(
    scope="module",
    params=["waypost serve", pytest.param("serve run", marks=pytest.mark.long)],
)
def graph(request, artifact, tmp_path_factory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp("readiness")
    file = folder / "go"
    cook = {"name": "cook", "engine": "echo", "config": {"load_until": str(file)}}
    prover = {"name": "prover", "engine": "echo"}
    broken = {"working_dir": f"file://{folder}/none.zip"}  # its replicas fail, and Serve gives up
    crashes = {"name": "tiny", "engine": "echo", "ray_actor_options": {"runtime_env": broken}}
    limits = {"first_token_timeout_s": 120}
    data = {
        "applications": [
            application("wait", artifact, [cook, prover, unservable("tiny")], limits=limits),
            application(
                "pass", artifact, [cook, {**prover, "placement": "inline"}, crashes],
                while_loading="pass", router={"placement": "inline"},
            ),
        ]
    }  # fmt: skip
    with command(data, folder, starter=STARTERS[request.param]) as server:
        graph = Graph(server, file, request.param == "waypost serve")
        server.until(lambda: graph.says("wait", "cook") and graph.says("pass", "cook"))
        yield graph


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_graph_loads_and_is_ready(graph):
    for app in ("wait", "pass"):
        status, headers, body = graph.get(f"/{app}/readyz")
        assert (status, body["status"], [*body["failed"]]) == (503, "loading", ["tiny"])
        assert body["loading_s"]["cook"] > 0
        assert int(headers["retry-after"]) >= 1
        assert graph.get(f"/{app}/healthz")[0] == 200
        status, headers, body = graph.post(app, chat(model="cook"))
        assert (status, body["error"]["code"]) == (503, "model_loading")
        assert int(headers["retry-after"]) >= 1
        assert graph.post(app, chat(model="prover"))[0] == 200
    status, headers, _ = graph.post("pass", chat(COOKING))
    assert (status, headers["x-waypost-model"], headers["x-waypost-attempts"]) == (
        200, "prover", "1",
    )  # fmt: skip
    assert "Ctrl-C stops it" not in graph.server.said()

    found: list[Any] = []
    waits = threading.Thread(target=lambda: found.append(graph.post("wait", chat(COOKING))))
    waits.start()
    time.sleep(1.0)
    assert not found
    graph.file.touch()
    waits.join()
    status, headers, _ = found[0]
    assert (status, headers["x-waypost-model"], headers["x-waypost-attempts"]) == (200, "cook", "1")

    graph.server.until(lambda: graph.says("wait") and graph.says("pass"))
    for app in ("wait", "pass"):
        status, _, body = graph.get(f"/{app}/readyz")
        assert (status, body["status"], body["loading_s"]) == (200, "ready", {})
        assert [*body["failed"]] == ["tiny"]
        assert graph.post(app, chat(COOKING))[1]["x-waypost-model"] == "cook"
    if graph.ours:
        graph.server.until(lambda: "Ctrl-C stops it" in graph.server.said())
        said = graph.server.said()
        assert "wait/tiny does not serve: " in said
        assert "/v1 serves auto, cook, prover\n" in said
        assert "dashboard" not in said
        assert "LongPollClient" not in said
