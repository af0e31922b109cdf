"""What the gateway counts: routing, money, LLMs; who may read it; two gateways of a machine."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from support.asgi import Client
from support.gateway import ALGEBRA, COOKING, arguments, chat, echo_pool, running, unservable
from waypost.secrets import KeyRing
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.access import ClientKeys, client_keys
from waypost.serve.gateway.app import Gateway
from waypost.serve.plan import make_plan

CHAT = "/v1/chat/completions"
PRICES = {"cook": (2.0, 4.0), "prover": (3.0, 9.0), "tiny": (1.0, 1.0)}


def priced_pool() -> list[dict]:
    pairs = ((entry, PRICES[entry["name"]]) for entry in echo_pool(cook={"tokens": 4}))
    return [{**entry, "input_price": a, "output_price": b} for entry, (a, b) in pairs]


async def read(client) -> dict[str, float]:
    """Return the value of each series by its name with labels."""
    text = (await client.get("/metrics")).body.decode()
    lines = re.findall(r"^(waypost_\S+?(?:\{.*\})?) (\S+)$", text, re.M)
    return {name: float(value) for name, value in lines}


async def test_dollars_and_what_the_dearest_llm_would_have_cost(artifact):
    async with running(artifact, pool=priced_pool()) as up:
        reply = await up.client.post(CHAT, chat(COOKING))
        assert reply.headers["x-waypost-model"] == "cook"
        usage = reply.json()["usage"]
        told = await read(up.client)
    tokens = usage["prompt_tokens"], usage["completion_tokens"]
    spent = told['waypost_cost_usd_total{model="cook",router="knnrouter"}']
    assert spent == pytest.approx(usage["waypost"]["cost_usd"])
    dearest = told['waypost_dearest_cost_usd_total{router="knnrouter"}']
    assert dearest == pytest.approx((tokens[0] * 3.0 + tokens[1] * 9.0) / 1e6)
    assert told['waypost_answers_total{model="cook"}'] == 1
    assert told['waypost_answers_total{model="tiny"}'] == 0, "there before its first answer"


async def test_questions_unlike_the_training_data_are_counted(artifact):
    async with running(artifact) as up:
        for text in (COOKING, "xqzj vvkw"):
            body = (await up.client.post("/v1/route", chat(text))).json()
            assert body["out_of_distribution"] == (text != COOKING)
        told = await read(up.client)
    assert told['waypost_out_of_distribution_decisions_total{router="knnrouter"}'] == 1
    assert sum(v for k, v in told.items() if k.startswith("waypost_decisions_total")) == 2


async def test_ratings_stand_beside_what_was_predicted(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path / "feedback")) as up:
        answer = await up.client.post(CHAT, chat(COOKING))
        predicted = (await up.client.post("/v1/route", chat(COOKING))).json()["quality"]["cook"]
        rating = {"request_id": answer.headers["x-waypost-request-id"], "rating": 0.25}
        assert (await up.client.post("/v1/feedback", rating)).status == 200
        pinned = await up.client.post(CHAT, chat(COOKING, model="tiny"))
        rating["request_id"] = pinned.headers["x-waypost-request-id"]
        assert (await up.client.post("/v1/feedback", rating)).status == 200
        told = await read(up.client)
    assert told['waypost_rating_ratio_sum{model="cook"}'] == 0.25
    assert told['waypost_rated_prediction_ratio_sum{model="cook"}'] == pytest.approx(predicted)
    assert 'waypost_rating_ratio_sum{model="tiny"}' not in told, "nothing was predicted"


async def test_sessions_and_the_pace_of_streams_are_counted(artifact):
    async with running(artifact, sessions="on", pool=priced_pool()) as up:
        body = chat(COOKING, stream=True, waypost={"session_id": "s"})
        assert (await up.client.post(CHAT, body)).status == 200
        told = await read(up.client)
    assert told['waypost_session_turns_total{state="new"}'] == 1
    assert told['waypost_time_to_first_token_seconds_count{model="cook"}'] == 1
    assert told['waypost_time_per_output_token_seconds_count{model="cook"}'] == 1
    assert told[f'waypost_request_duration_seconds_count{{endpoint="{CHAT}"}}'] == 1


async def test_an_llm_that_fails_is_not_ready(artifact):
    pool = [echo_pool()[0], {**unservable("prover"), "placement": "inline"}]
    async with running(artifact, pool=pool) as up:
        told = await read(up.client)
    state = {
        name: told[f'waypost_llm_gateways{{model="prover",state="{name}"}}']
        for name in ("ready", "failed")
    }
    assert state == {"ready": 0, "failed": 1}
    assert told['waypost_llm_gateways{model="cook",state="ready"}'] == 1


async def test_requests_of_an_llm_are_in_flight_or_wait(artifact):
    pool = [{**e, "max_ongoing_requests": 1} for e in echo_pool(cook={"delay_s": 60})]
    async with running(artifact, pool=pool) as up:
        waiting = [up.client.open("POST", CHAT, chat(COOKING, model="cook")) for _ in range(3)]
        async with asyncio.timeout(30):
            while (told := await read(up.client))['waypost_llm_requests_queued{model="cook"}'] < 2:
                await asyncio.sleep(0.01)
        assert told['waypost_llm_requests_in_flight{model="cook"}'] == 1
        assert told["waypost_requests_in_flight"] == 3
        for request in waiting:
            request.go_away()
            await request.end()
        told = await read(up.client)
        assert told['waypost_llm_requests_queued{model="cook"}'] == 0
        assert told['waypost_llm_requests_in_flight{model="cook"}'] == 0


async def test_the_budget_of_the_file_is_told(artifact):
    async with running(artifact, metrics={"budget_usd_per_day": 20}) as up:
        assert (await read(up.client))["waypost_budget_usd_per_day"] == 20
    async with running(artifact) as up:
        assert "waypost_budget_usd_per_day" not in await read(up.client)


async def test_who_reads_the_metrics_where_clients_have_keys(artifact):
    keys = client_keys(KeyRing({"waypost-clients": ["client"], "waypost-metrics": ["reader"]}))
    async with running(artifact, keys=keys) as up:
        for key, status in (("client", 200), ("reader", 200), ("nobody", 401)):
            reply = await up.client.get("/metrics", authorization=f"Bearer {key}")
            assert reply.status == status
        reply = await up.client.post(CHAT, chat(), authorization="Bearer reader")
        assert reply.status == 401, "a reader's key asks nothing"
    async with running(artifact, keys=keys, metrics={"access": "open"}) as up:
        assert (await up.client.get("/metrics")).status == 200
        assert (await up.client.post(CHAT, chat())).status == 401


async def test_two_gateways_of_a_machine_tell_the_same_sum(artifact, tmp_path: Path):
    plan = make_plan(ServeArgs.model_validate(arguments(artifact)))
    both = [Gateway(plan, local_router(plan), local_llm, figures=tmp_path) for _ in range(2)]
    clients = [Client(gateway) for gateway in both]
    for gateway in both:
        await gateway.start()
    for question, client in ((COOKING, clients[0]), (ALGEBRA, clients[1]), (ALGEBRA, clients[1])):
        assert (await client.post(CHAT, chat(question))).status == 200
    key = f'waypost_requests_total{{endpoint="{CHAT}",status="200"}}'
    for client in clients:
        told = await read(client)
        assert (told[key], told["waypost_gateways"]) == (3, 2)
        assert told['waypost_answers_total{model="prover"}'] == 2
    await both[0].close()
    told = await read(clients[1])
    assert (told[key], told["waypost_gateways"]) == (3, 1)
    await both[1].close()


async def test_a_folder_that_cannot_be_made_leaves_the_metrics_of_this_gateway(artifact, tmp_path):
    (tmp_path / "file").write_text("")
    plan = make_plan(ServeArgs.model_validate(arguments(artifact)))
    gateway = Gateway(plan, local_router(plan), local_llm, figures=tmp_path / "file" / "x")
    await gateway.start()
    assert (await Client(gateway).post(CHAT, chat(COOKING))).status == 200
    assert (await read(Client(gateway)))['waypost_answers_total{model="cook"}'] == 1
    await gateway.close()


def test_keys_of_readers_are_no_keys_of_clients():
    keys = ClientKeys(["client"], ["reader"])
    assert keys.accept("Bearer reader", metrics=True)
    assert not keys.accept("Bearer reader")
