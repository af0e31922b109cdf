"""The LLMs of a new pool: how each is called, its price and size, and whether it answers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from waypost.config import parse
from waypost.contracts.errors import ConfigError, Fault, WaypostError
from waypost.contracts.generation import GenerateRequest
from waypost.contracts.records import LLM
from waypost.engines import engine_config, make_engine
from waypost.engines.base import collect
from waypost.pipelines.data.config import LLMConfig
from waypost.price_library import context_tokens, priced
from waypost.start.providers import PROVIDERS, Provider, provider_named, service_of

TRY_S = 30.0
"""Longest wait for the answer of one LLM that is tried."""

QUESTION = "Reply with the single word: ready"
TRY_TOKENS = 64

NO_KEY = "-"
"""Name of the service of an endpoint that needs no key, on the command line."""

_SIZE = re.compile(r"(?<![a-z0-9.])((?:\d+x)?\d+(?:\.\d+)?[bm])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Member:
    """An LLM of a new pool.

    Attributes:
        llm: How it is called, with its facts; prices only where they were given.
        source: Whose prices it has, where the price library knows them.
        prices: (prompt, generated) USD per million tokens; None where unknown.
        unpriced: Why the library, which should know its price, has none.
    """

    llm: LLMConfig
    source: str | None = None
    prices: tuple[float, float] | None = None
    unpriced: str | None = None


def from_endpoint(base_url: str, service: str | None, models: Sequence[str]) -> list[LLMConfig]:
    """Return the LLMs of one endpoint.

    Args:
        base_url: Its base URL, with the version.
        service: Whose keys are sent; None takes `service_of`, `NO_KEY` sends none.
        models: Names of the models at the endpoint.

    Raises:
        ConfigError: The URL is not one, or there is no model.
    """
    if not models:
        raise ConfigError([Fault(base_url, "names no model; expected MODEL[,MODEL...]")])
    service = service_of(base_url) if service is None else service
    host = urlsplit(base_url).hostname
    known = next((p for p in PROVIDERS.values() if urlsplit(p.base_url).hostname == host), None)
    like = known or Provider(base_url, None)
    given = None if service == NO_KEY else service
    return [_llm(like, base_url, given, model) for model in models]


def from_provider(text: str) -> LLMConfig:
    """Return the LLM of a text such as ``openai/gpt-4.1-mini``.

    Raises:
        ConfigError: It has another form, or names an unknown provider.
    """
    name, slash, model = text.partition("/")
    if not slash or not model:
        problem = "expected PROVIDER/MODEL, such as openai/gpt-4.1-mini"
        raise ConfigError([Fault(f"--llm {text}", problem)])
    provider = provider_named(name, f"--llm {text}")
    return _llm(provider, provider.base_url, None if provider.key is None else name, model)


def _llm(provider: Provider, base_url: str, service: str | None, model: str) -> LLMConfig:
    config: dict[str, Any] = {"base_url": base_url, "model": model}
    if service is not None:
        config["service"] = service
    config |= provider.config
    where = f"{model} at {base_url}"
    parse(engine_config(provider.engine), config, where)
    return LLMConfig(engine=provider.engine, config=config)


def named(llms: Sequence[LLMConfig]) -> dict[str, LLMConfig]:
    """Return LLMs by a name of their own: the model's, with the service where two are alike."""
    found: dict[str, LLMConfig] = {}
    for llm in llms:
        model = str(llm.config["model"])
        service = llm.config.get("service") or urlsplit(llm.config["base_url"]).netloc
        tries = [model, f"{service}-{model}", *(f"{service}-{model}-{n}" for n in range(2, 99))]
        found[next(name for name in tries if name not in found)] = llm
    return found


def look_up(
    llms: Mapping[str, LLMConfig], prices: Mapping[str, tuple[float, float]]
) -> dict[str, Member]:
    """Add prices, sizes and context lengths, as far as they are known.

    Args:
        llms: The pool.
        prices: Given prices by name, (prompt, generated) USD per million tokens.

    Raises:
        ConfigError: A price is given for an LLM that is not of the pool.
    """
    if unknown := sorted(set(prices) - set(llms)):
        there = ", ".join(llms)
        raise ConfigError([Fault(f"--price {one}", f"the pool has {there}") for one in unknown])
    return {name: _looked_up(name, llm, prices.get(name)) for name, llm in llms.items()}


def _looked_up(name: str, llm: LLMConfig, given: tuple[float, float] | None) -> Member:
    facts: dict[str, Any] = {
        "size": llm.size or size_in(str(llm.config["model"])),
        "context_length": llm.context_length or context_tokens(llm),
    }
    if given is not None:
        facts |= {"input_price": given[0], "output_price": given[1]}
    llm = llm.model_copy(update=facts)
    if llm.prices is not None:
        return Member(llm, prices=llm.prices)
    try:
        found = priced(llm, name)
    except ConfigError as error:
        return Member(llm, unpriced=error.faults[0].problem)
    return Member(llm) if found is None else Member(llm, found.source, found.prices.prices)


def check_priced(members: Mapping[str, Member]) -> None:
    """Check that no price is missing that the library should know: such a pool does not serve.

    Raises:
        ConfigError: With a fault for each LLM without a price.
    """
    wrong = {name: one.unpriced for name, one in members.items() if one.unpriced is not None}
    if wrong:
        raise ConfigError([Fault(f"--price {name}=IN,OUT", why) for name, why in wrong.items()])


def size_in(model: str) -> str | None:
    """Return the number of parameters that a model's name tells, such as ``70B``."""
    found = _SIZE.search(model)
    return None if found is None else found[1].upper().replace("X", "x")


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one call of an LLM.

    Attributes:
        problem: Why it did not answer; None where it did.
        seconds: Seconds until then.
    """

    problem: str | None
    seconds: float


def try_all(llms: Mapping[str, LLM]) -> dict[str, Tried]:
    """Ask each LLM one short question, all at the same time.

    Only engines that call an endpoint are meant: a local one would load its weights.
    """

    async def every() -> list[Tried]:
        return await asyncio.gather(*(_try(llm) for llm in llms.values()))

    return dict(zip(llms, asyncio.run(every()), strict=True))


async def _try(llm: LLM) -> Tried:
    begin = time.perf_counter()
    engine = make_engine(llm.engine, {**llm.config, "max_retries": 0})
    request = GenerateRequest(
        "waypost-init",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=TRY_TOKENS,
    )
    problem = None
    try:
        async with asyncio.timeout(TRY_S):
            await engine.start()
            await collect(engine, request)
    except ConfigError as error:
        problem = error.faults[0].problem
    except WaypostError as error:
        problem = str(error)
    except TimeoutError:
        problem = f"no answer within {TRY_S:g} s"
    finally:
        await engine.close()
    return Tried(problem, time.perf_counter() - begin)
