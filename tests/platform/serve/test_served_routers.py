"""Every router that can be trained answers through ``serve_configs/router.yaml``.

The file stays as it is but for the path of the artifact, and the engines: `echo` in place of the
real LLMs. A router that is added to the registry is covered without a word here.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.asgi import Client
from support.gateway import chat
from support.load import Ask, Load, summary
from support.served import served
from waypost.config import read_yaml
from waypost.contracts.artifact import read_manifest
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.pipelines.train import TrainConfig, train
from waypost.registry import list_routers, router_class
from waypost.serve import launch
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.config import AUTO, ServeArgs
from waypost.serve.gateway.app import Gateway
from waypost.serve.plan import make_plan
from waypost.testing.synthetic import ENCODER_ID
from waypost.testing.tiny_model import stand_in

ROOT = Path(__file__).resolve().parents[3]
CHAT = "/v1/chat/completions"
QUESTION = "How many minutes are there in three hours?"
IN_FORCE_S = 240.0
WORKERS = 20

ROUTERS = [entry.name for entry in list_routers([]) if entry.source == "built-in"]

QUICK: dict[str, dict[str, Any]] = {
    "routerdc": {"max_queries": 16, "max_tokens": 16, "steps": 2, "probe_steps": 4},
    "causallm_router": {"max_queries": 8, "max_tokens": 16, "trained_layers": 1},
    "mlprouter": {"epochs": 2, "members": 1},
    "router_r1": {"policy_llm": "smollm2-135m"},
}
"""Parameters by which routers train in seconds that would take longer, or that they need."""

ROWS = 48


def train_one(name: str, data: Path, out: Path) -> Path:
    """Train a router; one that fine-tunes a model gets a small stand-in for it."""
    cls: Any = router_class(name)
    parameters = {**getattr(cls, "trial_parameters", {}), **QUICK.get(name, {})}
    if fine_tunes(name):
        parameters["model"] = stand_in(cls.needs_weights)
    config = TrainConfig(router=name, parameters=parameters, encoder=ENCODER_ID, folds=0)
    return train(config, data, out).folder


def fine_tunes(name: str) -> bool:
    return getattr(router_class(name), "needs_weights", None) is not None


def router_config(artifact: Path) -> dict[str, Any]:
    """Return router.yaml with another artifact, and with echo in place of its LLMs."""
    config = read_yaml(ROOT / "serve_configs" / "router.yaml")
    args = config["applications"][0]["args"]
    args["artifact"] = str(artifact)
    for entry in args["pool"]:
        entry |= {"engine": "echo", "config": {}}
    return config


def served_name(name: str) -> str:
    return "auto-router" if name == AUTO else name


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A part of the starter data, whose LLMs are those of the file."""
    folder = tmp_path_factory.mktemp("starter")
    starter = read_routing_data(ROOT / "serve_configs" / "starter" / "data", responses=True)
    write_routing_data(folder, starter.select(range(ROWS)))
    return folder


# in this process


@asynccontextmanager
async def gateway(artifact: Path) -> AsyncIterator[Client]:
    args = router_config(artifact)["applications"][0]["args"]
    plan = make_plan(ServeArgs.model_validate({**args, "feedback_dir": None}))
    found = Gateway(plan, local_router(plan), local_llm)
    await found.start()
    try:
        yield Client(found)
    finally:
        await found.close()


def by_tier() -> list[Any]:
    """Mark what fine-tunes for the engine tier, as the battery does: it loads transformers."""
    return [pytest.param(n, marks=[pytest.mark.engine] if fine_tunes(n) else []) for n in ROUTERS]


@pytest.mark.parametrize("name", by_tier())
async def test_a_router_serves_by_its_path_alone(name, data, tmp_path):
    artifact = train_one(name, data, tmp_path / "artifact")
    pool = {entry["name"] for entry in small_pool(router_config(artifact))}
    async with gateway(artifact) as client:
        reply = await client.post(CHAT, chat(QUESTION))
        assert reply.status == 200, reply.body
        assert reply.headers["x-waypost-router"] == name
        assert reply.headers["x-waypost-model"] == reply.json()["model"]
        assert reply.json()["model"] in pool
        assert reply.json()["choices"][0]["message"]["content"]
        streamed = await client.post(CHAT, chat(QUESTION, stream=True, waypost={"progress": True}))
        *events, done = streamed.events()
        assert done == "[DONE]"
        # a router of one call tells no steps
        in_steps = read_manifest(artifact).kind == "step"
        assert any("waypost" in event for event in events) == in_steps
        decision = (await client.post("/v1/route", {"query": QUESTION})).json()
        assert decision["router_version"] == read_manifest(artifact).version
        assert set(decision["ranking"]) <= pool


