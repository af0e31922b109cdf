"""`waypost doctor`: one line each, what to do, and an exit code."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from support.fake_upstream import FakeUpstream, Reply
from support.served import application, free_port
from waypost.cli import command

KEY = "key-of-a-test-that-nobody-may-read"


def doctor(*options):
    done = CliRunner().invoke(command, ["doctor", "--json", *map(str, options)])
    return done, {one["what"]: one for one in json.loads(done.stdout)}


def serve_file(tmp_path: Path, artifact: Path, pool, port=None, **args):
    path = tmp_path / "serve.yaml"
    http = {"host": "127.0.0.1", "port": free_port() if port is None else port}
    data = {"http_options": http, "applications": [application("a", artifact, pool, **args)]}
    path.write_text(yaml.safe_dump(data))
    return path


def remote(url, service=None, name="cook", **more):
    config = {"base_url": url, "model": "m"} | ({"service": service} if service else {})
    entry = {"name": name, "engine": "openai", "placement": "inline", "config": config}
    return entry | {"input_price": 1, "output_price": 2} | more


def test_this_machine_alone():
    _done, found = doctor("--no-try")
    assert found["python"]["state"] == "ok"
    assert found["package ray"]["state"] == "ok"
    assert "MB free" in found["memory"]["found"]
    assert found["keys"] == {
        "what": "keys", "state": "note", "found": "API_KEYS is not set", "todo": ""
    }  # fmt: skip


def test_keys_of_another_tool_are_pointed_out(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    done, found = doctor("--no-try")
    assert found["keys"]["todo"].startswith("OPENAI_API_KEY is set, which Waypost does not read")
    assert KEY not in done.output


async def test_a_pool_that_can_serve(tmp_path, knn, monkeypatch):
    monkeypatch.setenv("API_KEYS", json.dumps({"acme": [KEY, f"{KEY}-2"]}))
    async with FakeUpstream() as upstream:
        path = serve_file(tmp_path, knn, [remote(upstream.url, "acme")])
        done, found = await asyncio.to_thread(doctor, path)
    assert done.exit_code == 0, done.output
    assert found[str(path)]["found"] == "1 LLMs: cook"
    assert found["keys"]["found"] == "API_KEYS: acme (2)"
    assert found["key of acme"]["state"] == "ok"
    assert found["endpoint cook"]["found"].startswith("answers, ")
    assert found[f"artifact {knn}"]["state"] == "ok"
    assert KEY not in done.output


async def test_what_is_wrong_is_told_with_what_to_do(tmp_path, knn, monkeypatch):
    monkeypatch.setenv("API_KEYS", json.dumps({"acne": KEY}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with FakeUpstream() as upstream:
            upstream.default = Reply(status=404, body={"error": {"message": "no such model"}})
            pool = [
                remote(upstream.url, "acme"),
                remote(upstream.url, name="waiter"),
                {
                    "name": "far",
                    "engine": "vllm",
                    "environment": "nowhere",
                    "config": {"model": "m"},
                },
            ]
            path = serve_file(tmp_path, knn, pool, port)
            done, found = await asyncio.to_thread(doctor, path)
    assert done.exit_code == 1
    assert found[f"port {port}"]["state"] == "wrong"
    assert found["key of acme"]["todo"] == "add acme to API_KEYS (did you mean 'acne'?)"
    assert "no key" in found["endpoint cook"]["found"]
    assert "no such model" in found["endpoint waiter"]["found"]
    assert found["environment nowhere"]["todo"] == "make env-nowhere"
    assert KEY not in done.output


def test_a_wrong_file_and_a_missing_artifact(tmp_path):
    path = serve_file(tmp_path, tmp_path / "none", [remote("http://127.0.0.1:9/v1")])
    done, found = doctor(path, "--no-try")
    assert done.exit_code == 1
    assert "no manifest.json" in found[f"artifact {tmp_path / 'none'}"]["found"]
    path.write_text("http_options: {host: 127.0.0.1}\napplications: []\n")
    done, found = doctor(path, "--no-try")
    assert (done.exit_code, found[str(path)]["state"]) == (1, "wrong")


def test_prices_that_a_router_without_training_needs(tmp_path):
    pool = [
        remote("https://api.openai.com/v1", name="known", input_price=None, output_price=None),
        remote("http://127.0.0.1:9/v1", name="own", input_price=None, output_price=None),
        remote("http://127.0.0.1:9/v1", name="given"),
    ]
    pool[0]["config"]["model"] = "gpt-4.1-minii"
    path = serve_file(tmp_path, tmp_path, pool)
    data = yaml.safe_load(path.read_text())
    args = data["applications"][0]["args"]
    del args["artifact"]
    args["router"] = "difficulty"
    path.write_text(yaml.safe_dump(data))
    done, found = doctor(path, "--no-try")
    assert done.exit_code == 1
    assert found["price of known"]["state"] == "wrong"
    assert found["price of own"]["state"] == "note"
    assert "price of given" not in found


@pytest.mark.parametrize("keys", ["{broken", json.dumps({"acme": ""})])
def test_keys_that_cannot_be_read(monkeypatch, keys):
    monkeypatch.setenv("API_KEYS", keys)
    done, found = doctor("--no-try")
    assert done.exit_code == 1
    assert found["keys"]["state"] == "wrong"


def test_the_table_has_a_line_for_each(tmp_path):
    done = CliRunner().invoke(command, ["doctor", "--no-try"])
    assert [line.split()[0] for line in done.stdout.splitlines()[1:3]] == ["ok", "ok"]
