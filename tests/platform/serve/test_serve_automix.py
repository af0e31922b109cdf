"""AutoMix behind the gateway: the answer that ends an episode is streamed as it is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.gateway import chat, echo_pool, running
from support.skipping_loop import skips_waits
from waypost.contracts.verdicts import MAX_VERDICTS
from waypost.loading import save_router
from waypost.registry import make_trainable
from waypost.testing.synthetic import planted

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def automix(tmp_path_factory) -> Path:
    """AutoMix on data in which tiny is right on every other question, and knows when."""
    data = planted().select_llms(["tiny", "prover"])
    right = np.arange(len(data)) % 2 == 0
    verdicts = np.full((*data.quality.shape, MAX_VERDICTS), np.nan, np.float32)
    verdicts[:, 0, :4] = right[:, None]
    tokens = np.full(data.quality.shape, 4.0)
    data = replace(
        data,
        quality=np.stack([right, np.ones(len(data))], axis=1).astype(np.float64),
        verdicts=verdicts,
        verify_input_tokens=40 * tokens,
        verify_output_tokens=tokens,
    )
    folder = tmp_path_factory.mktemp("automix") / "artifact"
    save_router(make_trainable("automix").fit(data), folder, data)
    return folder


@pytest.mark.parametrize(
    ("says", "model", "least", "steps"), [("Yes.", "tiny", 4, 2), ("No.", "prover", 5, 3)]
)
async def test_automix_accepts_what_the_cheap_model_supports(automix, says, model, least, steps):
    async with running(automix, pool=echo_pool(tiny={"text": says})[1:]) as found:
        reply = await found.client.post(CHAT, chat(waypost={"lambda": 0.5}))
        metrics = (await found.client.get("/metrics")).body.decode()
    told = reply.json()["usage"]["waypost"]
    assert (reply.headers["x-waypost-model"], told["steps"]) == (model, steps)
    assert least <= told["calls"]  # a vote that is settled may end some
    assert 'waypost_episode_calls_total{model="tiny",purpose="verify"}' in metrics


@skips_waits
async def test_an_answer_that_ends_the_episode_is_streamed_as_it_is_made(automix):
    slow = {"tokens": 6, "tokens_per_s": 20}
    async with running(automix, pool=echo_pool(tiny={"text": "No."}, prover=slow)[1:]) as found:
        body = chat(stream=True, stream_options={"include_usage": True}, waypost={"lambda": 0.5})
        opened = found.client.open("POST", CHAT, body)
        await opened.part(1)
        assert found.echo("prover").calls.output_tokens < 3
        assert opened.reply.headers["x-waypost-model"] == "prover"
        reply = await opened.end()
        metrics = (await found.client.get("/metrics")).body.decode()
    *events, usage, done = reply.events()
    assert done == "[DONE]"
    assert len(events) == 8  # the role, six tokens, the end
    told = usage["usage"]["waypost"]
    assert (told["model"], told["steps"], told["ended_by"]) == ("prover", 3, "answer")
    assert 'waypost_tokens_total{direction="output",model="prover"} 6.0' in metrics


async def test_one_that_breaks_off_ends_with_an_error_event(automix):
    cut = {"fail_with": "mid_stream"}
    async with running(automix, pool=echo_pool(tiny={"text": "No."}, prover=cut)[1:]) as found:
        reply = await found.client.post(CHAT, chat(stream=True, waypost={"lambda": 0.5}))
        metrics = (await found.client.get("/metrics")).body.decode()
    assert reply.status == 200
    assert reply.events()[-1]["error"]["code"] == "model_failed"
    assert 'waypost_broken_streams_total{model="prover"} 1.0' in metrics


@skips_waits
async def test_one_that_takes_all_the_time_does_so_too(automix):
    limits = {"total_timeout_s": 1.0, "first_token_timeout_s": 0.5}
    slow = {"tokens": 100, "tokens_per_s": 20}
    async with running(automix, pool=echo_pool(prover=slow)[1:], limits=limits) as found:
        reply = await found.client.post(CHAT, chat(stream=True, waypost={"lambda": 0.5}))
    assert reply.events()[-1]["error"]["code"] == "model_timeout"


@skips_waits
async def test_what_has_begun_is_not_begun_again_by_another_router(automix, monkeypatch):
    limits = {"total_timeout_s": 1.0, "first_token_timeout_s": 0.5}
    slow = {"tokens": 100, "tokens_per_s": 20}
    async with running(automix, pool=echo_pool(prover=slow)[1:], limits=limits) as found:
        router = found.gateway.dispatcher._router
        step = router.step

        async def replaced_at_the_cap(*args, capped=False):
            return await step(*args[:2], "another" if capped else args[2], capped=capped)

        monkeypatch.setattr(router, "step", replaced_at_the_cap)
        reply = await found.client.post(CHAT, chat(stream=True, waypost={"lambda": 0.5}))
    assert reply.events()[-1]["error"]["code"] == "model_timeout"


async def test_one_that_does_not_begin_leaves_it_to_the_router(automix):
    async with running(automix, pool=echo_pool(prover={"fail_with": "500"})[1:]) as found:
        reply = await found.client.post(CHAT, chat(stream=True, waypost={"lambda": 0.5}))
    assert (reply.status, reply.headers["x-waypost-model"]) == (200, "tiny")