def small_pool(config: dict[str, Any]) -> list[dict[str, Any]]:
    pool = config["applications"][0]["args"]["pool"]
    return [entry for entry in pool if entry.get("tier", "small") == "small"]


def test_the_routers_are_those_of_the_registry():
    assert {"knnrouter", "best_single", "randomrouter"} <= set(ROUTERS)
    assert set(QUICK) <= set(ROUTERS)


# with Ray: all of them in one Serve

ray_noise = pytest.mark.filterwarnings(
    # Ray leaves sockets and log files of its own to the garbage collector
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module")
def artifacts(data, tmp_path_factory) -> dict[str, Path]:
    """Every router's artifact by name."""
    folder = tmp_path_factory.mktemp("artifacts")
    return {name: train_one(name, data, folder / name) for name in ROUTERS}


@pytest.fixture(scope="module")
def config(artifacts) -> dict[str, Any]:
    found = router_config(artifacts["knnrouter"])
    found["applications"][0]["args"]["feedback_dir"] = None
    return found


@pytest.fixture(scope="module")
def url(config, tmp_path_factory) -> Iterator[str]:
    with served(config, tmp_path_factory.mktemp("serve")) as found:
        yield found


def switched(config: dict[str, Any], user_config: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    changed["applications"][0]["deployments"] = [
        {"name": name, "user_config": user_config} for name in ("Gateway", "Router")
    ]
    return changed


async def ask(http: aiohttp.ClientSession, url: str, model: str = "auto") -> tuple[int, Any, Any]:
    async with http.post(url + CHAT, json=chat(QUESTION, model=model)) as reply:
        return reply.status, reply.headers, await reply.json()


async def watch(http: aiohttp.ClientSession, url: str, model: str) -> list[str]:
    """Return the states that a stream with progress tells, and ``[DONE]`` or an error."""
    body = chat(QUESTION, model=model, stream=True, waypost={"progress": True})
    async with http.post(url + CHAT, json=body) as reply:
        lines = (await reply.text()).split("\n\n")[:-1]
    *events, last = [line.removeprefix("data: ") for line in lines]
    told = [json.loads(event).get("waypost") for event in events]
    return [*(one["step"]["state"] for one in told if one), last]


async def until_decided_by(http: aiohttp.ClientSession, url: str, router: str) -> None:
    async with asyncio.timeout(IN_FORCE_S):
        while (await ask(http, url))[1].get("x-waypost-router") != router:
            await asyncio.sleep(0.2)


@pytest.mark.ray
@ray_noise
async def test_all_of_them_serve_side_by_side(url, config, artifacts):
    pool = {entry["name"] for entry in small_pool(config)}
    routers = {served_name(name): str(path) for name, path in artifacts.items()}
    last = list(artifacts)[-1]
    asked = {"routers": routers, "default_router": served_name(last)}
    async with aiohttp.ClientSession() as http:
        await asyncio.to_thread(launch.update, switched(config, asked))
        await until_decided_by(http, url, last)
        for name in artifacts:
            status, headers, body = await ask(http, url, served_name(name))
            assert status == 200, (name, body)
            assert headers["x-waypost-router"] == name
            assert headers["x-waypost-model"] == body["model"]
            assert body["model"] in pool
            told = await watch(http, url, served_name(name))
            assert told[-1] == "[DONE]"
            calls = told[:-1].count("started")
            assert len(told) - 1 == 2 * calls
            assert bool(calls) == (read_manifest(artifacts[name]).kind == "step"), name


@pytest.mark.ray
@ray_noise
async def test_one_path_changes_to_a_router_of_each_kind_under_load(url, config, artifacts):
    kinds = {read_manifest(path).kind: name for name, path in artifacts.items()}
    asks = [Ask("auto", QUESTION), Ask("auto", QUESTION, stream=True)]
    async with (
        aiohttp.ClientSession() as http,
        Load(f"{url}/v1", asks, workers=WORKERS) as load,
    ):
        for name in kinds.values():
            await asyncio.to_thread(
                launch.update, switched(config, {"artifact": str(artifacts[name])})
            )
            await until_decided_by(http, url, name)
            await load.finished(2 * WORKERS)
    errors = {sample.error for sample in load.samples if not sample.ok}
    assert not errors, (summary(load.samples), sorted(errors)[:5])
