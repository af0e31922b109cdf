"""The roads of a new user: the commands and programs of two pages, run word for word.

Scripted endpoints on this machine stand in for providers: only hosts and the port are replaced.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from support.fake_upstream import FakeUpstream, Reply
from support.served import free_port
from waypost.cli import command
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.data.llmrouter.exporting import export_llmrouter
from waypost.secrets import key_ring
from waypost.testing.synthetic import planted

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [found[2] for found in FENCE.finditer(text) if found[1] == language]


@contextmanager
def upstreams(count: int) -> Iterator[list[FakeUpstream]]:
    """Endpoints in a thread of their own; each says its number."""
    ready, done = threading.Event(), asyncio.Event()
    made = [FakeUpstream() for _ in range(count)]
    state: dict[str, asyncio.AbstractEventLoop] = {}

    async def serve() -> None:
        state["loop"] = asyncio.get_running_loop()
        for number, upstream in enumerate(made):
            upstream.default = Reply(text=f"answer of endpoint {number}")
            await upstream.__aenter__()
        ready.set()
        await done.wait()
        for upstream in made:
            await upstream.__aexit__(None, None, None)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield made
    finally:
        state["loop"].call_soon_threadsafe(done.set)
        thread.join(30)


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key_ring.cache_clear()
    yield
    key_ring.cache_clear()


def test_routellms_first_example(monkeypatch, capsys):
    (program, _) = blocks("coming_from.md", "python")
    with upstreams(1) as (upstream,):
        text = program.replace("https://api.example.com/v1", upstream.url)
        exec(compile(text, "coming_from.md", "exec"), {"__name__": "routellm_example"})
        asked = [request.body["model"] for request in upstream.requests]
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("answer of endpoint 0")
    assert said[1] == "['openai/gpt-4.1-mini', 'openai/gpt-4.1']"
    assert asked in (["gpt-4.1"], ["gpt-4.1-mini"])


def test_llmrouters_first_example(tmp_path, capsys):
    (_, program) = blocks("coming_from.md", "python")
    for split, n in (("train", 40), ("test", 8)):
        write_routing_data(tmp_path / "data", planted(n, seed=n), split=split)
    export_llmrouter(tmp_path / "data", tmp_path / "files")
    config = yaml.safe_load((tmp_path / "files" / "config.yaml").read_text())
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "knnrouter.yaml").write_text(
        yaml.safe_dump({**config, "hparam": {"n_neighbors": 5}})
    )
    exec(compile(program, "coming_from.md", "exec"), {"__name__": "llmrouter_example"})
    said = capsys.readouterr().out.splitlines()
    assert said[0] in planted().names
    assert said[1].startswith("8 ")
    assert (tmp_path / "artifacts" / "knn" / "manifest.json").is_file()


def test_litellms_list(tmp_path):
    theirs = blocks("coming_from.md", "text")[-1]
    (line,) = blocks("coming_from.md", "sh")
    (tmp_path / "config.yaml").write_text(theirs)
    done = CliRunner().invoke(command, line.split()[1:])
    assert done.exit_code == 0, done.output
    assert "not taken over: router_settings.routing_strategy" in done.stderr
    pool = yaml.safe_load((tmp_path / "serve.yaml").read_text())["applications"][0]["args"]["pool"]
    assert [entry["name"] for entry in pool] == ["gpt-4.1-mini", "local"]


@pytest.mark.e2e
def test_keys_for_three_endpoints(tmp_path):
    port = free_port()
    with upstreams(3) as made:
        hosts = {
            f"https://api.{name}.example/v1": upstream.url
            for name, upstream in zip(("one", "two", "three"), made, strict=True)
        }

        def here(text: str) -> str:
            for host, url in hosts.items():
                text = text.replace(host, url)
            ported = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            return ported.replace("waypost init", f"waypost init --port {port}")

        first, serve, ask, _ = map(here, blocks("start.md", "sh"))
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, "PATH": path}
        run = {"cwd": tmp_path, "env": env, "capture_output": True, "text": True, "timeout": 200}
        begun = subprocess.run(["bash", "-ec", first], **run, check=False)
        assert begun.returncode == 0, begun.stdout + begun.stderr
        keys = [
            request.headers["Authorization"] for upstream in made for request in upstream.requests
        ]
        assert keys == [f"Bearer KEY-{n}" for n in (1, 1, 2, 2, 3, 3)]  # init and doctor
        export = first.splitlines()[0]
        server = subprocess.Popen(["bash", "-c", f"{export}\nexec {serve}"], cwd=tmp_path, env=env)
        try:
            patient = ask.replace("curl ", "curl --retry 60 --retry-delay 1 --retry-all-errors ")
            done = subprocess.run(["bash", "-ec", patient], **run, check=False)
        finally:
            server.terminate()
            server.wait(60)
    assert done.returncode == 0, done.stderr
    assert "x-waypost-router: difficulty" in done.stdout
    assert done.stdout.count("answer of endpoint") == 2
    assert not any("KEY-" in file.read_text() for file in tmp_path.glob("*.yaml"))
