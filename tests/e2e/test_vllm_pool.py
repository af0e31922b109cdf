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

from waypost.contracts.errors import ConfigError
from waypost.serve.environments import interpreter
from waypost.testing.processes import descendants
from waypost.testing.served import free_port

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
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Serve the shipped file on another port; gives its address and the process id."""
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
        yield url, process.pid
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
def client(server: tuple[str, int]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def ask(text: str) -> list[openai.types.chat.ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def replica(pid: int, model: str) -> list[int]:
    """Process ids of an LLM: its replica and vLLM's worker, which bears the same title."""
    return [one for one, title in descendants(pid) if f":{model}" in title and "ray::" in title]


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


def test_both_models_generate_in_processes_of_the_other_environment(server):
    for model in MODELS:
        pids = replica(server[1], model)
        assert len(pids) == 2, (model, pids)  # the replica, and vLLM's worker below it
        for pid in pids:
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "/vllm/_C.abi3.so" in maps or "torch" in maps


def test_a_client_that_goes_away_stops_the_generation(client, server):
    model = MODELS[0]
    pids = replica(server[1], model)
    stream = client.chat.completions.create(
        model=model, messages=ask("Tell a very long story."), max_tokens=500, stream=True
    )
    next(stream)
    begin, used = time.monotonic(), cpu_s(pids)
    for _ in zip(range(5), stream, strict=False):
        pass
    busy = (cpu_s(pids) - used) / (time.monotonic() - begin)
    stream.close()

    def idle() -> bool:
        before = cpu_s(pids)
        time.sleep(1)
        return cpu_s(pids) - before < 0.2 * busy

    until(idle, 5, lambda: f"{model} goes on generating")


def test_a_replica_that_is_killed_leaves_no_vllm_process_and_comes_back(client, server):
    url, pid = server
    model = MODELS[0]
    pids = replica(pid, model)
    head = next(one for one in pids if set(pids) & {below for below, _ in descendants(one)})
    os.kill(head, signal.SIGKILL)
    until(lambda: not any(map(alive, pids)), 20, lambda: f"{pids} are left")
    # the other model answers meanwhile
    answer = client.chat.completions.create(model="auto", messages=ask("Hello"), max_tokens=2)
    assert answer.model in MODELS
    until(lambda: answers(url, model), 300, lambda: f"{model} does not come back")
    assert len(replica(pid, model)) == 2


def alive(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
