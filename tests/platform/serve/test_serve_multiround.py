"""Multi-round routers behind the gateway: recorded answers of the `replay` engine, no Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.fake_upstream import Reply
from support.gateway import chat, echo_pool, knn_artifact, running
from waypost.contracts.records import Query
from waypost.contracts.step_router import CallResult, Delegate, EpisodeState
from waypost.loading import load_router

CHAT = "/v1/chat/completions"
QUESTION = "which dish goes with which theorem?"
COOKING, ALGEBRA = "simmer garlic butter oven dough", "matrix kernel prime ring vector"
NAMES = ("knnmultiroundrouter", "llmmultiroundrouter")
PLAN = json.dumps(
    {
        "needs_split": True,
        "steps": [
            {"id": 1, "text": COOKING, "depends_on": [], "model": "cook"},
            {"id": 2, "text": ALGEBRA, "depends_on": [1], "model": "prover"},
        ],
    }
)
SAYS = {"plan": PLAN, "step": "a roast", "merge": "roast with lemma sauce", "answer": "both"}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rounds")
    return {name: knn_artifact(folder / name, name) for name in NAMES}


def replayed(artifact: Path, folder: Path, **says: str) -> list[dict[str, Any]]:
    """Return a pool of `replay` engines with the answers to the calls of one episode."""
    router: Any = load_router(artifact)
    state, records = EpisodeState(Query(QUESTION)), []
    while isinstance(action := router.step(state), Delegate):
        results = []
        for call in action.calls:
            text = (SAYS | says)[call.purpose]
            results.append(CallResult(call, text))
            line = {"query": call.prompt, "response": text, "model_name": call.model}
            records.append(line | {"input_tokens": 10, "output_tokens": 5})
        state = state.after(results)
    path = folder / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    pool = echo_pool()
    for entry in pool:
        entry |= {"engine": "replay", "config": {"data": str(path), "model": entry["name"]}}
    return pool


@pytest.mark.parametrize("name", NAMES)
async def test_a_plan_its_steps_and_the_merged_answer(name, artifacts, tmp_path):
    pool = replayed(artifacts[name], tmp_path)
    async with running(artifacts[name], pool=pool) as found:
        reply = await found.client.post(CHAT, chat(QUESTION))
    assert reply.status == 200
    assert reply.json()["choices"][0]["message"]["content"] == SAYS["merge"]
    told = reply.json()["usage"]["waypost"]
    assert (told["steps"], told["calls"], told["ended_by"]) == (4, 4, "answer")
    assert (told["input_tokens"], told["output_tokens"]) == (40, 20)
    assert told["cost_usd"] > 0
    assert "plans first" in reply.headers["x-waypost-reason"]


@pytest.mark.parametrize("name", NAMES)
async def test_the_merged_answer_is_streamed_under_the_clients_options(name, artifacts, tmp_path):
    pool = replayed(artifacts[name], tmp_path)
    async with running(artifacts[name], pool=pool) as found:
        body = chat(QUESTION, stream=True, max_tokens=2)
        reply = await found.client.post(CHAT, body)
    *events, done = reply.events()
    deltas = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(deltas).split() == SAYS["merge"].split()[:2]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


async def test_the_merged_answer_is_asked_within_the_chat(artifacts, upstream):
    upstream.script(*(Reply(text) for text in (PLAN, "a roast", "a lemma", "roast with a lemma")))
    base = {"base_url": upstream.url, "model": "m"}
    pool = [
        {"name": name, "engine": "openai", "placement": "inline", "config": base}
        for name in ("tiny", "prover", "cook")
    ]
    before = [
        {"role": "system", "content": "Answer in verse."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
    ]
    body = chat(QUESTION)
    body["messages"] = [*before, *body["messages"]]
    async with running(artifacts["knnmultiroundrouter"], pool=pool) as found:
        reply = await found.client.post(CHAT, body)
    assert reply.json()["choices"][0]["message"]["content"] == "roast with a lemma"
    *planning, merge = [one.body["messages"] for one in upstream.requests]
    assert [len(messages) for messages in planning] == [1, 1, 1]
    assert merge[:-1] == before
    assert "a lemma" in merge[-1]["content"]


async def test_a_malformed_plan_is_answered_at_once(artifacts, tmp_path):
    artifact = artifacts["knnmultiroundrouter"]
    pool = replayed(artifact, tmp_path, plan="no idea")
    async with running(artifact, pool=pool) as found:
        reply = await found.client.post(CHAT, chat(QUESTION))
    assert reply.json()["choices"][0]["message"]["content"] == SAYS["answer"]
    assert reply.json()["usage"]["waypost"]["calls"] == 2


async def test_caps_of_the_gateway_end_in_a_merged_answer(artifacts, tmp_path):
    artifact = artifacts["knnmultiroundrouter"]
    pool = replayed(artifact, tmp_path)
    for entry in pool:  # what is merged at a cap was not recorded
        entry |= {"engine": "echo", "config": {"text": PLAN if entry["name"] == "tiny" else "said"}}
    async with running(artifact, pool=pool, limits={"max_steps": 2}) as found:
        knobs = {"allowed_models": ["tiny"]}
        told = (await found.client.post(CHAT, chat(QUESTION, waypost=knobs))).json()
    told = told["usage"]["waypost"]
    assert (told["ended_by"], told["calls"], told["model"]) == ("steps", 3, "tiny")


@pytest.mark.parametrize("name", NAMES)
async def test_only_allowed_llms_are_asked(name, artifacts):
    async with running(artifacts[name], pool=echo_pool(tiny={"text": PLAN})) as found:
        body = chat(QUESTION, waypost={"allowed_models": ["tiny"]})
        reply = await found.client.post(CHAT, body)
        assert reply.headers["x-waypost-model"] == "tiny"
        assert found.echo("cook").calls.output_tokens == 0
        assert found.echo("prover").calls.output_tokens == 0


async def test_where_no_llm_answers_that_is_said(artifacts):
    pool = echo_pool(**{name: {"fail_with": "500"} for name in ("cook", "prover", "tiny")})
    async with running(artifacts["knnmultiroundrouter"], pool=pool) as found:
        reply = await found.client.post(CHAT, chat(QUESTION))
    assert (reply.status, reply.json()["error"]["code"]) == (502, "all_models_failed")
