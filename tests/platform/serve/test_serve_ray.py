"""The graph under Ray Serve: deployments, replicas that die, placements, OpenAI's own clients."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from support import processes
from support.gateway import ALGEBRA, COOKING, chat, knn_artifact
from support.load_graph import gauges
from support.served import application, served
from waypost.serve import launch
from waypost.testing.steps import tiers_artifact

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHAT = "/v1/chat/completions"
SLOW = {"tokens": 2000, "tokens_per_s": 50}


def graph(artifact: Path, steps: Path, log: Path) -> dict[str, Any]:
    """Five graphs in one Serve: apart, all in the gateway, slow models, one place only, steps."""
    apart = [{"name": name, "engine": "echo"} for name in ("cook", "prover", "tiny")]
    inside = [{**entry, "placement": "inline"} for entry in apart]
    apart[2] = inside[2]
    slow = [
        {"name": "cook", "engine": "echo", "config": SLOW, "max_ongoing_requests": 1,
         "max_queued_requests": 1},
        inside[2],
    ]  # fmt: skip
    tight = [{**inside[0], "config": SLOW}]
    inline = {"router": {"placement": "inline"}}
    limits = {"max_in_flight": 1, "max_queued": 1}
    judged = [{**apart[0], "config": {"delay_s": 0.2}}, *inside[1:]]
    return {
        "applications": [
            application("apart", artifact, apart, decision_log=str(log), shadow="knnrouter"),
            application("inside", artifact, inside, **inline),
            application("slow", artifact, slow, **inline),
            application("tight", artifact, tight, limits=limits, **inline),
            application("steps", steps, judged, allow_plugin_code=True),
        ],
    }


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL and the config."""
    folder = tmp_path_factory.mktemp("serve")
    routers = knn_artifact(folder / "artifact"), tiers_artifact(folder / "steps")
    data = graph(*routers, folder / "log")
    with served(data, folder) as url:
        yield url, data


@pytest.fixture
def url(running) -> str:
    return running[0]


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(http, url: str, body: dict) -> tuple[int, Any, Any]:
    async with http.post(url, json=body) as reply:
        return reply.status, reply.headers, await reply.json()


def replicas(app: str, deployment: str) -> list[Any]:
    """Return the actors of a deployment."""
    import ray

    prefix = f"SERVE_REPLICA::{app}#{deployment}#"
    named = ray.util.list_named_actors(all_namespaces=True)
    return [
        ray.get_actor(actor["name"], namespace=actor["namespace"])
        for actor in named
        if actor["name"].startswith(prefix)
    ]


def kill(app: str, deployment: str) -> None:
    import ray

    found = replicas(app, deployment)
    assert found
    for actor in found:
        ray.kill(actor)


async def until_at_work(app: str, deployment: str) -> None:
    """Wait until a replica works on a request: then its title has a method's name."""
    async with asyncio.timeout(60):
        while not any(
            title.startswith(f"ray::ServeReplica:{app}:{deployment}.")
            for _, title in processes.descendants()
        ):
            await asyncio.sleep(0.01)


async def until_in_flight(url: str, count: int) -> None:
    async with asyncio.timeout(60):
        while (await gauges(url))["waypost_requests_in_flight"] < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("app", ["apart", "inside"])
async def test_each_question_goes_to_its_model(http, url, app):
    for question, model in ((COOKING, "cook"), (ALGEBRA, "prover")):
        status, headers, body = await post(http, f"{url}/{app}{CHAT}", chat(question))
        assert (status, headers["x-waypost-model"]) == (200, model)
        assert body["choices"][0]["message"]["content"] == question


async def test_a_shadow_decides_in_the_deployment_of_the_router(http, url):
    await post(http, f"{url}/apart{CHAT}", chat())
    told = 'waypost_shadow_decisions_total{outcome="decided",router="knnrouter"}'
    async with asyncio.timeout(60):
        while True:
            async with http.get(f"{url}/apart/metrics") as reply:
                text = await reply.text()
            if told in text:
                break
            await asyncio.sleep(0.1)
    assert 'outcome="failed"' not in text


