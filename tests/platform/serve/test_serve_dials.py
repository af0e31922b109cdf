"""The name of the model alone chooses lambda: auto:0.3, auto-cheap, auto-balanced, auto-best."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.gateway import ALGEBRA, COOKING, arguments, chat, echo_pool, running
from waypost.config import parse
from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import write_routing_data
from waypost.loading import manifest_of
from waypost.metrics.operating_points import read_curve
from waypost.pipelines.train import TrainConfig, train
from waypost.serve.changes import change_plan
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.dials import PATTERN, Dial, read_dial
from waypost.serve.plan import make_plan
from waypost.testing.synthetic import ENCODER_ID, planted

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dials")
    write_routing_data(folder / "data", planted(80))
    config = TrainConfig(router="knnrouter", encoder=ENCODER_ID, parameters={"k": 10})
    train(config, folder / "data", folder / "artifact")
    return folder / "artifact"


async def decided(up, model, **body):
    found = await up.client.post("/v1/route", {"model": model, "query": COOKING, **body})
    assert found.status == 200, found.json()
    return found.json()


async def test_a_number_behind_the_name_is_lambda(trained):
    async with running(trained) as up:
        assert (await decided(up, "auto:0.3"))["lambda"] == 0.3
        assert (await decided(up, "knnrouter:2"))["lambda"] == 2
        assert (await decided(up, "auto"))["lambda"] == 0
        high = await decided(up, "auto:100000")
    assert high["model_name"] == "tiny"


async def test_names_have_the_lambdas_of_the_curve(trained):
    named = read_curve(manifest_of(trained).metrics).named()
    async with running(trained) as up:
        for name, point in named.items():
            assert (await decided(up, f"auto-{name}"))["lambda"] == point.lam
        listed = (await up.client.get("/v1/models")).json()["data"]
        one = (await up.client.get("/v1/models/auto-cheap")).json()
    assert one["lambda"] == named["cheap"].lam
    assert [entry["id"] for entry in listed if "lambda" in entry] == [
        "auto-cheap", "auto-balanced", "auto-best"
    ]  # fmt: skip


async def test_answers_and_streams_take_the_names(trained):
    async with running(trained) as up:
        whole = await up.client.post(CHAT, chat(ALGEBRA, model="auto:100000"))
        assert (whole.status, whole.json()["model"]) == (200, "tiny")
        named = await up.client.post(CHAT, chat(ALGEBRA, model="auto-best", stream=True))
        assert (named.status, named.headers["x-waypost-model"]) == (200, "prover")


async def test_a_request_that_says_lambda_itself_overrules_the_name(trained):
    async with running(trained) as up:
        found = await decided(up, "auto:5", waypost={"lambda": 0.1})
    assert found["lambda"] == 0.1


async def test_a_session_keeps_lambda_and_llm(trained):
    async with running(trained, sessions="on") as up:
        body = chat(ALGEBRA, model="auto:0.01", waypost={"session_id": "s"})
        first = await up.client.post(CHAT, body)
        said = first.json()["choices"][0]["message"]
        body["messages"] += [said, {"role": "user", "content": ALGEBRA}]
        second = await up.client.post(CHAT, body)
    assert second.status == 200
    assert first.headers["x-waypost-model"] == second.headers["x-waypost-model"] == "prover"
    assert second.headers["x-waypost-session"] == "kept"


async def test_an_artifact_without_a_curve_has_no_names(artifact):
    async with running(artifact) as up:
        found = await up.client.post(CHAT, chat("x", model="auto-cheap"))
        assert found.status == 404
        assert "keeps no curve" in found.json()["error"]["message"]
        assert (await decided(up, "auto:0.3"))["lambda"] == 0.3


@pytest.mark.parametrize("name", ["auto:", "auto:-1", "auto:nan", "auto:1e9", "auto:0.3:1", "x:1"])
async def test_other_forms_are_no_model(trained, name):
    async with running(trained) as up:
        found = await up.client.post(CHAT, chat("x", model=name))
    assert found.status == 404
    advised = "expected auto:LAMBDA" in found.json()["error"]["message"]
    assert advised == name.startswith("auto:")


async def test_an_llm_whose_name_has_a_colon_is_asked(trained):
    pool = [*echo_pool()[1:], {**echo_pool()[0], "name": "cook"}]
    plan = make_plan(ServeArgs.model_validate(arguments(trained, pool=pool)))
    assert read_dial("llama3:8", plan.router_names, plan.dials) is None
    assert read_dial("auto:8", plan.router_names, plan.dials) == Dial("auto", 8.0)


def test_the_names_are_taken(trained):
    pool = [{**echo_pool()[0], "name": "auto-best"}]
    with pytest.raises(ConfigError, match="auto-best is the name of a router"):
        parse(ServeArgs, arguments(trained, pool=pool))
    with pytest.raises(ConfigError, match="means the default router"):
        parse(ServeArgs, arguments(trained, routers={"auto-best": str(trained)}))


def test_another_artifact_brings_other_lambdas(trained, artifact):
    plan = make_plan(ServeArgs.model_validate(arguments(trained)))
    assert set(plan.dials) == {"auto-cheap", "auto-balanced", "auto-best"}
    changed = change_plan(plan, UserConfig(artifact=str(artifact)))
    assert changed.dials == {}


async def test_the_document_names_them(trained):
    async with running(trained) as up:
        found = (await up.client.get("/openapi.json")).json()
    said = found["components"]["schemas"]["ChatBody"]["properties"]["model"]["anyOf"]
    assert "auto-cheap" in said[0]["enum"]
    assert said[1]["pattern"] == PATTERN
