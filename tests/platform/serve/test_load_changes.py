"""Changes while requests are in flight: none is lost, and what was asked for is in force."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from support.gateway import ALGEBRA, COOKING, chat, knn_artifact
from support.load import Ask, Load, summary
from support.served import application, served
from waypost.serve import launch

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

WORKERS = 100
STEADY = {"tokens": 8, "tokens_per_s": 2}
"""Answers take four seconds: many are in flight, and replicas that start find free cores."""

WIDE = {"max_ongoing_requests": 500, "max_queued_requests": 500}
IN_FORCE_S = 240.0


def echo(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "engine": "echo", "config": STEADY, **fields}


def missing(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "engine": "transformers",
        "config": {"model": "./no/such/folder"},
        **fields,
    }


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("routers")
    return knn_artifact(folder / "one"), knn_artifact(folder / "two", "best_single")


@pytest.fixture(scope="module")
def graph(artifacts) -> dict[str, Any]:
    roomy = {"max_in_flight": 1000, "max_queued": 1000}
    live = [echo(name, **WIDE) for name in ("cook", "prover")]
    return {"applications": [application("live", artifacts[0], live, limits=roomy)]}


@pytest.fixture(scope="module")
def url(graph, tmp_path_factory) -> Iterator[str]:
    with served(graph, tmp_path_factory.mktemp("serve")) as found:
        yield found


@pytest.fixture(scope="module")
def partial(artifacts, tmp_path_factory) -> Iterator[str]:
    """A pool of which one LLM loads, instead of `url`."""
    pool = [echo("cook"), missing("prover"), echo("tiny", environment="absent")]
    app = application("partial", artifacts[0], pool, router={"placement": "inline"})
    with served({"applications": [app]}, tmp_path_factory.mktemp("partial")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def asks() -> list[Ask]:
    texts = (COOKING, ALGEBRA)
    return [Ask("auto", text, stream=stream) for text in texts for stream in (False, True)]


def with_user_config(graph: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    changed = copy.deepcopy(graph)
    changed["applications"][0]["deployments"] = [
        {"name": name, "user_config": config} for name in ("Gateway", "Router")
    ]
    return changed


async def decided(http, url: str, text: str = COOKING) -> dict[str, Any]:
    async with http.post(f"{url}/live/v1/route", json={"query": text}) as reply:
        return await reply.json()


async def until(condition) -> None:
    async with asyncio.timeout(IN_FORCE_S):
        while not await condition():
            await asyncio.sleep(0.2)


def told(load: Load) -> str:
    errors = {sample.error for sample in load.samples if not sample.ok}
    return "\n".join((summary(load.samples), *sorted(errors)[:5]))


def actors(app: str) -> set[str]:
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in named if actor["name"].startswith(f"SERVE_REPLICA::{app}#")}


async def change(graph: dict[str, Any], in_force, load: Load) -> None:
    """Hand Serve a config, wait until it is in force, and for another round of requests."""
    await asyncio.to_thread(launch.update, graph)
    await until(in_force)
    await load.finished(WORKERS)


async def test_configs_change_without_a_restart_and_without_a_lost_request(
    http, url, graph, artifacts
):
    before, first = actors("live"), (await decided(http, url))["router_version"]

    async def cheap() -> bool:
        found = await decided(http, url)
        return found["lambda"] == 1000 and found["cost_usd"]["prover"] > 1

    async def other_router() -> bool:
        return (await decided(http, url))["router"] == "best_single"

    async def only_tiny() -> bool:
        return (await decided(http, url))["ranking"] == ["tiny"]

    async def as_before() -> bool:
        found = await decided(http, url)
        return set(found["ranking"]) == {"cook", "prover"} and found["router"] == "knnrouter"

    dear = {"prover": {"input_price": 1e6, "output_price": 1e6}}
    tiny = echo("tiny", placement="inline", **WIDE)
    steps = [
        ({"policy": {"lambda": 1000}, "prices": dear}, cheap),
        ({"routers": {"second": str(artifacts[1])}}, other_router),
        ({"retired": ["cook"], "pool": [tiny], "policy": {"allowed_models": ["tiny"]}}, only_tiny),
        ({}, as_before),
    ]
    async with Load(f"{url}/live/v1", asks(), workers=WORKERS) as load:
        await load.finished(WORKERS)
        for config, in_force in steps:
            await change(with_user_config(graph, config), in_force, load)
    assert {sample.end for sample in load.samples} == {"whole", "done"}, told(load)
    assert {sample.model for sample in load.samples} == {"cook", "prover", "tiny"}
    assert actors("live") == before
    assert (await decided(http, url))["router_version"] == first


async def test_a_refused_config_leaves_the_earlier_one_and_is_counted(http, url, graph):
    wrong = with_user_config(graph, {"retired": ["nobody"]})
    await asyncio.to_thread(launch.update, wrong)

    async def counted() -> bool:
        async with http.get(f"{url}/live/metrics") as reply:
            return 'user_configs_total{outcome="refused"} 1.0' in await reply.text()

    await until(counted)
    assert set((await decided(http, url))["ranking"]) == {"cook", "prover"}
    await asyncio.to_thread(launch.update, with_user_config(graph, {}))


async def test_a_pool_grows_by_a_deployment_without_a_lost_request(http, url, graph):
    grown = copy.deepcopy(graph)
    pool = grown["applications"][0]["args"]["pool"]
    pool.append({**pool[0], "name": "tiny"})
    before = actors("live")

    async def tiny_answers() -> bool:
        body = chat("a b", model="tiny", max_tokens=2)
        async with http.post(f"{url}/live/v1/chat/completions", json=body) as reply:
            return reply.status == 200

    async def replaced() -> bool:
        return not before & await asyncio.to_thread(actors, "live") and await tiny_answers()

    async with Load(f"{url}/live/v1", asks(), workers=WORKERS) as load:
        await load.finished(WORKERS)
        await change(grown, replaced, load)
    assert {sample.end for sample in load.samples} == {"whole", "done"}, told(load)


async def test_a_pool_serves_without_the_models_that_do_not_load(http, partial):
    assert "partial#Gateway" in " ".join(actors("partial"))
    for text in (COOKING, ALGEBRA):
        async with http.post(f"{partial}/partial/v1/chat/completions", json=chat(text)) as reply:
            assert (reply.status, reply.headers["x-waypost-model"]) == (200, "cook")
    for name in ("prover", "tiny"):
        body = chat(model=name)
        async with http.post(f"{partial}/partial/v1/chat/completions", json=body) as reply:
            assert reply.status == 502
            message = json.loads(await reply.read())["error"]["message"]
        assert f"{name} is not served: " in message
        assert "no/such" not in message


async def test_why_a_model_does_not_serve_is_told_at_start(partial):
    told: list[str] = []
    await asyncio.to_thread(launch.wait_until_running, told.append, {"partial"})
    (line,) = (line for line in told if line.startswith("partial/prover"))
    assert line.startswith("partial/prover does not serve: ")
    assert "no/such/folder" in line
    assert "partial/cook is ready" in told
