"""The main job as a new user meets it: the shipped config, real models, the official client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STARTERS = {
    "waypost serve": [sys.executable, "-m", "waypost.cli", "serve"],
    "serve run": [str(Path(sys.executable).parent / "serve"), "run"],
}
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(base_url: str, model: str) -> bool:
    """Say whether that model answers by now: while its weights load it is 503, or nobody."""
    body = {"model": model, "max_tokens": 1, "messages": ask("hello")}
    call = urllib.request.Request(f"{base_url}/v1/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(call, timeout=60) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", params=STARTERS)
def base_url(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Serve serve_configs/router.yaml on another port, the two ways the README names."""
    command = STARTERS[request.param]
    folder = tmp_path_factory.mktemp("main_job")
    port = free_port()
    text = (root / "serve_configs" / "router.yaml").read_text()
    assert text.count("port: 8000") == 1
    text = text.replace("port: 8000", f"port: {port}")
    config = folder / "router.yaml"
    config.write_text(text.replace("feedback_dir: feedback", f"feedback_dir: {folder}/feedback"))
    log = folder / "serve.log"
    # RAY_ADDRESS: never a Ray that happens to run on this machine
    env = {**os.environ, "WAYPOST_ROOT": str(root), "RAY_ADDRESS": "local"}
    env.pop("OMP_NUM_THREADS", None)
    with log.open("w") as out:
        server = subprocess.Popen(
            [*command, str(config)], cwd=root, env=env, stdout=out, stderr=out
        )
    try:
        deadline = time.monotonic() + 480
        while not all(answers(f"http://127.0.0.1:{port}", model) for model in MODELS):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def ask(text: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def test_a_question_is_routed_and_answered_by_a_real_model(client):
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=ask("What is the capital of France?"), max_tokens=40, temperature=0
    )
    answer = raw.parse()
    assert "Paris" in (answer.choices[0].message.content or "")
    assert raw.headers["x-waypost-model"] == answer.model
    assert raw.headers["x-waypost-router"] == "knnrouter"
    assert raw.headers["x-waypost-reason"]
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    assert answer.usage.model_extra["waypost"]["cost_usd"] > 0


def test_a_stream_gives_the_same_answer_in_pieces(client):
    question = ask("Write a Python function that adds two numbers. Code only.")
    whole = client.chat.completions.create(
        model="smollm2-135m", messages=question, max_tokens=24, temperature=0
    )
    chunks = list(
        client.chat.completions.create(
            model="smollm2-135m",
            messages=question,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens == 24
    assert len(chunks) > 3


def test_code_and_cost_are_routed_differently(client):
    def chosen(text: str, **extra: float) -> str:
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=ask(text), max_tokens=1, extra_body={"waypost": extra}
        )
        return str(raw.headers["x-waypost-model"])

    code = "Write a Python function that reverses a string."
    assert chosen(code) == "qwen2.5-coder-0.5b"
    assert chosen(code, **{"lambda": 100.0}) == "smollm2-135m"


def test_unknown_models_are_404_and_known_ones_are_listed(client):
    with pytest.raises(openai.NotFoundError, match=r"qwen2\.5-coder-0\.5b"):
        client.chat.completions.create(model="gpt-9", messages=ask("hello"))
    names = {model.id for model in client.models.list()}
    assert {"auto", *MODELS} <= names


def test_health_and_metrics(base_url):
    with urllib.request.urlopen(f"{base_url}/healthz") as reply:
        assert reply.status == 200
    with urllib.request.urlopen(f"{base_url}/metrics") as reply:
        assert b"waypost_" in reply.read()