async def test_both_placements_give_the_same_answers(http, url):
    bodies = [
        chat(COOKING),
        chat(ALGEBRA, n=2, stop=["ring"]),
        chat("a b c", model="tiny", max_tokens=2),
        chat(COOKING, waypost={"lambda": 1000}),
        chat(model="nobody"),
        chat(waypost={"max_cost_usd": 0}),
    ]
    for body in bodies:
        found = []
        for app in ("apart", "inside"):
            status, _, answer = await post(http, f"{url}/{app}{CHAT}", body)
            shown = json.dumps([answer.get("choices"), answer.get("error")])
            found.append((status, answer.get("model"), shown))
        assert found[0] == found[1]


@pytest.mark.parametrize("app", ["apart", "inside"])
async def test_the_synchronous_openai_client(url, app):
    await asyncio.to_thread(use_the_synchronous_client, f"{url}/{app}/v1")


def use_the_synchronous_client(base: str) -> None:
    with openai.OpenAI(api_key="none", base_url=base, max_retries=0) as client:
        messages = [{"role": "user", "content": COOKING}]
        answer = client.chat.completions.create(model="auto", messages=messages)
        assert (answer.model, answer.choices[0].message.content) == ("cook", COOKING)
        stream = client.chat.completions.create(
            model="auto",
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        texts = [c.choices[0].delta.content or "" for c in chunks if c.choices]
        assert "".join(texts) == COOKING
        assert chunks[-1].usage.model_extra["waypost"]["model"] == "cook"
        assert client.completions.create(model="tiny", prompt="a b").choices[0].text == "a b"
        assert "cook" in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=messages)


@pytest.mark.parametrize("app", ["apart", "inside"])
async def test_the_asynchronous_openai_client(url, app):
    base = f"{url}/{app}/v1"
    async with openai.AsyncOpenAI(api_key="none", base_url=base, max_retries=0) as client:

        async def ask(number: int) -> str:
            messages = [{"role": "user", "content": f"question {number}"}]
            answer = await client.chat.completions.create(model="auto", messages=messages)
            return answer.choices[0].message.content

        answers = await asyncio.gather(*(ask(i) for i in range(30)))
        assert answers == [f"question {i}" for i in range(30)]


async def test_tokens_come_as_they_are_made(http, url):
    body = chat("a b", model="cook", stream=True)
    async with asyncio.timeout(30), http.post(f"{url}/slow{CHAT}", json=body) as reply:
        for _ in range(10):  # parts of an answer whose making takes 40 s
            assert await reply.content.readany()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_the_models_only_place(http, url, stream):
    body = chat("a b", model="cook", stream=stream)
    for _ in range(3):
        asked = asyncio.create_task(post(http, f"{url}/slow{CHAT}", body))
        await until_at_work("slow", "cook")
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    quick = chat("a b", model="cook", max_tokens=2)
    async with asyncio.timeout(30):
        status, _, _ = await post(http, f"{url}/slow{CHAT}", quick)
    assert status == 200


async def test_a_model_with_a_full_queue_is_passed_over(http, url):
    body = chat(COOKING, max_tokens=1)
    held = chat(COOKING, model="cook", stream=True)
    async with http.post(f"{url}/slow{CHAT}", json=held) as reply:
        await reply.content.readany()
        asked = {asyncio.create_task(post(http, f"{url}/slow{CHAT}", body)) for _ in range(6)}
        async with asyncio.timeout(60):
            while len(waiting := {one for one in asked if not one.done()}) > 1:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    replies = [await one for one in asked]
    assert {status for status, _, _ in replies} == {200}
    models = sorted(headers["x-waypost-model"] for _, headers, _ in replies)
    assert models == ["cook", *["tiny"] * 5]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_episode_has_its_router_and_its_verifier_elsewhere(http, url, stream):
    body = chat(COOKING, stream=stream, stream_options={"include_usage": True})
    async with http.post(f"{url}/steps{CHAT}", json=body) as reply:
        text = await reply.text()
        assert (reply.status, reply.headers["x-waypost-model"]) == (200, "tiny")
    if stream:
        *events, usage, done = [event for event in text.split("\n\n") if event]
        assert done == "data: [DONE]"
        answer = json.loads(usage.removeprefix("data: "))
        assert len(events) > 2
    else:
        answer = json.loads(text)
        assert answer["choices"][0]["message"]["content"] == COOKING
    told = answer["usage"]["waypost"]
    assert (told["steps"], told["calls"], told["ended_by"]) == (2, 4, "answer")


