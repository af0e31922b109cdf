"""``waypost serve`` on SIGHUP: the changed file is brought into force, a wrong one refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from openai import APIError, OpenAI

from support.gateway import knn_artifact
from support.served import application, free_port
from support.ways import LOCAL, RAY, WAYS

OPTIONS = {LOCAL: "--local", RAY: "--plain"}

IN_TIME_S = 120.0


class Server:
    """A ``waypost serve`` of a file that the test changes."""

    def __init__(self, folder: Path, way: str) -> None:
        self.path = folder / "graph.yaml"
        self.said = folder / "said.txt"
        self.port = free_port()
        pool = [{"name": "cook", "engine": "echo", "config": {"tokens_per_s": 10}}]
        pool.append({"name": "tiny", "engine": "echo", "placement": "inline"})
        self.data = {
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": [
                application(
                    "app",
                    knn_artifact(folder / "artifact"),
                    pool,
                    gateway={"graceful_shutdown_timeout_s": 2},
                    router={"placement": "inline"},
                )
            ],
        }
        self.write(self.data)
        command = [sys.executable, "-m", "waypost.cli", "serve", str(self.path), OPTIONS[way]]
        with self.said.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ})

    def write(self, data: dict) -> None:
        self.path.write_text(yaml.safe_dump(data))

    def with_config(self, config: dict) -> dict:
        deployments = [{"name": "Gateway", "user_config": config}]
        (app,) = self.data["applications"]
        return {**self.data, "applications": [{**app, "deployments": deployments}]}

    def reload(self, data: dict) -> None:
        self.write(data)
        self.process.send_signal(signal.SIGHUP)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + IN_TIME_S
        while not self._holds(condition):
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.2)

    def _holds(self, condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except APIError as error:
            raise AssertionError(self.said.read_text()) from error

    def says(self, text: str) -> bool:
        return text in self.said.read_text()

    def answered_by(self) -> str:
        base = f"http://127.0.0.1:{self.port}/app/v1"
        with OpenAI(api_key="none", base_url=base, max_retries=0) as client:
            messages = [{"role": "user", "content": "how long does rice boil?"}]
            return client.chat.completions.create(model="auto", messages=messages).model


@pytest.fixture(scope="module", params=WAYS)
def server(request, tmp_path_factory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("serve"), request.param)
    server.until(lambda: server.says("Ctrl-C stops it"))
    yield server
    server.process.send_signal(signal.SIGINT)
    try:
        server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()


def test_a_changed_file_is_brought_into_force_and_a_wrong_one_refused(server):
    only = {"policy": {"allowed_models": ["tiny"]}}
    server.reload(server.with_config(only))
    server.until(lambda: server.answered_by() == "tiny")
    server.until(lambda: server.says(f"{server.path} is in force"))

    server.reload(server.with_config({"polcy": {}}))
    server.until(lambda: server.says("the active config stays"))
    assert server.says("user_config: polcy: unknown key")
    assert server.answered_by() == "tiny"

    server.reload(server.with_config({"retired": ["tiny"]}))
    server.until(lambda: server.answered_by() == "cook")


def test_a_stream_that_is_open_when_the_server_stops_is_told(server):
    base = f"http://127.0.0.1:{server.port}/app/v1"
    messages = [{"role": "user", "content": "a " * 10_000}]
    body = {"model": "cook", "messages": messages, "stream": True}
    with httpx2.stream("POST", f"{base}/chat/completions", json=body, timeout=IN_TIME_S) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        server.process.send_signal(signal.SIGINT)
        *_, last = [line for line in lines if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "server_stopping"
    server.process.wait(IN_TIME_S)
    assert server.said.read_text().endswith("stopping: open requests have up to 2 s\nstopped\n")
