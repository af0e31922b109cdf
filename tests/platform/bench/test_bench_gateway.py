"""The gateway bench: client and upstream against each other, and from samples to figures."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import islice

import openai
import pytest

from waypost.bench import gateway
from waypost.bench._client import (
    Endpoint,
    Job,
    Load,
    Pair,
    Sample,
    Slice,
    from_json,
    to_json,
)
from waypost.bench._processes import free_ports, measure, upstream
from waypost.bench._upstream import PROMPT_TOKENS, TOKEN, chat, listen, prompts
from waypost.bench.harness import over_rounds

TOKENS = 5


@pytest.fixture
async def port():
    server = await listen([TOKEN] * TOKENS)
    async with server:
        yield server.sockets[0].getsockname()[1]


def job(port: int, *slices: Slice, warm_up_s: float = 0.0) -> Job:
    endpoint = Endpoint(port, "echo")
    return Job(endpoint, endpoint, slices, seed=3, warm_up_s=warm_up_s)


# -- the upstream ---------------------------------------------------------------------------------


async def test_the_upstream_answers_the_official_client(port):
    ask = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}

    def asked():
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x") as client:
            whole = client.chat.completions.create(**ask)
            options = {"include_usage": True}
            stream = client.chat.completions.create(**ask, stream=True, stream_options=options)
            with pytest.raises(openai.NotFoundError):
                client.models.list()
            return whole, list(stream)

    whole, chunks = await asyncio.to_thread(asked)
    assert whole.choices[0].message.content == TOKEN * TOKENS
    assert whole.usage.completion_tokens == TOKENS
    deltas = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert deltas == [TOKEN] * TOKENS + [None]
    assert chunks[-1].usage.total_tokens == PROMPT_TOKENS + TOKENS


# -- the client -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_pairs_against_the_upstream_itself_add_nothing(port, stream):
    (sample,) = await Load(job(port, Slice("pairs", 2, stream, 0.3), warm_up_s=0.05)).run()
    assert sample.errors == 0
    assert sample.pairs
    found = gateway.latency([sample.pairs], stream=stream)
    assert found["pairs"] == len(sample.pairs)
    assert abs(found["added_ms"]["p50"]["median"]) < 2 * found["direct_ms"]["p50"]["median"]
    if stream:
        assert all(0 < pair.through_first_ms <= pair.through_ms for pair in sample.pairs)


async def test_saturation_counts_answers(port):
    (sample,) = await Load(job(port, Slice("saturation", 4, False, 0.2))).run()
    assert (sample.pairs, sample.errors) == ([], 0)
    assert sample.seconds >= 0.2
    assert sample.answered >= 4
    assert sample.client_busy > 0


async def test_a_target_that_nobody_listens_on_gives_errors_and_no_figures(port):
    work = Job(
        Endpoint(free_ports(1)[0], "a"),
        Endpoint(port, "echo"),
        (Slice("pairs", 1, False, 0.05), Slice("saturation", 1, False, 0.05)),
        seed=0,
    )
    pairs, saturation = await Load(work).run()
    assert pairs.errors > 0
    assert pairs.pairs == []
    found = gateway.summary([pairs, saturation])
    assert "added_ms" not in found["latency"][0]
    assert found["throughput"][0]["requests_per_s"]["most"] == 0


def test_client_and_upstream_run_in_processes_of_their_own():
    with upstream("--tokens", str(TOKENS)) as port:
        (sample,) = measure(job(port, Slice("pairs", 1, True, 0.2)))
    assert sample.errors == 0
    assert sample.pairs


def test_jobs_and_samples_survive_json():
    work = job(7, Slice("pairs", 8, True, 1.5), warm_up_s=1.0)
    assert from_json(to_json(work), Job) == work
    samples = [Sample(work.slices[0], [Pair(4.0, 1.0, 2.0, 0.5)], errors=1, client_busy=0.25)]
    assert from_json(to_json(samples), list[Sample]) == samples


def test_prompts_are_all_different_repeat_with_the_seed_and_need_no_escaping():
    texts = list(islice(prompts(1), 3000))
    assert len(set(texts)) == 3000
    assert texts == list(islice(prompts(1), 3000))
    assert texts[0] != next(prompts(2))
    body = json.loads(chat("auto", texts[0], stream=True))
    assert body["messages"] == [{"role": "user", "content": texts[0]}]
    assert body["stream"] is True
    assert not any(TOKEN.strip() in text for text in texts)


# -- figures --------------------------------------------------------------------------------------


def pair(added: float, direct: float = 1.0) -> Pair:
    return Pair(direct + added, direct, direct + added / 2, direct / 2)


def test_added_latency_is_through_minus_direct_pair_by_pair():
    # the medians alone would say 10 - 6 = 4; pair by pair it is 2
    pairs = [Pair(3, 1, 1, 1), Pair(10, 8, 1, 1), Pair(16, 6, 1, 1)]
    found = gateway.latency([pairs], stream=False)
    assert found["added_ms"]["p50"] == {"median": 2, "least": 2, "most": 2}
    assert "added_first_ms" not in found


def samples(added: float, rate: float) -> list[Sample]:
    found = []
    for stream in (False, True):
        found += [
            Sample(Slice("pairs", step, stream, 1.0), [pair(added * step)] * 3) for step in (1, 8)
        ]
        found.append(Sample(Slice("saturation", 32, stream, 1.0), answered=int(rate), seconds=1.0))
    return found


TARGETS = {
    "inline/haproxy": gateway.summary(samples(2.0, 700)),
    "deployments/serve": gateway.summary(samples(12.0, 90)),
    "litellm": gateway.summary(samples(16.0, 60)),
}
DECISION = {"count": 9, "ms": over_rounds([[0.4, 0.5], [0.5, 0.6]])}


def result(targets):
    figures = {
        "decision": DECISION,
        "direct": gateway.summary(samples(0, 9000))["throughput"] if targets else [],
        "targets": targets,
        "ratios": gateway.ratios(targets),
        "ratios_forwarder": gateway.ratios(targets, "forwarder"),
        "litellm": "1.2.3",
    }
    return gateway.result(figures, gateway.Options(concurrency=(1, 8), saturation=(32,)), {})


def test_ratios_are_over_litellm_of_the_same_run():
    ratios = gateway.ratios(TARGETS)
    assert list(ratios) == ["inline/haproxy", "deployments/serve"]
    assert ratios["inline/haproxy"]["added_p50"] == pytest.approx(2 / 16)
    assert ratios["inline/haproxy"]["throughput"] == pytest.approx(700 / 60)
    assert ratios["deployments/serve"]["added_p50"] == pytest.approx(12 / 16)


def test_aims_say_what_was_reached():
    told = {tuple(aim.aim.split(": ")[:2]): aim.reached for aim in gateway.aims(DECISION, TARGETS)}
    assert told == {
        ("decision", "text to decision p50, ms"): True,
        ("inline/haproxy", "added p50, ms"): True,
        ("inline/haproxy", "throughput / LiteLLM's"): True,
        ("deployments/serve", "added p50 / LiteLLM's"): False,
        ("deployments/serve", "throughput / LiteLLM's"): False,
    }


def test_without_litellm_its_ratios_are_missing_and_not_invented():
    targets = {"inline/serve": gateway.summary(samples(4.0, 500))}
    assert gateway.ratios(targets)["inline/serve"]["throughput"] is None
    added, throughput = gateway.aims(None, targets)
    assert (added.value, added.reached) == (4.0, False)
    assert (throughput.value, throughput.reached) == (None, None)


def test_the_gateways_own_server_is_aimed_at_the_forwarders():
    targets = {
        "inline/direct": gateway.summary(samples(1.5, 500)),
        "forwarder": gateway.summary(samples(0.6, 1000)),
    }
    told = {aim.aim.split(": ")[1]: aim.value for aim in gateway.aims(None, targets)}
    assert told["added p50 / the forwarder's"] == pytest.approx(2.5)
    assert told["throughput / the forwarder's"] == told["streams / the forwarder's"] == 0.5
    assert list(gateway.ratios(targets, "forwarder")) == ["inline/direct"]


def test_every_round_holds_each_slice_once_in_an_order_of_its_own():
    options = gateway.Options(rounds=2, concurrency=(1, 8), saturation=(32,))
    found = gateway.slices(options, random.Random(0))
    assert len(found) == 2 * 6
    assert set(found[:6]) == set(found[6:])
    assert found[:6] != found[6:]


def test_the_tables_hold_the_figures():
    found = result(TARGETS)
    whole, first, _, throughput, over = found.tables
    assert whole.rows[0][:2] == ["inline/haproxy", "2.00 [2.00, 2.00] / 2.00 / 2.00"]
    assert first.rows[0][1] == "1.50 [1.50, 1.50] / 1.50 / 1.50"
    assert throughput.rows[-1][0] == "the upstream alone"
    assert over.rows[0][1] == "0.12 x"
    assert over.rows[0][3] == "11.67 x"
    assert "Text to decision: p50 0.500 [0.450, 0.550] ms" in found.facts


def test_a_result_without_targets_has_no_tables():
    found = result({})
    assert found.tables == []
    assert "Text to decision" in found.facts