async def test_no_episode_is_lost_when_its_router_dies(http, url):
    asked = [
        asyncio.create_task(post(http, f"{url}/steps{CHAT}", chat(f"question {i}")))
        for i in range(10)
    ]
    await until_in_flight(f"{url}/steps", 1)
    kill("steps", "Router")
    async with asyncio.timeout(60):
        replies = await asyncio.gather(*asked)
    assert {(status, headers["x-waypost-model"]) for status, headers, _ in replies} == {
        (200, "tiny")
    }


async def test_more_than_the_gateway_takes_is_429(http, url):
    async with http.post(f"{url}/tight{CHAT}", json=chat(stream=True)) as reply:
        await reply.content.readany()
        waiting = asyncio.create_task(post(http, f"{url}/tight{CHAT}", chat(max_tokens=1)))
        async with asyncio.timeout(60):
            while not (await gauges(f"{url}/tight"))["waypost_requests_queued"]:
                await asyncio.sleep(0.01)
        for _ in range(3):
            status, headers, body = await post(http, f"{url}/tight{CHAT}", chat())
            assert (status, body["error"]["code"]) == (429, "overloaded")
            assert int(headers["retry-after"]) >= 1
    assert (await waiting)[0] == 200


async def test_policy_and_prices_change_without_a_restart(http, running):
    url, data = running
    before = await post(http, f"{url}/apart{CHAT}", chat(COOKING))
    actors = [actor._actor_id for actor in replicas("apart", "Router")]
    user_config = {
        "policy": {"allowed_models": ["tiny"]},
        "prices": {"tiny": {"input_price": 1000.0, "output_price": 1000.0}},
    }
    changed = copy.deepcopy(data)
    changed["applications"][0]["deployments"] = [
        {"name": name, "user_config": user_config} for name in ("Gateway", "Router")
    ]
    for content, wanted in ((changed, "tiny"), (data, before[1]["x-waypost-model"])):
        launch.update(content)
        async with asyncio.timeout(120):
            while True:
                status, headers, body = await post(http, f"{url}/apart{CHAT}", chat(COOKING))
                assert status == 200
                costs = body["usage"]["waypost"]["cost_usd"] > 0.001
                if headers["x-waypost-model"] == wanted and costs is (wanted == "tiny"):
                    break
                await asyncio.sleep(0.2)
        if wanted == "tiny":
            assert [actor._actor_id for actor in replicas("apart", "Router")] == actors


async def test_a_whole_answer_survives_the_death_of_its_model(http, url):
    asked = asyncio.create_task(post(http, f"{url}/slow{CHAT}", chat(COOKING)))
    await until_at_work("slow", "cook")
    kill("slow", "cook")
    status, headers, _ = await asked
    assert (status, headers["x-waypost-model"]) == (200, "tiny")
    assert headers["x-waypost-attempts"] == "2"


async def test_while_its_replica_comes_back_a_model_is_passed_over(http, url):
    status, headers, _ = await post(http, f"{url}/slow{CHAT}", chat(COOKING))
    assert (status, headers["x-waypost-model"]) == (200, "tiny")
    assert headers["x-waypost-attempts"] == "1"


async def test_a_stream_whose_model_dies_ends_with_an_error_event(http, url):
    kill("apart", "cook")  # idle: the next request finds it dead, or alive again
    status, _, _ = await post(http, f"{url}/apart{CHAT}", chat(COOKING))
    assert status == 200
    body = chat("a", model="cook", stream=True)
    async with asyncio.timeout(60), http.post(f"{url}/slow{CHAT}", json=body) as reply:
        text = (await reply.content.readany()).decode()
        kill("slow", "cook")
        text += (await reply.read()).decode()
    *_, last = [event for event in text.split("\n\n") if event]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_failed"
    assert "[DONE]" not in text


async def test_no_request_is_lost_when_the_router_dies(http, url):
    kill("apart", "Router")
    async with asyncio.timeout(60):
        replies = await asyncio.gather(
            *(post(http, f"{url}/apart{CHAT}", chat(f"question {i}")) for i in range(10))
        )
    assert {status for status, _, _ in replies} == {200}
