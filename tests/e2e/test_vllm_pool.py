"""vllm_pool.yaml and router_r1.yaml of serve_configs from HTTP to answer, in one server: the
routers here, the LLMs in vLLM 0.6.3 in the router-r1 environment, on its CPU build. Router-R1 is
trained there with the LLMs of the first as its delegates."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from click.testing import CliRunner

from support.learnable_world import run_config, write_policy
from support.processes import descendants, replicas
from support.served import free_port
from support.tiny_policy import ANSWER, write_tiny_policy
from support.training_process import curve, finish_training, kill_training, start_training
from waypost.cli import command
from waypost.contracts.errors import ConfigError
from waypost.serve.environments import interpreter

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ENVIRONMENT = "router-r1-cpu"
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
R1, DELEGATE = "/r1", "smollm2-135m"
"""Path of the application of router_r1.yaml, and the LLM that its policy asks."""
TICKS = os.sysconf("SC_CLK_TCK")
TOKEN = secrets.token_hex(16)
"""Of the server's Ray, for those who join it."""
STEPS = 3


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
    served = yaml.safe_load((root / "serve_configs" / "vllm_pool.yaml").read_text())
    served["http_options"]["port"] = port
    served["applications"].append(router_r1(root, folder))
    for application in served["applications"]:
        application["args"]["feedback_dir"] = str(folder / "feedback" / application["name"])
    config = folder / "served.yaml"
    config.write_text(yaml.safe_dump(served, sort_keys=False))
    log = folder / "serve.log"
    # RAY_ADDRESS: never a Ray that happens to run on this machine
    env = {**os.environ, "WAYPOST_ROOT": str(root), "RAY_ADDRESS": "local"}
    env |= {"WAYPOST_ENV_ROUTER_R1": str(python), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
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
            return all(answers(url, model) for model in MODELS) and all(
                answers(url + R1, model) for model in ("policy", DELEGATE)
            )

        until(ready, 600, log.read_text)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def router_r1(root: Path, folder: Path) -> dict[str, Any]:
    """Return the application of router_r1.yaml with a tiny policy and one delegate.

    Without the second delegate: its start takes the CPU of the others.
    """
    policy, artifact = write_tiny_policy(folder / "policy"), folder / "artifact"
    whole = yaml.safe_load((root / "serve_configs" / "router_r1.yaml").read_text())
    (application,) = whole["applications"]
    application |= {"name": "r1", "route_prefix": R1}
    args = application["args"]
    args["artifact"] = str(artifact)
    args["pool"] = [one for one in args["pool"] if one["name"] in {"policy", DELEGATE}]
    args["pool"][0]["config"]["model"] = str(policy)
    pool = folder / "r1.yaml"
    pool.write_text(yaml.safe_dump(whole))
    words = ["rl", "import", str(policy), "--pool", str(pool), "--out", str(artifact)]
    # The policy was trained with another name of its delegate.
    words += ["--candidate", f"cook={DELEGATE}", "--fallback", DELEGATE, "search_tokens=16"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    return dict(application)


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


def processes(model: str, application: str = "waypost") -> list[int]:
    """Process ids of an LLM: its replica, and below it vLLM's worker and what watches over that."""
    heads = replicas(application, model)
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


def test_a_trained_policy_asks_an_llm_and_answers(server):
    """All LLMs of router_r1.yaml in vLLM; the policy continues its own text, without a template."""
    with openai.OpenAI(base_url=f"{server}{R1}/v1", api_key="unused", max_retries=0) as client:
        asked = {"model": "auto", "messages": ask("Which theorem is it?")}
        answer = client.chat.completions.create(**asked)
        wants = {"waypost": {"progress": True}}
        chunks = list(client.chat.completions.create(**asked, stream=True, extra_body=wants))
    assert answer.choices[0].message.content == ANSWER
    told = answer.usage.model_extra["waypost"]
    assert (told["calls"], told["ended_by"], told["model"]) == (3, "answer", "policy")
    assert told["cost_usd"] > 0
    progress = [(chunk.model_extra or {}).get("waypost") or {} for chunk in chunks]
    steps = [one["step"] for one in progress if "step" in one]
    done = [(step["purpose"], step["model"]) for step in steps if step["state"] == "done"]
    assert done == [("policy", "policy"), ("search", DELEGATE), ("policy", "policy")]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in processes("policy", "r1")]
    assert sum("/vllm/_C.abi3.so" in text for text in maps) >= 2


@pytest.fixture(scope="module")
def training(server: str) -> dict[str, Any]:
    """Say how a training starts that may join the server's Ray: interpreter and environment."""
    said = " ".join(title for _, title in descendants() if "/raylet " in title)
    (address,) = set(re.findall(r"--gcs-address=(\S+)", said))
    joins = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return {"python": str(interpreter(ENVIRONMENT, "test")), "env": joins}


def write_run(folder: Path, base: Path, pool: dict[str, Any], **changed: Any) -> Path:
    """Write the config of a run whose candidates are the LLMs of the server."""
    folder.mkdir()
    words = ("A B C D", "is the first one?", "comes after M?", "has a dot?")
    questions = [
        {"query_id": f"q{at}", "task_name": "letters", "query": f"Which letter {text}",
         "ground_truth": "A", "metric": "letter", "max_tokens": 8}
        for at, text in enumerate(words)
    ]  # fmt: skip
    lines = "".join(json.dumps(one) + "\n" for one in questions)
    (folder / "queries_train.jsonl").write_text(lines)
    config = run_config(base, folder, folder / "run", steps=STEPS, **changed)
    config["pool"] = {"max_tokens": 6, "timeout_s": 100, **pool}
    config["candidates"] = {
        "strong": {"pool_name": MODELS[1], "output_price": 0.06},
        "cheap": {"pool_name": MODELS[0], "output_price": 0.02},
    }
    config["ppo"] |= {"batch_size": 8, "mini_batch_size": 8}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def recorded(run: Path) -> list[dict[str, Any]]:
    """Return the recorded answers of the LLMs."""
    lines = (run / "answers" / "worker_0.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def check_steps(run: Path) -> None:
    """Check that all steps learned from episodes in which LLMs answered, and none failed to."""
    steps = curve(run)
    assert len(steps) == STEPS
    for step in steps:
        assert step["searches"] > 0
        assert step["cost_usd"] > 0
        assert step["failed_calls"] == 0
        assert step["gradient_norm"] > 0
    assert all(sum(step[f"route/{name}"] for step in steps) > 0 for name in ("strong", "cheap"))


@pytest.fixture(scope="module")
def trained(training, tmp_path_factory) -> Path:
    """Return the folder of a run that warm-started and learned with the LLMs by their handles."""
    folder = tmp_path_factory.mktemp("trained")
    base = write_policy(folder / "base")
    warm = {"episodes": 64, "epochs": 20, "learning_rate": 3e-3, "query_words": 2}
    pool = {"kind": "handle", "app": "waypost"}
    reward = {"alpha": 0.0, "warmup": 2}
    config = write_run(folder / "handle", base, pool, warm_start=warm, reward=reward)
    finish_training(config, **training)
    return folder / "handle" / "run"


def test_a_policy_learns_with_llms_called_by_their_handles(trained):
    check_steps(trained)
    answers = recorded(trained)
    assert {one["candidate"] for one in answers} == {"strong", "cheap"}
    assert all(one["output_tokens"] in range(1, 7) for one in answers)


def test_an_application_that_is_not_served_is_named_before_anything_is_trained(
    training, trained, tmp_path
):
    config = write_run(tmp_path / "other", trained / "policy", {"kind": "handle", "app": "other"})
    process = start_training(config, **training)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "pool.app: Ray Serve has no application 'other'; it has " in said
    assert "waypost" in said.rpartition("it has")[2]
    assert "Traceback" not in said


def test_a_policy_learns_with_llms_called_by_http_and_asks_nothing_twice(
    server, training, trained, tmp_path
):
    """The run is killed in its first steps, before a checkpoint, and begins again."""
    scale = {"alpha": 0.0, "cost_low": 0.1, "cost_high": 1.0}  # no calls but those of the steps
    pool = {"kind": "http", "base_url": f"{server}/v1"}
    config = write_run(tmp_path / "http", trained / "policy", pool, reward=scale)
    run = tmp_path / "http" / "run"
    alone = {"python": training["python"]}
    kill_training(config, run, 1, **alone)
    before = recorded(run)
    assert before
    finish_training(config, **alone)
    check_steps(run)
    answers = recorded(run)
    assert answers[: len(before)] == before
    assert {one["candidate"] for one in answers} == {"strong", "cheap"}
    assert len({one["key"] for one in answers}) == len(answers)


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
    until(lambda: not any(map(alive, pids)), 20, lambda: f"{[*filter(alive, pids)]} are left")
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
