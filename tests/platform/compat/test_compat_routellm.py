"""RouteLLM's Controller: names, thresholds, completions, win rates and their calibration."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

import waypost
from support.fake_upstream import FakeUpstream, Reply
from waypost.compat.routellm import Controller, RoutingError, parse_model_name
from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import write_routing_data
from waypost.secrets import key_ring
from waypost.serve.local import Gateway
from waypost.testing.synthetic import ENCODER_ID, planted

HARD = "Prove that the square root of 2 is irrational, and generalise the proof to every prime."
KEY = "key-of-a-test-that-nobody-may-read"


@pytest.fixture(autouse=True)
def own_keys():
    key_ring.cache_clear()
    yield
    key_ring.cache_clear()


def controller(url="http://127.0.0.1:9/v1", routers=("random", "difficulty"), **more):
    pair = {"strong_model": "prover", "weak_model": "cook"}
    return Controller(routers=list(routers), **pair, api_base=url, **more)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routellm")
    write_routing_data(folder / "data", planted(60))
    waypost.train("knnrouter", folder / "data", encoder=ENCODER_ID, out=folder / "a", k=10)
    return folder / "a"


def test_random_draws_as_routellm_does():
    routed = controller()
    random.seed(3)
    expected = ["prover" if random.uniform(0, 1) >= 0.5 else "cook" for _ in range(20)]
    random.seed(3)
    assert [routed.route("x", "random", 0.5) for _ in range(20)] == expected


def test_a_threshold_sends_hard_prompts_to_the_strong_llm():
    routed = controller()
    easy, hard = routed.batch_calculate_win_rate(["hi", HARD], "difficulty")
    assert 0 <= easy < hard <= 1
    assert routed.route(HARD, "difficulty", (easy + hard) / 2) == "prover"
    assert routed.route("hi", "difficulty", (easy + hard) / 2) == "cook"
    assert routed.route("hi", "difficulty", 0) == "prover"


def test_a_trained_router_gives_win_rates_of_the_two(artifact):
    routed = controller(routers=["mf"], config={"mf": {"checkpoint_path": str(artifact)}})
    texts = list(planted(40, seed=5).queries)
    rates = routed.batch_calculate_win_rate(texts, "mf")
    router = waypost.load_router(artifact)
    quality = [router.route_single(text).quality for text in texts]
    assert np.allclose(rates, [(1 + q["prover"] - q["cook"]) / 2 for q in quality], atol=1e-6)
    threshold = routed.calibrate_threshold(texts, "mf", 0.5)
    share = np.mean([routed.route(text, "mf", threshold) == "prover" for text in texts])
    assert share == pytest.approx(0.5, abs=0.3)


async def test_completions_are_objects_and_dicts_and_are_counted():
    async with FakeUpstream() as upstream:
        upstream.default = Reply(text="Hello!")
        with controller(upstream.url, api_key=KEY) as client:
            answer = await asyncio.to_thread(
                client.chat.completions.create,
                model="router-random-0.0",
                messages=[{"role": "user", "content": "Hi"}],
                max_tokens=7,
            )
            other = await client.acompletion(
                router="random", threshold=1.0, messages=[{"role": "user", "content": "Hi"}]
            )
            streamed = await client.acompletion(
                model="router-random-0", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
    assert answer.choices[0].message.content == "Hello!"
    assert answer["choices"][0]["message"]["content"] == "Hello!"
    assert (answer.model, other.model) == ("prover", "cook")
    assert (answer.object, answer.choices[0].finish_reason) == ("chat.completion", "stop")
    assert answer.usage.total_tokens > 0
    chunks = list(streamed)
    assert chunks[0].choices[0].delta.content == "Hello!"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert client.model_counts == {"random": {"prover": 2, "cook": 1}}
    assert upstream.requests[0].body["max_tokens"] == 7
    assert upstream.requests[0].headers["Authorization"] == f"Bearer {KEY}"
    with pytest.raises(AttributeError):
        _ = answer.nothing


def test_the_key_of_a_provider_may_stand_in_its_own_variable(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Controller(["random"], "gpt-4.1", "openai/gpt-4.1-mini")
    assert key_ring().count("openai") == 1
    assert KEY not in repr(key_ring())


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("gpt-4", "must be of the format"),
        ("router-mf", "must be of the format"),
        ("other-mf-0.1", "must be of the format"),
        ("router-mf-x", "Threshold x must be a float"),
    ],
)
def test_names_of_another_form_are_refused(model, told):
    with pytest.raises(RoutingError, match=told):
        parse_model_name(model)


def test_routers_and_thresholds_are_checked():
    routed = controller()
    assert parse_model_name("router-mf-0.11593") == ("mf", 0.11593)
    with pytest.raises(RoutingError, match="Invalid router mf"):
        routed.route("x", "mf", 0.5)
    with pytest.raises(RoutingError, match=r"between 0\.0 and 1\.0"):
        routed.route("x", "random", 1.5)
    with pytest.raises(RoutingError, match="unspecified"):
        routed.completion(messages=[{"role": "user", "content": "x"}])
    with pytest.raises(RoutingError, match="expected 0 to 1"):
        routed.calibrate_threshold(["x"], "random", 50)


def test_a_router_without_an_artifact_says_how_to_train_one(artifact):
    with pytest.raises(ConfigError, match="waypost train --router mfrouter"):
        controller(routers=["mf"])
    other = {"artifact": str(artifact), "strong": "nobody"}
    with pytest.raises(ConfigError, match="knows cook, prover, tiny, not nobody"):
        controller(routers=["bert"], config={"bert": other})


async def test_the_key_of_one_endpoint_does_not_go_to_another():
    async with FakeUpstream() as one, FakeUpstream() as two:
        one.default = two.default = Reply(text="Hello!")
        asked = {"model": "router-random-0", "messages": [{"role": "user", "content": "Hi"}]}
        with (
            controller(one.url, api_key=KEY) as first,
            controller(two.url, api_key=f"{KEY}-2") as second,
        ):
            for _ in range(2):
                await first.acompletion(**asked)
                await second.acompletion(**asked)
    assert {each.headers["Authorization"] for each in one.requests} == {f"Bearer {KEY}"}
    assert {each.headers["Authorization"] for each in two.requests} == {f"Bearer {KEY}-2"}


def test_one_key_does_not_go_to_two_providers():
    with pytest.raises(ConfigError, match="anthropic and openai are two"):
        Controller(["random"], "openai/gpt-4.1", "anthropic/claude-sonnet-4-5", api_key=KEY)
    assert key_ring().count("anthropic") == 0


async def test_completions_that_begin_together_share_one_gateway(monkeypatch):
    opened = []

    class Counted(Gateway):
        def open(self):
            opened.append(self)
            return super().open()

    monkeypatch.setattr("waypost.compat.routellm.Gateway", Counted)
    async with FakeUpstream() as upstream:
        upstream.default = Reply(text="Hello!")
        parts = [{"type": "text", "text": "Hi"}]
        asked = {"model": "router-random-0", "messages": [{"role": "user", "content": parts}]}
        with controller(upstream.url) as client:
            await asyncio.gather(*(client.acompletion(**asked) for _ in range(8)))
    assert len(opened) == 1


def test_the_text_of_parts_is_routed(monkeypatch):
    routed, seen = controller(), []
    monkeypatch.setitem(routed.routers, "random", lambda texts: seen.extend(texts) or np.ones(1))
    content = [{"type": "text", "text": "Prove it"}, {"type": "image_url", "image_url": {}}]
    routed._routed("random", 0.5, {"messages": [{"role": "user", "content": content}]})
    assert seen == ["Prove it"]
