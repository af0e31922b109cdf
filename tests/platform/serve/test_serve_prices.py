"""What a request costs: tiers, reasoning, prices of the library, and usage that nobody told."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from support.fake_upstream import FakeUpstream, Reply
from support.gateway import arguments, chat, echo_pool, running
from support.openai_events import stream_of
from support.served import application, free_port
from waypost.cli import command
from waypost.config import parse
from waypost.contracts.errors import ConfigError
from waypost.serve.changes import change_plan
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.plan import make_plan

CHAT = "/v1/chat/completions"
TIERS = [{"above_tokens": 4000, "input_price": 4.0, "output_price": 12.0}]
REASONING = {"prompt_tokens": 1000, "completion_tokens": 700, "total_tokens": 1700} | {
    "completion_tokens_details": {"reasoning_tokens": 500}
}
LONG = {"prompt_tokens": 5000, "completion_tokens": 100, "total_tokens": 5100}


@pytest.fixture
async def upstream():
    async with FakeUpstream() as server:
        yield server


def remote(url="http://127.0.0.1:9/v1", model="real", **fields):
    config = {"base_url": url, "model": model, "max_retries": 0}
    return {"name": "cook", "engine": "openai", "placement": "inline", "config": config} | fields


def plan_of(artifact, **fields):
    pool = [remote(**fields), *echo_pool()[1:]]
    return make_plan(ServeArgs.model_validate(arguments(artifact, pool=pool)))


async def told(artifact, upstream, deltas, usage=None, **fields):
    entry = remote(upstream.url, **fields)
    upstream.script(Reply(raw=stream_of(*deltas, usage=usage)))
    async with running(artifact, pool=[entry, *echo_pool()[1:]]) as up:
        whole = await up.client.post(CHAT, chat("x" * 20, model="cook"))
    return whole.json()["usage"]


@pytest.mark.parametrize(
    ("usage", "more", "dollars"),
    [
        (REASONING, {}, 0.0062),
        (REASONING, {"reasoning_price": 3.0}, (1000 * 2 + 200 * 6 + 500 * 3) / 1e6),
        (LONG, {"tiers": TIERS}, (5000 * 4 + 100 * 12) / 1e6),
        (REASONING, {"tiers": TIERS}, 0.0062),
    ],
)
async def test_the_actual_cost(artifact, upstream, usage, more, dollars):
    prices = {"input_price": 2.0, "output_price": 6.0} | more
    usage = await told(artifact, upstream, [{"content": "a"}], usage, **prices)
    assert usage["waypost"]["cost_usd"] == pytest.approx(dollars)
    assert "estimated" not in usage["waypost"]


async def test_the_predicted_cost_of_a_long_prompt(artifact):
    pool = [remote(input_price=2.0, output_price=6.0, tiers=TIERS), *echo_pool()[1:]]
    async with running(artifact, pool=pool) as up:
        costs = []
        for text in ("word " * 100, "word " * 10_000):
            reply = await up.client.post("/v1/route", {"query": text})
            costs.append(reply.json()["cost_usd"])
    short, long = costs
    # all else stays as it is: fifty times the prompt at twice the price is above fifty times it
    assert long["cook"] / short["cook"] > 100 * 0.9
    assert long["prover"] / short["prover"] < 60


async def test_what_nobody_counted_is_estimated_from_all_that_was_generated(artifact, upstream):
    call = {"index": 0, "id": "c", "type": "function"}
    call |= {"function": {"name": "abcd", "arguments": json.dumps({"a": "b"})}}  # 4 + 10
    deltas = [
        {"reasoning_content": "r" * 40},
        {"content": "t" * 20},
        {"refusal": "n" * 12},
        {"tool_calls": [call]},
    ]
    usage = await told(artifact, upstream, deltas, input_price=2.0, output_price=6.0)
    counted = 40 + 20 + 12 + 14
    assert usage["prompt_tokens"] == 5
    assert usage["completion_tokens"] == pytest.approx(counted / 4, abs=1)
    assert usage["waypost"]["estimated"] is True
    spent = (5 * 2 + usage["completion_tokens"] * 6) / 1e6
    assert usage["waypost"]["cost_usd"] == pytest.approx(spent)


def test_the_librarys_prices_where_the_file_names_a_model(artifact):
    plan = plan_of(artifact, priced_as="openai/gpt-4o")
    assert plan.router.prices["cook"].prices == (2.5, 10)
    assert plan.router.prices["cook"].cached_input_price == 1.25
    assert "genai-prices" in plan.models[0].price_source
    assert plan.models[1].price_source is None  # of the artifact


def test_prices_of_the_file_win(artifact):
    fields = {"priced_as": "openai/gpt-4o", "input_price": 1.0, "output_price": 1.0}
    assert plan_of(artifact, **fields).router.prices["cook"].prices == (1, 1)
    half = plan_of(artifact, priced_as="openai/gpt-4o", cached_input_price=0.0)
    assert half.router.prices["cook"].cached_input_price == 0


def test_every_unknown_name_is_a_fault_that_says_what_to_write(artifact):
    pool = [remote(priced_as="openai/gpt-nonsense"), remote(priced_as="nobody/x", name="tiny")]
    with pytest.raises(ConfigError) as caught:
        make_plan(ServeArgs.model_validate(arguments(artifact, pool=pool)))
    found = str(caught.value)
    assert "args: pool: cook.priced_as: genai-prices" in found
    assert "no model 'gpt-nonsense' of openai" in found
    assert "args: pool: tiny.priced_as: genai-prices knows no provider 'nobody'" in found
    assert found.count("write input_price and output_price") == 2


def test_changed_prices_keep_what_they_do_not_give(artifact):
    plan = plan_of(artifact, input_price=2.0, output_price=6.0, tiers=TIERS, reasoning_price=3.0)
    given = {"prices": {"cook": {"input_price": 1, "output_price": 3}}}
    changed = change_plan(plan, parse(UserConfig, given, "u")).router.prices["cook"]
    assert (changed.prices, changed.reasoning_price) == ((1, 3), 3.0)
    assert changed.tiers[0].input_price == 4
    given["prices"]["cook"]["tiers"] = [TIERS[0] | {"input_price": 9.0}]
    changed = change_plan(plan, parse(UserConfig, given, "u")).router.prices["cook"]
    assert changed.cost_usd(4001, 0) == pytest.approx(4001 * 9 / 1e6)


async def test_the_list_of_models_tells_prices(artifact):
    pool = [remote(priced_as="google/gemini-2.5-pro"), *echo_pool()[1:]]
    async with running(artifact, pool=pool) as up:
        listed = (await up.client.get("/v1/models")).json()["data"]
    pricing = {model["id"]: model.get("pricing") for model in listed}
    assert pricing["auto"] is None
    assert pricing["prover"] == {"input_price": 1.0, "output_price": 4.0}
    assert pricing["cook"]["tiers"][0]["above_tokens"] == 200_000
    assert "newest price" in pricing["cook"]["source"]


def test_check_tells_the_librarys_prices_and_their_day(artifact, tmp_path):
    pool = [remote(priced_as="openai/gpt-4o"), *echo_pool()[1:]]
    app = {**application("app", artifact, []), "args": arguments(artifact, pool=pool)}
    data = {"http_options": {"host": "127.0.0.1", "port": free_port()}, "applications": [app]}
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(data))
    done = CliRunner().invoke(command, ["serve", "--check", str(path)])
    assert done.exit_code == 0
    line = "but cook: 2.5 / 10 USD per million tokens (openai/gpt-4o, genai-prices "
    assert line in done.stderr
    assert "newest price 20" in done.stderr
