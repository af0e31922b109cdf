"""What a user_config changes, and how a running gateway takes it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import (
    ALGEBRA,
    COOKING,
    Running,
    arguments,
    chat,
    echo_pool,
    knn_artifact,
    running,
)
from support.skipping_loop import skips_waits
from waypost.config import parse
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ArtifactFormatError, ConfigError, PoolMismatchError
from waypost.serve.backends import dispatcher
from waypost.serve.changes import Changes, change_plan
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.plan import Plan, make_plan

CHAT = "/v1/chat/completions"


@pytest.fixture
def plan(artifact) -> Plan:
    return make_plan(ServeArgs.model_validate(arguments(artifact)))


@pytest.fixture
async def up(artifact) -> AsyncIterator[Running]:
    async with running(artifact) as found:
        yield found


def config(**fields) -> UserConfig:
    return parse(UserConfig, fields)


def further(name: str, engine: str = "echo", **fields) -> dict:
    return {"name": name, "engine": engine, "placement": "inline"} | fields


async def model_of(up: Running, text: str = COOKING, **fields) -> str:
    reply = await up.client.post(CHAT, chat(text, **fields))
    assert reply.status == 200, reply.json()
    return reply.headers["x-waypost-model"]


# the changed plan


def test_what_is_kept_of_requests_changes_and_goes_back(plan):
    changed = change_plan(plan, config(log_queries=True, feedback_days=3, remember_decisions=9))
    assert (changed.log_queries, changed.feedback_days, changed.remember_decisions) == (True, 3, 9)
    assert change_plan(plan, config(remember_decisions=9)).feedback_days == plan.feedback_days


def test_a_key_of_the_arguments_is_told_to_need_a_restart():
    with pytest.raises(ConfigError, match="store_place: stands in args; a change there restarts"):
        config(store_place="head")
    with pytest.raises(ConfigError, match="unknown key"):
        config(store_palce="head")


def test_nothing_is_changed_by_nothing(plan):
    assert change_plan(plan, UserConfig()) == plan


def test_what_is_absent_is_again_as_in_the_arguments(plan):
    changed = change_plan(plan, config(policy={"lambda": 2}, retired=["cook"]))
    assert (changed.router.policy.lam, changed.router.served) == (2, ("prover", "tiny"))
    # the next one is a change of the same plan, not of the changed one
    assert change_plan(plan, config(retired=["tiny"])).router.policy.lam == 0


def test_prices_reach_gateway_and_router(plan):
    changed = change_plan(plan, config(prices={"tiny": {"input_price": 3, "output_price": 4}}))
    assert changed.router.prices["tiny"].prices == (3, 4)
    assert changed.router.prices["cook"] == plan.router.prices["cook"]


def test_a_further_model_takes_the_place_of_its_namesake(plan):
    changed = change_plan(plan, config(pool=[further("tiny", config={"tokens": 3})]))
    assert [model.name for model in changed.models] == ["cook", "prover", "tiny"]
    assert changed.models[-1].config == {"tokens": 3}


def test_relative_folders_resolve_as_those_of_the_arguments(plan, artifact):
    elsewhere = plan.model_copy(
        update={"router": plan.router.model_copy(update={"root": str(artifact.parent)})}
    )
    changed = change_plan(elsewhere, config(artifact=artifact.name))
    assert changed.router.artifacts == {"knnrouter": str(artifact)}


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"retired": ["nobody"]}, PoolMismatchError, "nobody is not in the pool: cook, prover"),
        ({"retired": ["cook", "prover", "tiny"]}, ConfigError, "no model would be left"),
        ({"policy": {"allowed_models": ["x"]}}, PoolMismatchError, "x is not in the pool"),
        ({"prices": {"x": {"input_price": 1, "output_price": 1}}}, PoolMismatchError, "x is not"),
        ({"pool": [further("stranger")]}, PoolMismatchError, "no router was trained on stranger"),
        ({"pool": [further("tiny", "openai")]}, ConfigError, "pool.0.config: base_url"),
        ({"pool": [further("tiny", config={"x": 1})]}, ConfigError, "pool.0.config: x: unknown"),
        ({"pool": [further("tiny", input_price=1)]}, ConfigError, "give both prices or none"),
        ({"artifact": "nowhere"}, ArtifactFormatError, "manifest.json"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(plan, fields, error, told):
    with pytest.raises(error) as caught:
        change_plan(plan, config(**fields))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"artifact": "a", "routers": {"r": "b"}}, "give artifact (one router) or routers"),
        ({"default_router": "r"}, "'r' is not under routers"),
        ({"routers": {"auto": "a"}}, "means the default router"),
        ({"pool": [{"name": "a", "engine": "echo"}]}, "a needs placement: inline here"),
        ({"pool": [further("a"), further("a")]}, "a stands there twice"),
        ({"pool": [further("a")], "retired": ["a"]}, "stands under retired and under pool"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_itself_is_refused(fields, told):
    with pytest.raises(ConfigError) as caught:
        config(**fields)
    assert told in str(caught.value)


# how a node takes configs


async def test_the_first_config_is_in_force_before_the_node_serves(plan):
    adopted = []

    async def adopt(changed):
        await asyncio.sleep(0.01)
        adopted.append(changed.router.policy.lam)

    changes = Changes(plan, adopt)
    await changes.take({"policy": {"lambda": 1}})
    assert adopted == [1]
    await changes.take({"policy": {"lambda": 2}})
    await changes.take({"policy": {"lambda": 3}})
    assert adopted == [1]  # later ones do not hold up the node
    await changes.settled()
    assert adopted == [1, 2, 3]


async def test_a_config_that_changes_nothing_is_no_work(plan):
    changes = Changes(plan, adopt=None)
    await changes.take({})
    await changes.take({"policy": {"lambda": 0}})
    await changes.settled()


async def test_a_wrong_config_is_logged_and_the_earlier_one_stays(plan, caplog):
    told, adopted = [], []

    async def adopt(changed):
        adopted.append(changed)

    changes = Changes(plan, adopt, told.append)
    for wrong in ({"polcy": {}}, {"retired": ["nobody"]}):
        await changes.take(wrong)
        await changes.settled()
    assert (told, adopted) == ([False, False], [])
    assert "polcy: unknown key" in caplog.text
    assert "nobody is not in the pool" in caplog.text


# the gateway


async def test_an_artifact_that_cannot_be_loaded_leaves_the_earlier_one(up, artifact, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(artifact, broken)
    version = read_manifest(broken).version
    manifest = broken / "manifest.json"
    manifest.write_text(manifest.read_text().replace(version, "0" * len(version)))
    (broken / "weights.safetensors").write_bytes(b"cut")
    told = []
    changes = Changes(up.plan, up.gateway.adopt, told.append)
    await changes.take({"artifact": str(broken), "policy": {"lambda": 1000}})
    assert told == [False]
    assert await model_of(up) == "cook"
    assert up.plan.router.policy.lam == 0


async def test_a_new_artifact_decides_from_now_on(up, artifact, tmp_path):
    pair = {"routers": {"new": str(knn_artifact(tmp_path / "new")), "old": str(artifact)}}
    assert (await up.client.post(CHAT, chat(model="new"))).status == 404
    await up.gateway.adopt(change_plan(up.plan, config(**pair)))
    reply = await up.client.post(CHAT, chat(COOKING))
    assert (reply.status, reply.headers["x-waypost-model"]) == (200, "cook")
    assert (await up.client.post(CHAT, chat(model="old"))).status == 200
    listed = (await up.client.get("/v1/models")).json()["data"]
    assert {"new", "old"} <= {model["id"] for model in listed}


@skips_waits
async def test_a_retired_model_finishes_what_it_works_on(artifact, monkeypatch):
    monkeypatch.setattr(dispatcher, "LEAVE_AFTER_S", 0.0)
    async with running(artifact, pool=echo_pool(cook={"delay_s": 0.3})) as up:
        cook = up.echo("cook")
        asked = asyncio.create_task(model_of(up))
        await asyncio.sleep(0.05)
        await up.gateway.adopt(change_plan(up.plan, config(retired=["cook"])))
        assert await model_of(up) != "cook"
        assert (await up.client.post(CHAT, chat(model="cook"))).status == 404
        assert await cook.healthy()  # not closed under the request
        assert await asked == "cook"
        while await cook.healthy():
            await asyncio.sleep(0.01)


async def test_an_endpoint_is_replaced_while_it_answers(up):
    def endpoint(upstream: FakeUpstream) -> dict:
        settings = {"base_url": upstream.url, "model": "m"}
        return {"pool": [further("cook", "openai", config=settings)]}

    plain = up.plan
    slow, quick = Reply(text="old", delay_s=0.3), Reply(text="new")
    async with FakeUpstream(slow) as first, FakeUpstream(quick) as second:
        await up.gateway.adopt(change_plan(plain, config(**endpoint(first))))
        asked = asyncio.create_task(up.client.post(CHAT, chat(COOKING)))
        while not first.requests:
            await asyncio.sleep(0.01)
        await up.gateway.adopt(change_plan(plain, config(**endpoint(second))))
        news = (await up.client.post(CHAT, chat(COOKING))).json()
        assert news["choices"][0]["message"]["content"] == "new"
        olds = (await asked).json()
        assert olds["choices"][0]["message"]["content"] == "old"


async def test_no_request_fails_while_configs_change(up):
    stop = False
    statuses: list[int] = []

    async def client(text: str) -> None:
        while not stop:
            statuses.append((await up.client.post(CHAT, chat(text))).status)

    plain = up.plan
    clients = [asyncio.create_task(client(text)) for text in (COOKING, ALGEBRA) * 4]
    for turn in range(30):
        changed = config(
            policy={"lambda": turn % 3},
            retired=["cook"] if turn % 2 else [],
            pool=[further("tiny", config={"tokens": turn + 1})],
        )
        await up.gateway.adopt(change_plan(plain, changed))
        await asyncio.sleep(0.01)
    stop = True
    await asyncio.gather(*clients)
    assert len(statuses) > 30
    assert set(statuses) == {200}


@pytest.mark.parametrize("ahead", ["gateway", "router"])
async def test_a_decision_for_another_config_is_made_again(up, ahead):
    router = up.gateway.dispatcher._router
    changed = change_plan(up.plan, config(retired=["cook"], pool=[further("tiny")]))
    only_tiny = change_plan(changed, config(retired=["prover"]))
    if ahead == "router":
        plan = change_plan(up.plan, config(retired=["tiny"]))
        await up.gateway.adopt(plan)
        await router.adopt(only_tiny.router)
        asked = asyncio.create_task(model_of(up))
        await asyncio.sleep(0.3)
        await up.gateway.adopt(only_tiny)
    else:
        adopt = router.adopt
        router.adopt = lambda plan: asyncio.sleep(0)
        await up.gateway.adopt(only_tiny.model_copy(update={"models": only_tiny.models[-1:]}))
        router.adopt = adopt
        await router.adopt(change_plan(up.plan, config(retired=["tiny"])).router)
        asked = asyncio.create_task(model_of(up))
        await asyncio.sleep(0.3)
        await router.adopt(only_tiny.router)
    assert await asked == "tiny"
