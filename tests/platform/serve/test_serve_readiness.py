"""What the gateway says and does while routers and LLMs load: `/readyz`, `while_loading`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from support.asgi import Client
from support.gateway import arguments, chat, echo_pool, unservable
from waypost.serve import launch
from waypost.serve.backends.base import LocalLLM
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.access import ClientKeys
from waypost.serve.gateway.app import Gateway
from waypost.serve.gateway.looking import WITHHELD
from waypost.serve.plan import make_plan
from waypost.testing.steps import tiers_artifact

CHAT = "/v1/chat/completions"
MOST_S = 60.0


class Elsewhere(LocalLLM):
    """Loads while the gateway serves, as an LLM with a deployment of its own does."""

    async def start(self) -> None:
        self.task = asyncio.create_task(super().start())

    async def close(self) -> None:
        self.task.cancel()
        await super().close()


def reach(model):
    llm = local_llm(model)
    if isinstance(llm, LocalLLM):
        llm.__class__ = Elsewhere
    return llm


@asynccontextmanager
async def loading(artifact: Path, file: Path, keys=None, **changes) -> AsyncIterator[Gateway]:
    """A gateway whose LLM ``cook`` loads until a file is there."""
    changes = {"pool": echo_pool(cook={"load_until": str(file)})} | changes
    plan = make_plan(ServeArgs.model_validate(arguments(artifact, **changes)))
    gateway = Gateway(plan, local_router(plan), reach, keys)
    await gateway.start()
    try:
        async with asyncio.timeout(MOST_S):
            while set(gateway.dispatcher.readiness().loading_s) - {"cook"}:
                await asyncio.sleep(0.01)
            yield gateway
    finally:
        await gateway.close()


async def ready(gateway: Gateway) -> dict[str, Any]:
    """Return what ``/readyz`` says once nothing loads."""
    async with asyncio.timeout(MOST_S):
        while (said := (await Client(gateway).get("/readyz")).json())["status"] == "loading":
            await asyncio.sleep(0.01)
    return said


async def test_readyz_says_what_is_awaited_and_for_how_long(artifact, tmp_path):
    async with loading(artifact, tmp_path / "go") as gateway:
        client = Client(gateway)
        document = (await client.get("/openapi.json")).json()
        schema = {"$ref": "#/components/schemas/Readiness", "components": document["components"]}
        seconds = []
        for _ in range(2):
            await asyncio.sleep(0.2)
            reply = await client.get("/readyz")
            said = reply.json()
            jsonschema.validate(said, schema)
            assert (reply.status, said["status"], said["failed"]) == (503, "loading", {})
            assert int(reply.headers["retry-after"]) >= 1
            seconds.append(said["loading_s"].pop("cook"))
            assert said["loading_s"] == {}
        assert 0 < seconds[0] < seconds[1]
        assert (await client.get("/healthz")).status == 200
        (tmp_path / "go").touch()
        said = await ready(gateway)
        jsonschema.validate(said, schema)
        assert said == {"status": "ready", "loading_s": {}, "failed": {}}
        assert (await client.get("/readyz")).status == 200


@pytest.mark.parametrize("while_loading", ["wait", "pass"])
@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_for_an_llm_that_loads_is_told_at_once(
    artifact, tmp_path, while_loading, stream
):
    async with loading(artifact, tmp_path / "go", while_loading=while_loading) as gateway:
        reply = await Client(gateway).post(CHAT, chat(model="cook", stream=stream))
        assert (reply.status, reply.json()["error"]["code"]) == (503, "model_loading")
        assert "cook is still loading" in reply.json()["error"]["message"]
        assert int(reply.headers["retry-after"]) >= 1
        other = await Client(gateway).post(CHAT, chat(model="tiny", stream=stream))
        assert other.status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_auto_waits_for_the_llm_that_it_chose(artifact, tmp_path, stream):
    async with loading(artifact, tmp_path / "go") as gateway:
        asked = asyncio.create_task(Client(gateway).post(CHAT, chat(stream=stream)))
        await asyncio.sleep(0.3)
        assert not asked.done()
        (tmp_path / "go").touch()
        reply = await asked
        assert (reply.status, reply.headers["x-waypost-model"]) == (200, "cook")
        assert reply.headers["x-waypost-attempts"] == "1"


@pytest.mark.parametrize("stream", [False, True])
async def test_auto_passes_over_an_llm_that_loads(artifact, tmp_path, stream):
    async with loading(artifact, tmp_path / "go", while_loading="pass") as gateway:
        reply = await Client(gateway).post(CHAT, chat(stream=stream))
        assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "1")
        assert reply.headers["x-waypost-model"] != "cook"
        (tmp_path / "go").touch()
        await ready(gateway)
        reply = await Client(gateway).post(CHAT, chat(stream=stream))
        assert reply.headers["x-waypost-model"] == "cook"


async def test_the_wait_ends_with_the_time_of_a_first_token(artifact, tmp_path):
    limits = {"first_token_timeout_s": 0.2}
    async with loading(artifact, tmp_path / "go", limits=limits) as gateway:
        for _ in range(4):  # a load is no failure after which an LLM would rest
            reply = await Client(gateway).post(CHAT, chat())
            assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
            assert reply.headers["x-waypost-model"] != "cook"
        assert b'model="cook",reason="loading"' in (await Client(gateway).get("/metrics")).body
        (tmp_path / "go").touch()
        await ready(gateway)
        assert (await Client(gateway).post(CHAT, chat())).headers["x-waypost-model"] == "cook"


@pytest.mark.parametrize("while_loading", ["wait", "pass"])
async def test_where_all_that_is_allowed_loads_auto_is_told(artifact, tmp_path, while_loading):
    changes = {"while_loading": while_loading, "limits": {"first_token_timeout_s": 0.2}}
    async with loading(artifact, tmp_path / "go", **changes) as gateway:
        only = chat(waypost={"allowed_models": ["cook"]})
        reply = await Client(gateway).post(CHAT, only)
        assert (reply.status, reply.json()["error"]["code"]) == (503, "model_loading")
        assert int(reply.headers["retry-after"]) >= 1


NO_KEY = "engine openai, m at 127.0.0.1:9: no key for the service 'nobody': set it in API_KEYS"


async def test_llms_that_cannot_load_are_named_with_the_reason(artifact, tmp_path):
    elsewhere = {"name": "tiny", "engine": "echo", "environment": "none-such"}
    pool = [echo_pool()[0], {**unservable("prover"), "placement": "inline"}, elsewhere]
    async with loading(artifact, tmp_path / "go", pool=pool) as gateway:
        assert await ready(gateway) == {
            "status": "ready",
            "loading_s": {},
            "failed": {"prover": NO_KEY, "tiny": "its Python environment cannot be used"},
        }
        assert (await Client(gateway).get("/readyz")).status == 200
        reply = await Client(gateway).post(CHAT, chat(model="prover"))
        assert (reply.status, reply.json()["error"]["code"]) == (502, "all_models_failed")
        message = reply.json()["error"]["message"]
        assert message == f"no model answered: prover is not served: {NO_KEY}"
        assert reply.headers["x-waypost-attempts"] == "1"
        assert gateway.dispatcher.problems() == {"prover": NO_KEY}


async def test_reasons_are_for_who_sends_a_key_where_keys_are_required(artifact, tmp_path):
    pool = [echo_pool()[0], {**unservable("prover"), "placement": "inline"}]
    async with loading(artifact, tmp_path / "go", ClientKeys(["canary-key"]), pool=pool) as gateway:
        assert (await ready(gateway))["failed"] == {"prover": WITHHELD}
        reply = await Client(gateway).get("/readyz", authorization="Bearer canary-key")
        assert reply.json()["failed"] == {"prover": NO_KEY}


async def test_a_gateway_without_any_llm_is_not_ready(artifact, tmp_path):
    pool = [{**unservable(name), "placement": "inline"} for name in ("cook", "prover")]
    async with loading(artifact, tmp_path / "go", pool=pool) as gateway:
        assert (await ready(gateway))["status"] == "failed"
        assert (await Client(gateway).get("/readyz")).status == 503


async def test_one_that_fails_while_it_is_waited_for_is_passed_over(artifact, tmp_path):
    async with loading(artifact, tmp_path / "go") as gateway:
        asked = asyncio.create_task(Client(gateway).post(CHAT, chat()))
        await asyncio.sleep(0.1)
        assert not asked.done()
        gateway.dispatcher.llms["cook"].loading.loaded(False)
        reply = await asked
        assert (reply.status, reply.headers["x-waypost-attempts"]) == (200, "2")
        assert reply.headers["x-waypost-model"] != "cook"


async def test_a_router_that_loads_is_awaited(artifact, tmp_path):
    plan = make_plan(ServeArgs.model_validate(arguments(artifact)))
    gateway = Gateway(plan, local_router(plan), local_llm)
    reply = await Client(gateway).get("/readyz")  # before the start
    assert set(reply.json()["loading_s"]) == {"Router", "cook", "prover", "tiny"}
    await gateway.start()
    assert (await Client(gateway).get("/readyz")).status == 200
    await gateway.close()


async def test_readyz_asks_for_no_key_and_tells_of_a_stop(artifact, tmp_path):
    (tmp_path / "go").touch()
    async with loading(artifact, tmp_path / "go", ClientKeys(["canary-key"])) as gateway:
        await ready(gateway)
        assert (await Client(gateway).get("/readyz")).status == 200
        assert (await Client(gateway).get("/metrics")).status == 401
        gateway.stop(0.0)
        reply = await Client(gateway).get("/readyz")
        assert (reply.status, reply.json()["error"]["code"]) == (503, "server_stopping")


@pytest.mark.parametrize("while_loading", ["wait", "pass"])
async def test_an_episode_waits_for_an_llm_or_goes_on_without_it(tmp_path, while_loading):
    steps = tiers_artifact(tmp_path / "steps", votes=1)
    pool = echo_pool(tiny={"load_until": str(tmp_path / "go")})
    changes = {"pool": pool, "allow_plugin_code": True, "while_loading": while_loading}
    plan = make_plan(ServeArgs.model_validate(arguments(steps, **changes)))
    gateway = Gateway(plan, local_router(plan), reach)
    await gateway.start()
    asked = asyncio.create_task(Client(gateway).post(CHAT, chat()))
    if while_loading == "wait":
        await asyncio.sleep(0.3)
        assert not asked.done()
        (tmp_path / "go").touch()
    reply = await asked
    assert reply.status == 200
    assert reply.headers["x-waypost-model"] == ("tiny" if while_loading == "wait" else "prover")
    await gateway.close()


# what waypost serve waits for


class Scripted(BaseHTTPRequestHandler):
    """Answers ``/app/readyz`` with the next status of a script, and the last for ever."""

    script: list[str]

    def do_GET(self) -> None:
        status = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        said = {"status": status, "loading_s": {"cook": 1.0} if status == "loading" else {}}
        body = json.dumps(said if status else {}).encode()
        self.send_response(200 if status == "ready" and self.path == "/app/readyz" else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def scripted(request, monkeypatch) -> Iterator[SimpleNamespace]:
    monkeypatch.setattr(launch, "POLL_S", 0.01)
    handler = type("Handler", (Scripted,), {"script": list(request.param)})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        port = server.server_port
        config = SimpleNamespace(
            args={"app": None}, host="127.0.0.1", port=port, script=handler.script,
            url=lambda name: f"http://127.0.0.1:{port}/{name}",
        )  # fmt: skip
        yield config
        server.shutdown()


@pytest.mark.parametrize(
    "scripted",
    [("", "loading", "", "loading", "ready"), ("loading", "failed")],
    ids=["ready", "failed"],
    indirect=True,
)
def test_the_command_waits_until_nothing_loads_any_more(scripted):
    assert launch.wait_until_ready(scripted) == {"app": frozenset()}
    assert len(scripted.script) == 1


@pytest.mark.parametrize("scripted", [("",)], ids=["mute"], indirect=True)
def test_a_gateway_that_says_nothing_is_a_failure(scripted, monkeypatch):
    monkeypatch.setattr(launch, "ANSWERING_S", 0.2)
    with pytest.raises(launch.ServeFailedError, match="/app/readyz is mute"):
        launch.wait_until_ready(scripted)
