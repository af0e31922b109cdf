"""The chat page of a graph: at the gateway's port and Serve's proxy, killed, off; two gateways."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from support import processes
from support.gateway import ALGEBRA, COOKING, knn_artifact
from support.served import application, by_proxy, served
from waypost import Gateway

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SOON_S = 60.0


def answered(url: str) -> requests.Response:
    """Return the first answer that is not 503: the page's replica may be starting again."""
    until = time.monotonic() + SOON_S
    while True:
        reply = requests.get(url, timeout=30)
        if reply.status_code != 503 or time.monotonic() > until:
            return reply
        time.sleep(0.2)


def test_the_chat_page_of_a_graph(tmp_path: Path) -> None:
    pool = [{"name": n, "engine": "echo", "placement": "inline"} for n in ("cook", "prover")]
    app = application(
        "main", knn_artifact(tmp_path / "artifact"), pool, gateway={"num_replicas": 2},
        router={"placement": "inline"}, chat={"hosts": ["127.0.0.1"]},
    )  # fmt: skip
    with served({"applications": [app | {"route_prefix": "/"}]}, tmp_path) as url:
        for base in (url, by_proxy()):
            page = requests.get(f"{base}/chat/", timeout=60)
            assert page.status_code == 200
            assert "<html" in page.text
            config = requests.get(f"{base}/chat/config", timeout=60).json()
            # the browser asks below /chat, whichever port it came by
            assert config["root"] == f"{base}/chat"
            evil = requests.get(f"{base}/chat/", headers={"host": "evil.example"}, timeout=60)
            assert evil.status_code >= 400
        script = page.text.split('src="', 1)[1].split('"', 1)[0]
        name = script.removeprefix("./").rpartition("/chat/")[2]
        assert requests.get(f"{url}/chat/{name}", timeout=60).status_code == 200
        files = {"files": ("note.txt", b"x" * 200_000)}
        sent = requests.post(f"{url}/chat/gradio_api/upload", files=files, timeout=60)
        assert sent.status_code == 200
        place = f"{url}/chat/gradio_api/file={sent.json()[0]}"
        part = requests.get(place, headers={"range": "bytes=0-9"}, timeout=60)
        assert (part.status_code, part.content) == (206, b"x" * 10)
        assert requests.get(f"{url}/v1/status", timeout=60).json()["chat"] == "/chat"

        assert processes.kill("main", "Chat")
        assert answered(f"{url}/chat/").status_code == 200

        # each gateway decides alike on the turns that a request brings
        told = [_routed(base, "And for two?") for base in (url, by_proxy()) * 4]
        assert {str(one) for one in told} == {str(told[0])}
        assert told[0]["retrieved"] == {"turns": 1, "of": 2}

    off = {key: value for key, value in app["args"].items() if key != "chat"}
    with served({"applications": [app | {"route_prefix": "/", "args": off}]}, tmp_path) as url:
        assert requests.get(f"{url}/chat", timeout=60).status_code == 404
        assert processes.replicas("main", "Chat") == []


def _routed(base: str, text: str) -> dict[str, Any]:
    said = [{"role": "user", "content": one} for one in (COOKING, ALGEBRA, text)]
    messages = [said[0], {"role": "assistant", "content": "ok"}, said[1]]
    messages += [{"role": "assistant", "content": "ok"}, said[2]]
    body = {"messages": messages, "waypost": {"route_on": "retrieval", "top_k": 1}}
    reply = requests.post(f"{base}/v1/route", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return {key: found[key] for key in ("model_name", "quality", "characters", "retrieved")}


def test_the_chat_page_of_a_gateway_without_ray(tmp_path: Path) -> None:
    pool = [{"name": n, "engine": "echo"} for n in ("cook", "prover")]
    with Gateway(artifact=knn_artifact(tmp_path / "artifact"), pool=pool, chat="on") as gateway:
        url = gateway.listen()
        page = requests.get(f"{url}/chat/", timeout=60)
        assert (page.status_code, "<html" in page.text) == (200, True)
        evil = requests.get(f"{url}/chat/", headers={"host": "evil.example"}, timeout=60)
        assert evil.status_code >= 400
        assert requests.get(f"{url}/v1/status", timeout=60).json()["chat"] == "/chat"
