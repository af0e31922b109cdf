"""The gateway bench: client and upstream against each other, and from samples to figures."""

from __future__ import annotations

import asyncio
import json
import os
import random
from dataclasses import replace
from itertools import islice

import openai
import pytest

from waypost.bench import _gateway_tables as shown
from waypost.bench import gateway
from waypost.bench._client import Job, Load, Pair, Sample, Slice, from_json, to_json
from waypost.bench._http1 import Endpoint
from waypost.bench._processes import free_ports
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
    found = shown.latency([sample.pairs], stream=stream)
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
    assert sample.target_cpu_s is None


async def test_the_targets_cpu_is_that_of_its_process(port):
    work = job(port, Slice("saturation", 2, False, 0.3))
    (sample,) = await Load(replace(work, process=os.getpid())).run()
    assert sample.target_cpu_s == pytest.approx(sample.client_busy * sample.seconds, abs=0.1)


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
    found = shown.summary([pairs, saturation])
    assert "added_ms" not in found["latency"][0]
    assert found["throughput"][0]["requests_per_s"]["most"] == 0


def test_jobs_and_samples_survive_json():
    part = Slice("pairs", 8, True, 1.5)
    there = Endpoint(7, "echo", (("x-provider", "openai"),))
    work = Job(there, there, (part,), seed=3, warm_up_s=1.0, process=12)
    assert from_json(to_json(work), Job) == work
    samples = [Sample(part, [Pair(4.0, 1.0, 2.0, 0.5)], errors=1, target_cpu_s=0.25)]
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
    found = shown.latency([pairs], stream=False)
    assert found["added_ms"]["p50"] == {"median": 2, "least": 2, "most": 2}
    assert "added_first_ms" not in found


def samples(added: float, rate: float, cpu_s: float | None = None) -> list[Sample]:
    found = []
    for stream in (False, True):
        found += [
            Sample(Slice("pairs", step, stream, 1.0), [pair(added * step)] * 3) for step in (1, 64)
        ]
        full = Slice("saturation", 64, stream, 1.0)
        found.append(Sample(full, answered=int(rate), seconds=1.0, target_cpu_s=cpu_s))
    return found


TARGETS = {
    "inline/direct": shown.summary(samples(1.5, 700, 0.7)),
    "deployments/direct": shown.summary(samples(12.0, 90, 0.9)),
    "forwarder": shown.summary(samples(0.5, 1000, 0.5)),
    "portkey": shown.summary(samples(3.0, 350, 1.4)),
    "litellm": shown.summary(samples(16.0, 50, 1.0)),
    "old/haproxy": shown.summary(samples(11.0, 200, 0.8)),
}
DECISION = {"count": 9, "ms": over_rounds([[0.4, 0.5], [0.5, 0.6]])}


def result(targets):
    figures = {
        "decision": DECISION,
        "direct": shown.summary(samples(0, 9000))["throughput"] if targets else [],
        "targets": targets,
        "over": shown.over_others(targets),
        "versions": {"LiteLLM": "1.2.3"},
    }
    return gateway.result(figures, gateway.Options(), {"portkey": "no node:\ninstall it"})


def test_ratios_are_over_each_other_target_of_the_same_run():
    over = shown.over_others(TARGETS)
    assert list(over) == ["forwarder", "portkey", "litellm", "old/haproxy"]
    assert all(list(one) == ["inline/direct", "deployments/direct"] for one in over.values())
    ours = over["old/haproxy"]["inline/direct"]
    assert ours["added_p50"] == ours["added_p50_stream"] == pytest.approx(1.5 / 11)
    assert ours["throughput"] == ours["throughput_stream"] == pytest.approx(700 / 200)
    assert ours["cpu"] == ours["cpu_stream"] == pytest.approx(1.0 / 4.0)


def test_aims_are_rows_that_say_what_was_reached():
    told = {aim.aim: (aim.value, aim.reached) for aim in shown.aims(DECISION, TARGETS)}
    assert told == {
        "decision: text to decision p50, ms: at most 1": (0.5, True),
        "inline/direct: throughput / the forwarder's: at least 0.4": (0.7, True),
        "inline/direct: added p50 / the forwarder's: at most 3": (3.0, True),
        "inline/direct: streams / the forwarder's: at least 0.4": (0.7, True),
        "inline/direct: throughput / Portkey's: at least 1": (2.0, True),
        "inline/direct: added p50 / Portkey's: at most 1": (0.5, True),
        "deployments/direct: throughput / Portkey's: at least 1": (pytest.approx(9 / 35), False),
        "inline/direct: throughput / LiteLLM's: at least 15": (14.0, False),
        "inline/direct: CPU a whole answer / old/haproxy's: at most 0.3": (0.25, True),
    }


def test_what_was_not_measured_is_missing_and_not_invented():
    targets = {
        "inline/direct": shown.summary(samples(4.0, 500)),
        "old/serve": shown.summary(samples(8.0, 100, 1.0)),
    }
    ratios = shown.over_others(targets)["old/serve"]["inline/direct"]
    assert (ratios["throughput"], ratios["cpu"]) == (5.0, None)
    (aim,) = shown.aims(None, targets)
    assert (aim.value, aim.reached) == (None, None)
    del targets["old/serve"]
    assert shown.over_others(targets) == {}
    assert shown.aims(None, targets) == []


def test_cpu_is_counted_for_each_request_that_was_answered():
    part = Slice("pairs", 1, False, 1.0)
    assert Sample(part, [pair(1.0)] * 4, errors=2, target_cpu_s=0.02).cpu_ms == 5.0
    assert Sample(part, errors=2, target_cpu_s=0.02).cpu_ms is None
    assert Sample(part, [pair(1.0)]).cpu_ms is None


def test_every_round_holds_each_slice_once_in_an_order_of_its_own():
    options = gateway.Options(rounds=2, concurrency=(1, 8), saturation=(32,))
    found = gateway.slices(options, random.Random(0))
    assert len(found) == 2 * 6
    assert set(found[:6]) == set(found[6:])
    assert found[:6] != found[6:]


def test_the_tables_hold_the_figures():
    found = result(TARGETS)
    whole, streams, forwarder, *others = found.tables
    assert whole.rows[0] == [
        "inline/direct",
        "1.50 [1.50, 1.50] / 1.50",
        "96.0 [96.0, 96.0] / 96.0",
        "700 [700, 700]",
        "1.00 [1.00, 1.00]",
    ]
    assert streams.rows[0][2] == "1.25 [1.25, 1.25] / 1.25"
    assert whole.rows[-1] == ["the upstream alone", "-", "-", "9,000 [9,000, 9,000]", "-"]
    assert all(len(row) == len(one.heads) for one in found.tables for row in one.rows)
    assert forwarder.title == "Over those of the forwarder"
    assert forwarder.rows[0][:4] == ["inline/direct", "3.00 x", "3.00 x", "0.70 x"]
    assert len(others) == 3
    assert "Text to decision: p50 0.500 [0.450, 0.550] ms" in found.facts
    assert "LiteLLM 1.2.3" in found.facts
    assert found.facts.endswith(" portkey was not measured: no node: install it.")


def test_a_result_without_targets_has_no_tables():
    found = result({})
    assert found.tables == []
    assert "Text to decision" in found.facts


def test_a_failed_round_stands_in_its_cell():
    broken = [Sample(Slice("saturation", 64, False, 1.0), answered=3, seconds=1.0, errors=2)]
    table = result({"inline/direct": shown.summary(broken)}).tables[0]
    assert table.rows[0] == ["inline/direct", "-", "-", "3.00 [3.00, 3.00] (2 errors)", "-"]
