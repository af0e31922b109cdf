"""README's quick start, word for word, on busy cores; the shipped file with the official client."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import openai
import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
STARTED = "Ctrl-C stops it"
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"

# Of a test run, and not of a user.
OURS = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MAKEFLAGS",
        "MAKELEVEL", "MFLAGS")  # fmt: skip


def quick_start(root: Path) -> tuple[str, str]:
    """Return the two commands of README's quick start: what serves, and what asks."""
    section = re.search(
        r"^## Quick start\n(.*?)(?=^## |\Z)", (root / "README.md").read_text(), re.M | re.S
    )
    assert section, "README.md has no section `## Quick start`"
    blocks = re.findall(r"^```\w*\n(.*?)\n```$", section[1], re.M | re.S)
    found = [[one for one in blocks if one.startswith(word)] for word in ("make ", "curl ")]
    assert [len(some) for some in found] == [1, 1], f"its commands: {found}"
    return found[0][0], found[1][0]


def copy_of(root: Path, folder: Path) -> Path:
    """Copy what git would clone, and link what `make env` made."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root
    )
    for name in listed.decode().split("\0"):
        if name and (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)  # with its time: make compares them
    ready = (root / ".venv/.waypost-ready").stat().st_mtime
    for name in ("requirements/main.txt", "pyproject.toml"):
        # or make would install the copy into the environment that is linked
        assert (folder / name).stat().st_mtime <= ready, f"{name} is newer: run `make env` first"
    (folder / ".venv").symlink_to(root / ".venv")
    return folder


@dataclass
class Server:
    """A server of serve_configs/router.yaml, in a process group of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    busy: ExitStack = field(default_factory=ExitStack)
    """Ends the busy loops beside it."""

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def ctrl_c(self) -> None:
        """Interrupt its group, as a terminal does, and wait until nothing of it is left."""
        if self.process.poll() is not None:
            return
        below = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(180)
        finally:
            _, left = psutil.wait_procs(below, timeout=60)
            for one in (self.process, *left):
                one.kill()
        assert left == []


def start(command: list[str], cwd: Path, log: Path, url: str) -> Server:
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    with log.open("wb") as out:  # RAY_ADDRESS: no Ray that happens to run on this machine
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=env | {"RAY_ADDRESS": "local"},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Server(url, process, log)


Started = tuple[Server, Callable[[], bool]]
"""A server, and what says that it may be asked."""


def make_run(root: Path, folder: Path, end: ExitStack) -> Started:
    """Run the quick start's first command in a copy, beside as many busy loops as cores."""
    command, question = quick_start(root)
    address = urlsplit(next(word for word in shlex.split(question) if word.startswith("http")))
    assert address.hostname
    assert address.port
    with socket.socket() as probe:
        if probe.connect_ex((address.hostname, address.port)) == 0:
            pytest.fail(f"{address.netloc} is in use: the quick start serves there; end what does")
    loops = end.enter_context(ExitStack())
    for _ in os.sched_getaffinity(0):
        busy = subprocess.Popen([sys.executable, "-c", BUSY])
        loops.callback(busy.wait)
        loops.callback(busy.kill)
    clone = copy_of(root, folder / "waypost")
    running = start(["bash", "-c", command], clone, folder / "log", f"http://{address.netloc}")
    running.busy = loops
    return running, lambda: STARTED in running.said()  # a user asks as soon as it is printed


def serve_run(root: Path, folder: Path, end: ExitStack) -> Started:
    """Serve the same file by Ray's own command, on another port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    text = (root / "serve_configs" / "router.yaml").read_text()
    assert text.count("port: 8000") == 1
    text = text.replace("port: 8000", f"port: {port}")
    config = folder / "router.yaml"
    config.write_text(text.replace("feedback_dir: feedback", f"feedback_dir: {folder}/feedback"))
    command = [str(Path(sys.executable).parent / "serve"), "run", str(config)]
    running = start(command, root, folder / "log", f"http://127.0.0.1:{port}")
    return running, lambda: is_ready(running.url)


def is_ready(url: str) -> bool:
    """Say whether it serves and every LLM has loaded."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=60) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module", params=[make_run, serve_run], ids=["make run", "serve run"])
def server(
    request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with ExitStack() as end:
        running, ready = request.param(root, tmp_path_factory.mktemp("quick_start"), end)
        try:
            deadline = time.monotonic() + 900
            while not ready():
                assert running.process.poll() is None, running.said()
                assert time.monotonic() < deadline, running.said()
                time.sleep(0.5)
            yield running
        finally:
            running.ctrl_c()


by_make = pytest.mark.parametrize("server", [make_run], ids=["make run"], indirect=True)


@by_make
def test_the_first_question_is_answered_by_the_llm_it_is_routed_to(server, root):
    _, command = quick_start(root)
    said = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    head, _, body = said.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert status.split()[1] == "200", said
    assert headers["x-waypost-attempts"] == "1", said
    answer = json.loads(body)
    assert answer["choices"][0]["message"]["content"].strip()
    asked = json.loads(next(word for word in shlex.split(command) if word.startswith("{")))
    route = {"messages": asked["messages"]}
    call = urllib.request.Request(f"{server.url}/v1/route", json.dumps(route).encode())
    with urllib.request.urlopen(call) as reply:
        first = json.load(reply)["ranking"][0]
    assert answer["model"] == headers["x-waypost-model"] == first
    server.busy.close()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as opened:
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


def test_health_and_metrics(server):
    with urllib.request.urlopen(f"{server.url}/healthz") as reply:
        assert reply.status == 200
    with urllib.request.urlopen(f"{server.url}/metrics") as reply:
        assert b"waypost_" in reply.read()


@by_make
def test_ctrl_c_ends_it_with_all_that_it_started(server):
    server.ctrl_c()
    assert "Traceback" not in server.said()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{server.url}/healthz")
