"""The router's side of episodes: versions, changes of kind, raw calls, and `infer`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from support.gateway import COOKING, chat, echo_pool, knn_artifact
from support.gateway import stepping as up
from waypost.cli import command
from waypost.contracts.records import Query
from waypost.contracts.steps import Call, Delegate, EpisodeState, FinalAnswer
from waypost.serve.backends.messages import RouterUnavailableError, StaleDecisionError, read_action
from waypost.serve.backends.router_replica import Decider

CHAT = "/v1/chat/completions"
NO = {"text": "no", "tokens": 1}
WORDS = len(COOKING.split())


@pytest.fixture
def artifact(tiers) -> Path:
    return tiers


async def test_a_step_of_another_version_is_stale(artifact):
    async with up(artifact) as found:
        decider = Decider(found.plan.router)
        await decider.start()
        state = EpisodeState(Query("a")).to_dict()
        version = decider.routers._routers["tiers"].version
        action = read_action(await decider.step(state, "auto", version))
        assert isinstance(action, Delegate)
        with pytest.raises(StaleDecisionError):
            read_action(await decider.step(state, "tiers", "another"))
        with pytest.raises(RouterUnavailableError, match="expected a mapping"):
            read_action(await decider.step({"query": None}, "tiers", version))
        await decider.close()


async def test_kinds_of_router_change_under_load_and_no_request_is_lost(artifact, tmp_path):
    from waypost.serve.changes import change_plan
    from waypost.serve.config import UserConfig

    scores = knn_artifact(tmp_path / "knn")
    kinds = {scores: "knnrouter", artifact: "tiers"}
    async with up(artifact, echo_pool(cook={"text": "yes", "delay_s": 0.01})) as found:
        done = asyncio.Event()
        answered = asyncio.Condition()
        last = None

        async def ask() -> None:
            nonlocal last
            while not done.is_set():
                reply = await found.client.post(CHAT, chat())
                assert reply.status == 200, reply.body
                async with answered:
                    last = reply.headers["x-waypost-router"]
                    answered.notify_all()

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        for folder in (scores, artifact, scores, artifact):
            config = UserConfig.model_validate({"artifact": str(folder)})
            await found.gateway.adopt(change_plan(found.plan, config))
            async with answered, asyncio.timeout(30):
                await answered.wait_for(lambda kind=kinds[folder]: last == kind)
        done.set()
        await asyncio.gather(*asking)


def test_infer_runs_episodes(one_vote, tmp_path):
    pool = tmp_path / "pool.yaml"
    pool.write_text(yaml.safe_dump({"pool": echo_pool(cook=NO)}))
    given = ("--artifact", one_vote, "--pool", pool, "--query", COOKING, "--json")
    done = CliRunner().invoke(command, ["infer", *map(str, given), "--allow-plugin-code"])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    assert (row["model"], row["answer"], row["attempts"]) == ("prover", COOKING, 3)
    assert (row["episode"]["calls"], row["episode"]["steps"]) == (3, 3)
    assert row["usage"]["output_tokens"] == 2 * WORDS + 1


async def test_stop_strings_and_raw_prompts_of_a_call_reach_the_engine(one_vote):
    asked: list = []

    async def own_answer(self, state):
        if state.steps:
            return FinalAnswer(state.steps[-1][0].text, "tiny")
        return Delegate((Call("tiny", "one two stop three", purpose="plan", **fields),))

    for raw in (False, True):
        fields = {"stop": (" stop",), "raw": raw}
        async with up(one_vote) as found:
            engine = found.echo("tiny")
            generate = engine.generate
            engine.generate = lambda request, say=generate: asked.append(request) or say(request)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("waypost.serve.backends.episodes.RemoteSteps.step", own_answer)
                reply = await found.client.post(CHAT, chat())
        assert reply.json()["choices"][0]["message"]["content"] == "one two"
    prompts = [(one.prompt, one.messages is None) for one in asked]
    assert prompts == [(None, False), ("one two stop three", True)]


async def test_a_final_call_has_the_stop_strings_of_router_and_client(one_vote):
    for raw, stops in ((False, ["two"]), (True, [" three", "two"])):

        async def final(self, state, raw=raw):
            say = "one two three four"
            return Delegate((Call("tiny", say, final=True, stop=(" three",), raw=raw),))

        async with up(one_vote) as found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("waypost.serve.backends.episodes.RemoteSteps.step", final)
                alone = await found.client.post(CHAT, chat())
                both = await found.client.post(CHAT, chat(stop=stops))
        assert alone.json()["choices"][0]["message"]["content"] == "one two"
        assert both.json()["choices"][0]["message"]["content"].strip() == "one"
