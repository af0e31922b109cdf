"""Prices of known LLMs from a kept library (`genai-prices`), as it is installed: no network.

Nothing is guessed: a price that the library does not tell, or tells in a way that a price list
cannot say (by the hour of the day, by the request), is a fault that says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import ValidationError

from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, RegistryError
from waypost.contracts.pricing import PriceList, PriceTier
from waypost.contracts.records import LLM
from waypost.contracts.wording import did_you_mean
from waypost.engines import engine_class

PACKAGE = "genai-prices"
WRITE = "write input_price and output_price"

_FIELDS = {
    "input_price": "input_mtok",
    "output_price": "output_mtok",
    "cached_input_price": "cache_read_mtok",
    "reasoning_price": "output_reasoning_mtok",
}


@dataclass(frozen=True, slots=True)
class Priced:
    """Prices of one LLM.

    Attributes:
        prices: The prices.
        source: Where they are from: model, library, its version and the day of its newest price.
    """

    prices: PriceList
    source: str


def priced(llm: LLM, where: str, day: datetime | None = None) -> Priced | None:
    """Return the library's prices of an LLM that gives none.

    Args:
        llm: ``priced_as`` names provider and model; else the ``base_url`` and ``model`` of its
            engine's settings do.
        where: Where the LLM stands, for faults.
        day: The time for which prices are wanted; None is now.

    Returns None where the engine calls no provider of the library (a local engine, a server of
    one's own).

    Raises:
        ConfigError: the library has no price for that name, or several.
        MissingExtraError: the library is not installed.
    """
    named = llm.priced_as
    found: tuple[Sequence[Any], str] | None
    if named is not None:
        at = f"{where}.priced_as"
        provider, _, model = named.partition("/")
        found = [one for one in _providers(at) if one.id == provider], model
        if not found[0]:
            known = [one.id for one in _providers(at)]
            problem = f"{PACKAGE} knows no provider {provider!r}{did_you_mean(provider, known)}"
            raise ConfigError([Fault(at, f"{problem}; write provider/model, or {WRITE}")])
    elif (called := _called(llm)) is None:
        return None
    else:
        at = where
        url, model = called
        found = [one for one in _providers(at) if re.match(one.api_pattern, url)], model
        if not found[0]:
            return None
    return _priced(*found, at, day or datetime.now(tz=UTC))


def context_tokens(llm: LLM) -> int | None:
    """Return the most tokens of prompt and answer that the library tells of an LLM.

    Returns None where the engine calls no provider of the library, the library does not know the
    model or its context, or is not installed.
    """
    called = _called(llm)
    if called is None:
        return None
    try:
        every = _providers("context lengths")
    except MissingExtraError:
        return None
    for provider in every:
        if re.match(provider.api_pattern, called[0]):
            info = provider.find_model(called[1], all_providers=every)
            if info is not None and info.context_window:
                return int(info.context_window)
    return None


def _called(llm: LLM) -> tuple[str, str] | None:
    """Return URL and model of the endpoint that an LLM's engine calls."""
    try:
        engine = engine_class(llm.engine)
        config = engine.config_class.model_validate(llm.config)
    except (RegistryError, MissingExtraError, ValidationError):
        return None  # a fault of its own, which is told where engines are checked
    if not engine.sends_keys:
        return None
    url, model = getattr(config, "base_url", None), getattr(config, "model", None)
    return (url, model) if isinstance(url, str) and isinstance(model, str) else None


def _priced(providers: Sequence[Any], model: str, where: str, day: datetime) -> Priced:
    every = _providers(where)
    for provider in providers:
        info = provider.find_model(model, all_providers=every)
        if info is None:
            continue
        prices = _read(info, day, where)
        matching = [one for one in provider.models if one.is_match(model)]
        exact = info.id.lower() == model.lower()
        if not exact and any(_read(one, day, where) != prices for one in matching):
            fitting = ", ".join(one.id for one in matching)
            problem = f"{PACKAGE} has several prices for {model!r}: {fitting}"
            raise ConfigError([Fault(where, f"{problem}; set priced_as, or {WRITE}")])
        return Priced(prices, f"{provider.id}/{info.id}, {PACKAGE} {data_date()}")
    known = [one.id for provider in providers for one in provider.models]
    problem = f"{PACKAGE} {data_date()} has no model {model!r} of {providers[0].id}"
    near = did_you_mean(model, known)
    raise ConfigError([Fault(where, f"{problem}{near}; set priced_as: provider/model, or {WRITE}")])


def _read(info: Any, day: datetime, where: str) -> PriceList:
    """Translate a model's prices on a day.

    Raises:
        ConfigError: they depend on more than the tokens of a call.
    """
    if any(type(one.constraint).__name__ == "TimeOfDateConstraint" for one in _conditions(info)):
        raise _unsayable(info, "changes with the hour", where)
    told = info.get_prices(day)
    given = {ours: getattr(told, theirs, None) for ours, theirs in _FIELDS.items()}
    if given["input_price"] is None or given["output_price"] is None:
        raise _unsayable(info, "is not one of prompt and generated tokens", where)
    if getattr(told, "requests_kcount", None):
        raise _unsayable(info, "has a part for each request", where)
    steps = sorted({t.start for price in given.values() for t in getattr(price, "tiers", ())})
    base = {name: _at(price, 0) for name, price in given.items()}
    tiers = [
        PriceTier(above_tokens=step, **{n: _at(price, step) for n, price in given.items()})
        for step in steps
    ]
    return PriceList(**base, tiers=tuple(tiers) or None)


def _conditions(info: Any) -> Sequence[Any]:
    return info.prices if isinstance(info.prices, list) else ()


def _at(price: Any, above: int) -> float | None:
    if price is None or not hasattr(price, "tiers"):
        return None if price is None else float(price)
    held = price.base
    for tier in price.tiers:
        held = tier.price if tier.start <= above else held
    return float(held)


def _unsayable(info: Any, what: str, where: str) -> ConfigError:
    problem = f"the price of {info.id} in {PACKAGE} {what}; {WRITE}"
    return ConfigError([Fault(where, problem)])


def _providers(where: str) -> list[Any]:
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ModuleNotFoundError:
        raise MissingExtraError(f"{PACKAGE} (for prices of {where})", "gateway") from None
    return list(get_snapshot().providers)


@cache
def data_date() -> str:
    """Return the library's version and the day since which its newest price holds.

    The library tells no date of its data; a price that begins later than today does not count.
    """
    today = datetime.now(tz=UTC).date()
    days = [
        condition.constraint.start_date
        for provider in _providers("prices")
        for info in provider.models
        for condition in _conditions(info)
        if hasattr(condition.constraint, "start_date")
    ]
    newest = max((day for day in days if day <= today), default=None)
    return version(PACKAGE) if newest is None else f"{version(PACKAGE)} (newest price {newest})"
