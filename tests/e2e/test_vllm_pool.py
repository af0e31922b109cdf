"""serve_configs/vllm_pool.yaml from HTTP to answer: the router here, the LLMs in vLLM 0.6.3 in the
router-r1 environment, on its CPU build."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from support.processes import descendants, replicas
from support.served import free_port
from waypost.contracts.errors import ConfigError
from waypost.serve.environments import interpreter

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ENVIRONMENT = "router-r1-cpu"
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
TICKS = os.sysconf("SC_CLK_TCK")


def until(holds: Callable[[], object], within_s: float, why: Callable[[], str]) -> None:
    """Wait for a condition; fail with `why` where it does not come."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the shipped file on another port; gives its address."""
    try:
        python = interpreter(ENVIRONMENT, "test")
    except ConfigError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("vllm_pool")
    port = free_port()
    text = (root / "serve_configs" / "vllm_pool.yaml").read_text()
    assert text.count("port: 8000") == 1
    text = text.replace("port: 8000", f"port: {port}")
    config = folder / "vllm_pool.yaml"
    config.write_text(text.replace("feedback_dir: feedback", f"feedback_dir: {folder}/feedback"))
    log = folder / "serve.log"
    # RAY_ADDRESS: never a Ray that happens to run on this machine
    env = {**os.environ, "WAYPOST_ROOT": str(root), "RAY_ADDRESS": "local"}
    env["WAYPOST_ENV_ROUTER_R1"] = str(python)
    env.pop("OMP_NUM_THREADS", None)
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "waypost.cli", "serve", str(config)],
            cwd=root,
            env=env,
            stdout=out,
            stderr=out,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return all(answers(url, model) for model in MODELS)

        until(ready, 600, log.read_text)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str, model: str) -> bool:
    """Say whether that model answers by now."""
    body = {"model": model, "max_tokens": 1, "messages": ask("hello")}
    call = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(call, timeout=120) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def ask(text: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def processes(model: str) -> list[int]:
    """Process ids of an LLM: its replica, and below it vLLM's worker and what watches over that."""
    heads = replicas("waypost", model)
    return sorted({*heads, *(pid for head in heads for pid, _ in descendants(head))})


def cpu_s(pids: list[int]) -> float:
    """Seconds of CPU that processes have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / TICKS


def test_a_question_is_routed_and_answered_by_vllm(client):
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=ask("What is the capital of France?"), max_tokens=40, temperature=0
    )
    answer = raw.parse()
    assert "Paris" in (answer.choices[0].message.content or "")
    assert raw.headers["x-waypost-model"] == answer.model
    assert answer.model in MODELS
    assert raw.headers["x-waypost-router"] == "knnrouter"
    assert answer.usage.completion_tokens > 0
    assert answer.usage.model_extra["waypost"]["cost_usd"] > 0


@pytest.mark.parametrize("model", MODELS)
def test_a_pinned_model_streams_what_it_answers_whole(client, model):
    asked = {"model": model, "messages": ask("Name three colours."), "max_tokens": 24}
    whole = client.chat.completions.create(**asked, temperature=0)
    chunks = list(client.chat.completions.create(**asked, temperature=0, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 2
    assert whole.model == model


@pytest.mark.parametrize("model", MODELS)
def test_a_model_runs_in_processes_of_the_other_environment(server, model):
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in processes(model)]
    assert sum("/vllm/_C.abi3.so" in text for text in maps) >= 2  # the replica, and its worker


def test_a_client_that_goes_away_stops_the_generation(client, server):
    model = MODELS[0]
    pids = processes(model)

    def busy_s(within_s: float) -> float:
        before = cpu_s(pids)
        time.sleep(within_s)
        return cpu_s(pids) - before

    stream = client.chat.completions.create(
        model=model,
        messages=ask("Tell a very long story."),
        max_tokens=500,
        temperature=0,
        stream=True,
    )
    next(stream)
    assert busy_s(2) > 0.2  # it would go on for half a minute
    stream.close()
    until(lambda: busy_s(1) < 0.1, 5, lambda: f"{model} goes on generating")


def test_a_replica_that_is_killed_leaves_no_vllm_process_and_comes_back(client, server):
    model = MODELS[0]
    pids = processes(model)
    assert len(pids) == 3, pids
    head = next(one for one in pids if len(list(descendants(one))) == 2)
    os.kill(head, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), 20, lambda: f"{pids} are left")
    # the other model answers meanwhile
    answer = client.chat.completions.create(model="auto", messages=ask("Hello"), max_tokens=2)
    assert answer.model in MODELS
    until(lambda: answers(server, model), 300, lambda: f"{model} does not come back")
    assert len(processes(model)) == 3


def alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
