"""A graph without an artifact: a router that needs no training decides among LLMs never seen."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from support.asgi import Client
from support.gateway import chat, echo_pool
from waypost.cli import command
from waypost.config import parse
from waypost.contracts.errors import ConfigError, WaypostError
from waypost.serve.backends.router_replica import Decider
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.local import Gateway
from waypost.serve.local.config import read_local
from waypost.serve.plan import Plan, make_plan

HARD = "Prove that $\\sum_{k=1}^{n} k^3 = (n(n+1)/2)^2$ for all n."
EASY = "what is the capital of france"
PRICES = {"small": (0.1, 0.2), "middle": (0.5, 1.0), "large": (2.0, 8.0)}


def pool(**more):
    return [
        {"name": name, "engine": "echo", "placement": "inline", "input_price": price[0],
         "output_price": price[1], "size": size, **more}
        for (name, price), size in zip(PRICES.items(), ("70B", "8B", "8x22B"), strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("router", "first"),
    [
        ("cheapest_llm", "small"),
        ("smallest_llm", "middle"),
        ("largest_llm", "large"),
        ("in_order", "small"),
        ({"name": "difficulty", "parameters": {"threshold": 0}}, "large"),
        ({"name": "difficulty", "parameters": {"threshold": 0, "strong": "small"}}, "small"),
    ],
)
async def test_a_router_serves_by_its_name_alone(router, first) -> None:
    async with Gateway(pool=pool(), router=router) as gateway:
        reply = await gateway.ask_async(HARD)
        assert reply.model == first
        name = router if isinstance(router, str) else router["name"]
        assert reply.router == name
        models = (await Client(gateway).get("/v1/models")).json()["data"]
        assert {"auto", name, *PRICES} == {model["id"] for model in models}
        decision = await gateway.route_async(HARD)
        assert decision.router_version.startswith("untrained-")


async def test_randomrouter_asks_each_llm() -> None:
    async with Gateway(pool=pool(), router="randomrouter") as gateway:
        found = {(await gateway.route_async(f"question {i}")).model for i in range(40)}
        assert found == set(PRICES)


async def test_difficulty_splits_and_lambda_is_its_dial() -> None:
    async with Gateway(pool=pool(), router="difficulty") as gateway:
        assert (await gateway.route_async(EASY)).model == "small"
        assert (await gateway.route_async(HARD)).model == "large"
        assert (await gateway.route_async(HARD, lam=5.0)).model == "small"


async def test_pool_and_prices_change_without_a_restart() -> None:
    async with Gateway(pool=pool(), router="cheapest_llm") as gateway:
        data = {"pool": pool(), "router": "cheapest_llm"}
        app = {"import_path": "waypost.serve.app:build", "args": data}
        new = {"name": "new", "engine": "echo", "placement": "inline", "input_price": 0.01,
               "output_price": 0.01}  # fmt: skip
        dear = {"input_price": 50.0, "output_price": 50.0}
        for user_config, first in (
            ({"pool": [new]}, "new"),
            ({"prices": {"small": dear}}, "middle"),
            ({"retired": ["small", "middle"]}, "large"),
            ({}, "small"),
        ):
            nodes = [{"name": n, "user_config": user_config} for n in ("Gateway", "Router")]
            await gateway.change(read_local({"applications": [{**app, "deployments": nodes}]}))
            assert (await gateway.ask_async("x")).model == first


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"router": "knnrouter"}, "waypost train --router knnrouter"),
        ({"router": "cheepest_llm"}, "did you mean 'cheapest_llm'?"),
        ({"router": {"name": "difficulty", "parameters": {"treshold": 1}}}, "'threshold'"),
        ({"router": {"name": "difficulty", "parameters": {"threshold": 2}}}, "from 0 to 1"),
        ({"router": "difficulty", "pool": echo_pool()}, "no LLM has prices"),
        ({"router": "smallest_llm", "pool": echo_pool()}, "no LLM has a size"),
        ({"router": "in_order", "artifact": "x"}, "give one of: artifact"),
        ({}, "router: NAME for a router that needs no training"),
        ({"router": {"parameters": {"threshold": 1}}, "artifact": "x"}, "router.parameters"),
        ({"router": "in_order", "pool": pool(size="big")}, "such as 7B or 8x22B"),
    ],
    ids=str,
)
def test_a_router_that_cannot_serve_is_told_with_what_to_do(args, told) -> None:
    with pytest.raises(ConfigError) as caught:
        Gateway(**{"pool": pool(), **args})
    assert told in str(caught.value)


def test_own_llms_with_a_trained_router_are_told_what_comes_next(artifact) -> None:
    with pytest.raises(WaypostError) as caught:
        Gateway(artifact=artifact, pool=pool())
    for step in ("router: difficulty", "waypost data run", "waypost train"):
        assert step in str(caught.value)


def test_a_folder_without_an_artifact_is_told_what_comes_next(tmp_path) -> None:
    with pytest.raises(WaypostError) as caught:
        Gateway(artifact=tmp_path / "nothing", pool=pool())
    assert "no manifest.json" in str(caught.value)
    assert "router: difficulty" in str(caught.value)


def test_a_change_to_a_trained_router_takes_no_strangers(artifact) -> None:
    from waypost.serve.changes import change_plan

    plan = make_plan(ServeArgs.model_validate({"pool": pool(), "router": "in_order"}))
    config = UserConfig.model_validate({"artifact": str(artifact)})
    with pytest.raises(WaypostError, match="no router was trained on"):
        change_plan(plan, config)


def test_infer_answers_without_an_artifact(tmp_path) -> None:
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump({"pool": pool(), "router": "in_order"}))
    ran = CliRunner().invoke(
        command, ["infer", "--pool", str(tmp_path / "pool.yaml"), "--query", "hello there"]
    )
    assert (ran.exit_code, ran.stdout) == (0, "hello there\n")
    (line,) = ran.stderr.splitlines()  # who answered, and why: no log lines, no progress
    assert line.startswith("small (the first of the pool)")


async def test_the_plan_reaches_a_node_as_plain_data() -> None:
    args = ServeArgs.model_validate({"pool": pool(), "router": "largest_llm"})
    plan = make_plan(args)
    sent = json.loads(json.dumps(plan.model_dump(mode="json", by_alias=True)))
    decider = Decider(parse(Plan, sent).router)
    await decider.start()
    reply = await decider.decide({"query": "x"}, "auto")
    assert reply["decision"]["model_name"] == "large"
    await decider.close()


async def test_the_shipped_remote_pool_starts_without_training(root, monkeypatch) -> None:
    monkeypatch.chdir(root)
    data = yaml.safe_load((root / "serve_configs/openai_pool.yaml").read_text())
    for entry in data["applications"][0]["args"]["pool"]:
        entry |= {"engine": "echo", "config": {}}
    del data["applications"][0]["args"]["feedback_dir"]
    async with Gateway(data) as gateway:
        reply = await Client(gateway).post("/v1/chat/completions", chat(HARD))
        assert reply.headers["x-waypost-model"] in {"gpt-4.1-mini", "deepseek-chat", "local-llm"}
