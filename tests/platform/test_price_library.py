"""Prices that a kept library tells, and those that it does not."""

import socket
from datetime import UTC, datetime

import pytest

from waypost.contracts.errors import ConfigError
from waypost.contracts.records import LLM
from waypost.price_library import data_date, priced

OPENAI = "https://api.openai.com/v1"
DAY = datetime(2026, 11, 1, tzinfo=UTC)


def llm(model, base_url=OPENAI, engine="openai", **more):
    config = {"model": model} | ({"base_url": base_url} if base_url else {})
    return LLM(engine=engine, config=config, **more)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the library asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_prices_of_a_known_model():
    found = priced(llm("gpt-4o"), "pool: a", DAY)
    assert found.prices.prices == (2.5, 10)
    assert found.prices.cached_input_price == 1.25
    assert found.source.startswith("openai/gpt-4o, genai-prices 0.2")


def test_a_dated_name_is_that_model():
    assert priced(llm("gpt-4o-mini-2024-07-18"), "pool: a", DAY).prices.prices == (0.15, 0.6)


def test_tiers_are_mapped():
    url = "https://generativelanguage.googleapis.com/v1beta/openai"
    found = priced(llm("gemini-2.5-pro", url), "pool: a", DAY).prices
    (tier,) = found.tiers
    assert (found.input_price, found.output_price, found.cached_input_price) == (1.25, 10, 0.125)
    told = tier.above_tokens, tier.input_price, tier.output_price, tier.cached_input_price
    assert told == (200_000, 2.5, 15, 0.25)


def test_the_anthropic_engine_has_its_own_address():
    found = priced(llm("claude-sonnet-4-5", None, "anthropic"), "pool: a", DAY).prices
    assert found.prices == (3, 15)


def test_priced_as_names_provider_and_model():
    local = llm("whatever", "http://127.0.0.1:1/v1", priced_as="openai/gpt-4o")
    assert priced(local, "pool: a", DAY).prices.prices == (2.5, 10)
    assert priced(local.model_copy(update={"priced_as": "openrouter/openai/gpt-4o"}), "x", DAY)


@pytest.mark.parametrize(
    "unpriced",
    [llm("gpt-4o", "http://127.0.0.1:1/v1"), LLM(engine="echo"), LLM(engine="openai")],
    ids=["own server", "local engine", "wrong settings, told elsewhere"],
)
def test_no_price_where_no_provider_is_called(unpriced):
    assert priced(unpriced, "pool: a", DAY) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (llm("gpt-4o-nonsense"), "has no model 'gpt-4o-nonsense' of openai"),
        (llm("x", priced_as="opnai/gpt-4o"), "knows no provider 'opnai' (did you mean 'openai'?)"),
        (llm("deepseek-chat", "https://api.deepseek.com/v1"), "changes with the hour"),
        (llm("text-to-nothing", priced_as="openai/whisper-1"), "not one of prompt and generated"),
    ],
)
def test_nothing_is_guessed(wrong, told):
    with pytest.raises(ConfigError) as caught:
        priced(wrong, "pool: a", DAY)
    assert told in str(caught.value)
    assert "write" in str(caught.value)
    assert "input_price and output_price" in str(caught.value)


def test_a_price_of_a_day():
    told = {
        priced(llm("o3"), "x", day).prices.prices for day in (datetime(2025, 5, 1, tzinfo=UTC), DAY)
    }
    assert told == {(10, 40), (2, 8)}


def test_the_day_of_the_data_is_shown():
    assert "newest price 20" in data_date()
