"""A pool of the LLM deployments of a running Serve application."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from support.gateway import knn_artifact
from support.r1_policy import ANSWER, ASK
from support.r1_world import ScriptedSampler, environment, question
from support.served import application, served
from waypost.contracts.errors import ConfigError
from waypost_rl.training.live_pool import HandlePool
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.recorded import RecordedPool
from waypost_rl.training.rollout import roll_out

pytestmark = [
    pytest.mark.ray,
    pytest.mark.asyncio(loop_scope="module"),
    # Ray leaves sockets and log files of its own to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MODELS = {"cook": "cook", "prover": "prover"}


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("serve")
    pool: list[dict[str, Any]] = [
        {"name": "cook", "engine": "echo"},
        {"name": "prover", "engine": "echo", "config": {"delay_s": 3600}},
        {"name": "tiny", "engine": "echo", "placement": "inline"},
    ]
    artifact = knn_artifact(folder / "artifact")
    inline = {"router": {"placement": "inline"}}
    with served({"applications": [application("r1", artifact, pool, **inline)]}, folder):
        yield "r1"


def ask(query: str = "one two three", candidate: str = "cook") -> Ask:
    return Ask(candidate, query, question())


async def test_deployments_are_asked_by_handle(app, tmp_path):
    handles = HandlePool(app, MODELS, timeout_s=30)
    pool = RecordedPool(handles, tmp_path / "answers.jsonl")
    turns = [[ASK.format("cook", f"what is dish {n}?"), ANSWER] for n in range(4)]
    asked = [(question(key=f"q{n}"), 0.0) for n in range(4)]
    episodes = await roll_out(asked, environment(), ScriptedSampler(*turns), pool, seed=0)
    for n, episode in enumerate(episodes):
        assert f"<information>what is dish {n}?</information>" in episode.transcript.text
        assert [call.output_tokens for call in episode.calls] == [4]
    assert await pool.ask(ask("what is dish 3?")) == Reply("what is dish 3?", 4, 4, cached=True)
    await pool.close()


async def test_a_slow_llm_costs_its_time_out_and_failures_are_replies(app):
    pool = HandlePool(app, MODELS, timeout_s=4, max_tokens=2)
    slow = asyncio.create_task(pool.ask(ask(candidate="prover")))
    assert (await pool.ask(ask())).text == "one two"
    reply = await slow
    assert reply.text is None
    assert "4 s" in reply.fault
    await pool.close()


@pytest.mark.parametrize(
    ("name", "model", "told"),
    [
        ("other", "cook", r"pool.app: Ray Serve has no application 'other'; it has .*r1"),
        ("r1", "tiny", r"r1 has no deployment of tiny; it has .*cook"),
    ],
)
async def test_what_cannot_be_called_is_named(app, name, model, told):
    with pytest.raises(ConfigError, match=told):
        await HandlePool(name, {"cook": model}).ask(ask())
