"""Episodes are played row by row in step, and the candidates of a round are asked at once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from support.r1_policy import ANSWER, ASK
from support.r1_world import (
    END,
    PairCodec,
    ScriptedPool,
    ScriptedSampler,
    environment,
    question,
)
from support.skipping_loop import skips_waits
from waypost_rl.environment import Limits
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.rollout import fitting, roll_out

ASKS = [ASK.format("cook", f"what is dish {n}?") for n in range(3)]


async def test_rows_go_on_in_step_and_read_their_own_replies():
    sampler = ScriptedSampler(
        [ANSWER], [ASKS[0], ASKS[1], ANSWER], ["hm", ASKS[2], ANSWER], ["no"] * 5
    )
    pool = ScriptedPool(lambda ask: Reply(f"{ask.question.query_id}: {ask.query}", 10, 5))
    asked = [(question(f"question {n}?", f"q{n}"), 0.1 * n) for n in range(4)]
    episodes = await roll_out(asked, environment(), sampler, pool, seed=7, temperature=0.5)
    assert sampler.begun == {"seed": 7, "temperature": 0.5}
    assert sampler.rounds == [[0, 1, 2, 3], [1, 2, 3], [1, 2, 3], [3], [3]]
    assert [(one.question, one.alpha) for one in episodes] == asked
    assert [one.turns for one in episodes] == [1, 3, 3, 5]
    assert all(one.done and one.pending is None for one in episodes)
    for episode, context in zip(episodes, sampler.contexts, strict=True):
        assert (*episode.prompt_ids, *episode.response_ids) == tuple(context)
        assert END not in episode.response_ids[:-1] or episode.turns > 1
    assert "<information>q2: what is dish 2?</information>" in episodes[2].transcript.text
    assert "q1" not in episodes[2].transcript.text


async def test_where_the_environment_says_nothing_the_policy_goes_on():
    sampler = ScriptedSampler(["hm", ANSWER])
    world = environment(corrective=False)
    (episode,) = await roll_out([(question(), 0.0)], world, sampler, ScriptedPool(), seed=0)
    assert [segment.author for segment in episode.segments] == ["policy", "policy"]
    assert (*episode.prompt_ids, *episode.response_ids) == tuple(sampler.contexts[0])


@skips_waits
async def test_a_round_takes_as_long_as_its_slowest_reply():
    begin = asyncio.get_running_loop().time()
    pool = ScriptedPool(pause=lambda ask: asyncio.sleep(10 * int(ask.query[-2])))
    sampler = ScriptedSampler(*([ask, ANSWER] for ask in ASKS))
    asked = [(question(key=f"q{n}"), 0.0) for n in range(3)]
    await roll_out(asked, environment(), sampler, pool, seed=0)
    assert asyncio.get_running_loop().time() - begin == pytest.approx(20)
    assert len(pool.asks) == 3


async def test_all_searches_of_a_round_are_sent_before_one_is_answered():
    everybody = asyncio.Barrier(3)

    async def all_are_there(ask: Ask) -> None:
        async with asyncio.timeout(10):
            await everybody.wait()

    sampler = ScriptedSampler(*([ask, ANSWER] for ask in ASKS))
    asked = [(question(key=f"q{n}"), 0.0) for n in range(3)]
    episodes = await roll_out(
        asked, environment(), sampler, ScriptedPool(pause=all_are_there), seed=0
    )
    assert [len(one.calls) for one in episodes] == [1, 1, 1]


async def test_questions_that_are_too_long_are_left_out(caplog):
    world = environment(limits=Limits(prompt_tokens=700))
    long = question("why? " * 500, "long")
    assert fitting([question(), long], world) == ([question()], 1)
    sampler = ScriptedSampler([ANSWER])
    with caplog.at_level(logging.WARNING):
        asked = [(long, 0.0), (question(), 0.0)]
        (episode,) = await roll_out(asked, world, sampler, ScriptedPool(), seed=0)
    assert episode.question == question()
    assert "left out of the batch: question long" in caplog.text
    assert await roll_out([(long, 0.0)], world, ScriptedSampler(), ScriptedPool(), seed=0) == []


async def test_limits_reach_the_sampler():
    world = environment(limits=Limits(policy_tokens=30, response_tokens=45))
    sampler = ScriptedSampler(["x" * 40, "never"])
    (episode,) = await roll_out([(question(), 0.0)], world, sampler, ScriptedPool(), seed=0)
    assert (episode.turns, len(episode.response_ids), episode.done) == (1, 30, True)
    assert PairCodec().decode(episode.response_ids) == "x" * 30
