"""Prices of a pool: those of the file, else of an artifact, else of the price library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from waypost.contracts.artifact import Manifest
from waypost.contracts.pricing import PriceList
from waypost.price_library import priced
from waypost.serve.config import PoolEntry, PoolLLM


class PricedLLM(PoolLLM):
    """An LLM of the pool whose prices are looked up.

    Attributes:
        price_source: Where the prices are from, if neither from the file nor from an artifact.
    """

    price_source: str | None = None


_FIELDS = set(PriceList.model_fields)


def missing_prices(
    entry: PoolEntry, manifests: Mapping[str, Manifest], where: str
) -> dict[str, Any]:
    """Return the fields of `PricedLLM` that an entry without prices lacks.

    Raises:
        ConfigError: the price library should know the price and does not.
    """
    if entry.prices is not None:
        return {}
    infos = [llm for found in manifests.values() for llm in found.llms]
    info = next((llm for llm in infos if llm.name == entry.name), PriceList())
    filled = info
    source = None
    if (info.prices is None or entry.priced_as is not None) and (
        found := priced(entry, f"{where}: {entry.name}")
    ) is not None:
        filled, source = found.prices, found.source
    more = filled.model_dump(include=_FIELDS, exclude_none=True)
    missing = {name: price for name, price in more.items() if getattr(entry, name) is None}
    return {**missing, "price_source": source}


def prices_of(models: Iterable[PricedLLM]) -> dict[str, PriceList]:
    """Return the prices of each LLM whose price of prompt and of generated tokens is known."""
    return {
        model.name: PriceList(**model.model_dump(include=_FIELDS))
        for model in models
        if model.prices is not None
    }


def library_prices(models: Iterable[PricedLLM]) -> list[str]:
    """Return a line for each LLM whose prices are those of the price library."""
    return [
        f"{model.name}: {model.input_price:g} / {model.output_price:g} USD per million tokens "
        f"({model.price_source})"
        for model in models
        if model.price_source is not None
    ]


def told_prices(model: PricedLLM) -> dict[str, Any]:
    """Return the prices and their source under ``pricing``; nothing where they are unknown."""
    if model.prices is None:
        return {}
    found = model.model_dump(include=_FIELDS, exclude_none=True)
    source = {} if model.price_source is None else {"source": model.price_source}
    return {"pricing": {**found, **source}}
