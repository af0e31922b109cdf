"""The router node's work: loading, batches, policy changes, failures as data."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from support.gateway import ALGEBRA, COOKING, arguments
from waypost.contracts.errors import BudgetError, EmptyPoolError
from waypost.serve.backends.messages import StaleDecisionError, read_reply
from waypost.serve.backends.router_replica import Decider, Routers
from waypost.serve.changes import change_plan
from waypost.serve.config import AUTO, ServeArgs, UserConfig
from waypost.serve.plan import RouterPlan, make_plan


def plan(artifact: Path, **changes) -> RouterPlan:
    return make_plan(ServeArgs.model_validate(arguments(artifact, **changes))).router


@pytest.fixture(params=[0, 1, 3, "auto"], ids=lambda threads: f"threads {threads}")
async def decider(request, artifact):
    found = Decider(plan(artifact, router={"placement": "inline", "threads": request.param}))
    await found.start()
    yield found
    await found.close()


async def test_many_at_once_are_each_decided_as_alone(decider):
    queries = [COOKING, ALGEBRA] * 50
    replies = await asyncio.gather(*(decider.decide({"query": q}, "knnrouter") for q in queries))
    assert [read_reply(reply).model for reply in replies] == ["cook", "prover"] * 50


async def test_a_failure_is_its_own_alone(decider):
    queries = [{"query": COOKING}, {"query": COOKING, "max_cost_usd": 0}, {"query": ALGEBRA}]
    replies = await asyncio.gather(*(decider.decide(query, "knnrouter") for query in queries))
    assert [reply.get("error", {}).get("type") for reply in replies] == [None, "BudgetError", None]


async def test_an_exception_fails_its_query_alone_and_keeps_its_text(decider, monkeypatch, caplog):
    router = decider.routers._routers["knnrouter"]
    embed = router.embed

    def failing(queries):
        if any("poison" in query.text for query in queries):
            raise ValueError(f"a plug-in tells {queries[0].text}")
        return embed(queries)

    monkeypatch.setattr(router, "embed", failing)
    asked = [({"query": text}, "knnrouter") for text in (COOKING, "poison", ALGEBRA)]
    one_by_one = await asyncio.gather(*(decider.decide(*each) for each in asked))
    for replies in (one_by_one, await decider.decide_aside(asked)):
        error = "the router failed: ValueError"
        assert [reply.get("error", {}).get("message") for reply in replies] == [None, error, None]
    assert "poison" not in caplog.text


async def test_long_texts_are_decided_in_a_thread(artifact, monkeypatch):
    decider = Decider(plan(artifact))
    await decider.start()
    seen = []
    decide = decider.routers.decide

    def watched(queries):
        seen.append(threading.current_thread() is threading.main_thread())
        return decide(queries)

    monkeypatch.setattr(decider.routers, "decide", watched)
    await decider.decide({"query": "short"}, "knnrouter")
    await decider.decide({"query": "long " * 2000}, "knnrouter")
    await decider.close()
    assert seen == [True, False]


def batch_sizes(decider, monkeypatch) -> list[int]:
    """Return a list that gets the number of queries of each decision."""
    sizes: list[int] = []
    decide = decider.routers.decide

    def watched(queries):
        sizes.append(len(queries))
        return decide(queries)

    monkeypatch.setattr(decider.routers, "decide", watched)
    return sizes


async def test_on_the_loop_those_of_neighbouring_turns_are_decided_together(artifact, monkeypatch):
    decider = Decider(plan(artifact, router={"placement": "inline", "threads": 0}))
    await decider.start()
    sizes = batch_sizes(decider, monkeypatch)

    async def asked(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await decider.decide({"query": f"q {turns}"}, "knnrouter")

    await asyncio.gather(*(asked(turn) for turn in range(5)))
    assert sizes == [5]
    await asyncio.gather(*(asked(0) for _ in range(20)))
    assert sizes == [5, 16, 4]
    await asked(0)
    assert sizes == [5, 16, 4, 1]
    await decider.close()


async def test_what_waits_for_a_thread_is_decided_together(artifact, monkeypatch):
    decider = Decider(plan(artifact, router={"placement": "inline", "threads": 1}))
    await decider.start()
    sizes = batch_sizes(decider, monkeypatch)
    await asyncio.gather(*(decider.decide({"query": f"q {i}"}, "knnrouter") for i in range(100)))
    await decider.close()
    assert sum(sizes) == 100
    assert sizes[0] == 1
    assert max(sizes) == 64


@pytest.mark.parametrize(
    ("query", "router", "error"),
    [
        ({"query": "x", "allowed_models": ["nobody"]}, "knnrouter", EmptyPoolError),
        ({"query": "x", "max_cost_usd": 0}, "knnrouter", BudgetError),
        ({"query": "x"}, "other", StaleDecisionError),
    ],
)
async def test_failures_cross_as_data_and_are_raised_at_the_other_end(
    decider, query, router, error
):
    reply = await decider.decide(query, router)
    assert set(reply) == {"error"}
    with pytest.raises(error):
        read_reply(reply)


def test_policy_and_prices_apply_at_once_and_go_with_the_next_config(artifact):
    graph = make_plan(ServeArgs.model_validate(arguments(artifact)))
    routers = Routers(graph.router)
    routers.load()
    loaded = routers._routers["knnrouter"]

    def decided(config):
        nonlocal routers
        plan = change_plan(graph, UserConfig.model_validate(config))
        routers = Routers(plan.router, routers)
        routers.load()
        assert routers._routers["knnrouter"] is loaded  # not read anew
        return read_reply(routers.decide([({"query": COOKING}, AUTO)])[0])

    before = decided({})
    assert decided({"policy": {"lambda": 1000}}).model == "tiny"
    free = decided({"prices": {"cook": {"input_price": 0, "output_price": 0}}})
    assert (free.model, free.cost_usd["cook"]) == ("cook", 0)
    assert decided({}) == before


def test_exploration_of_the_policy_shows_in_the_propensity(artifact):
    routers = Routers(plan(artifact, policy={"exploration": 0.3}))
    routers.load()
    texts = [f"{COOKING} {i}" for i in range(300)]
    replies = routers.decide([({"query": text}, "knnrouter") for text in texts])
    found = {round(read_reply(reply).propensity, 6) for reply in replies}
    assert found == {0.8, 0.1}


def test_routers_of_one_encoder_share_it_and_its_memory(artifact):
    pair = {"artifact": None, "routers": {"a": str(artifact), "b": str(artifact)}}
    args = ServeArgs.model_validate(arguments(artifact) | pair)
    loaded = Routers(make_plan(args).router)
    loaded.load()
    first, second = loaded._routers.values()
    assert first is not second
    assert first.encoder is second.encoder


def test_the_encoder_runs_as_the_config_says(artifact):
    router = {"placement": "inline", "encoder": {"cache_mb": 0}}
    loaded = Routers(plan(artifact, router=router))
    loaded.load()
    (one,) = loaded._routers.values()
    assert type(one.encoder).__name__ != "CachedEncoder"
