"""Predict the dollars of a call, from tokens and prices or from recorded dollars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.pricing import PriceList, cached_table, dollars, tier_table
from waypost.contracts.routing_data import RoutingData

DEFAULT_OUTPUT_TOKENS = 200.0
"""Assumed generated tokens of an answer where the data records none for any LLM. All LLMs then
have the same length, so that list prices order them."""

DEFAULT_TOKENS_PER_CHARACTER = 0.3
"""Prompt tokens for each character of the query where the data records none."""

DEFAULT_CHARACTERS = 400.0
"""Length of the question whose dollars are the reference where the data has no question."""

Vector = NDArray[np.float64]

PricesLike: TypeAlias = "PriceList | tuple[float, float]"
"""Prices of one LLM: all, or of prompt and generated tokens, USD per million."""


@dataclass(frozen=True, eq=False)
class CostModel:
    """Predicts dollars of one call.

    Where an LLM's prices are known, the cost is prompt tokens times input price plus expected
    generated tokens times output price, so that a changed price takes effect at once. Otherwise
    it is the dollars recorded in training, or NaN where neither is known.

    Attributes (each of shape (n_llms,) unless said otherwise):
        prices: (n_llms, 2) USD per million prompt and generated tokens; NaN where unknown.
        tokens_per_character: Prompt tokens per character of the query, templates included.
        output_tokens: Mean generated tokens.
        recorded_usd: Mean recorded dollars; NaN where none was.
        cost_ref: Mean dollars of the most expensive LLM in training (a float), NaN if unknown.
        tiers: (n_llms, n_tiers, 3) other prices of long prompts: prompt tokens above which they
            hold, USD per million prompt and generated tokens; NaN where an LLM has fewer.
        cached: (n_llms, n_steps, 2) prices of cached prompt tokens; see `cached_table`.
    """

    prices: Vector
    tokens_per_character: Vector
    output_tokens: Vector
    recorded_usd: Vector
    cost_ref: float
    tiers: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 3)))
    cached: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 2)))

    @classmethod
    def fit(cls, data: RoutingData) -> CostModel:
        """Measure lengths and dollars on training data."""
        characters = np.array([max(len(text), 1) for text in data.queries], dtype=np.float64)
        asked = characters if len(characters) else np.array([DEFAULT_CHARACTERS])
        model = cls(
            prices=data.prices,
            tokens_per_character=_tokens_per_character(data, characters),
            output_tokens=_filled(column_mean(data.output_tokens), DEFAULT_OUTPUT_TOKENS),
            recorded_usd=column_mean(data.cost_usd),
            cost_ref=np.nan,
            tiers=tier_table(data.llms),
            cached=cached_table(data.llms),
        )
        recorded = column_mean(data.cost_usd)
        predicted = column_mean(model.predict(asked))
        mean_usd = np.where(np.isnan(recorded), predicted, recorded)
        reference = float(np.nanmax(mean_usd)) if not np.isnan(mean_usd).all() else np.nan
        return replace(model, cost_ref=reference)

    def with_prices(self, prices: Mapping[str, PricesLike], names: tuple[str, ...]) -> CostModel:
        """Return the model with some LLMs' prices (USD per million tokens, tiers) replaced."""
        table = self.prices.copy()
        given = [PriceList()] * len(names)
        for name, found in prices.items():
            row = names.index(name)
            if isinstance(found, PriceList):
                given[row], found = found, found.prices or (np.nan, np.nan)
            table[row] = found
        changed = [row for row, name in enumerate(names) if name in prices]
        return replace(
            self,
            prices=table,
            tiers=_with_rows(self.tiers, tier_table(given), changed),
            cached=_with_rows(self.cached, cached_table(given), changed),
        )

    def predict(
        self,
        characters: Vector,
        *,
        input_tokens: Vector | None = None,
        output_tokens: NDArray[np.floating[Any]] | None = None,
        recorded_usd: NDArray[np.floating[Any]] | None = None,
    ) -> Vector:
        """Predict dollars of one call of each LLM for each query.

        Args:
            characters: Length of each query, shape (n_queries,).
            input_tokens: Counted prompt tokens, (n_queries,), NaN where not counted.
            output_tokens: Expected generated tokens, (n_queries, n_llms), from the router.
            recorded_usd: Expected recorded dollars, (n_queries, n_llms), from the router.

        Returns:
            Shape (n_queries, n_llms), at least 0, NaN where unknown.
        """
        shape = (len(characters), len(self.prices))
        prompt = characters[:, None] * self.tokens_per_character
        if input_tokens is not None:
            prompt = np.where(np.isnan(input_tokens)[:, None], prompt, input_tokens[:, None])
        generated = _prefer(output_tokens, self.output_tokens, shape)
        by_price = dollars(prompt, generated, self._prices_at(prompt))
        recorded = _prefer(recorded_usd, self.recorded_usd, shape)
        return np.where(np.isnan(by_price), recorded, by_price)

    def _prices_at(self, prompt: Vector) -> tuple[Vector, Vector]:
        """Return the prices of prompt and generated tokens for prompts of (n_queries, n_llms)."""
        held = self.prices[:, 0], self.prices[:, 1]
        for step in range(self.tiers.shape[1]):
            above, *prices = self.tiers[:, step].T
            longer = prompt > above
            held = np.where(longer, prices[0], held[0]), np.where(longer, prices[1], held[1])
        return held

    def saved(
        self, llm: int, characters: float, input_tokens: int | None, cached_tokens: int
    ) -> float:
        """Return the dollars that a cache saves in one call; 0 where no price of it is known.

        Args:
            llm: Column of the LLM.
            characters: Length of the query.
            input_tokens: Counted prompt tokens; None estimates them.
            cached_tokens: Those of the prompt that the LLM's cache holds.
        """
        if not cached_tokens or not self.cached.size:
            return 0.0
        estimated = characters * float(self.tokens_per_character[llm])
        prompt = estimated if input_tokens is None else float(input_tokens)
        full = self._prices_at(np.full((1, len(self.prices)), prompt))[0]
        held = [np.nan, *(price for above, price in self.cached[llm] if prompt > above)][-1]
        less = float(np.atleast_2d(full)[0, llm] - held)
        return 0.0 if np.isnan(less) else max(0.0, less) * min(cached_tokens, prompt) / 1e6

    @property
    def asks_recorded(self) -> bool:
        """Whether some LLM's price is unknown. Only then are recorded dollars used."""
        return bool(np.isnan(self.prices).any())

    def to_arrays(self) -> dict[str, Vector]:
        """Return the state as named arrays; `from_arrays` reads it back."""
        state = {name: np.asarray(value, dtype=np.float64) for name, value in vars(self).items()}
        for name in ("tiers", "cached"):  # most LLMs have one price
            if not state[name].size:
                del state[name]
        return {name: np.atleast_1d(value) for name, value in state.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Vector]) -> CostModel:
        """Rebuild the model from `to_arrays`."""
        return cls(
            prices=arrays["prices"],
            tokens_per_character=arrays["tokens_per_character"],
            output_tokens=arrays["output_tokens"],
            recorded_usd=arrays["recorded_usd"],
            cost_ref=float(arrays["cost_ref"][0]),
            tiers=arrays.get("tiers", np.empty((0, 0, 3))),
            cached=arrays.get("cached", np.empty((0, 0, 2))),
        )


def column_mean(matrix: NDArray[np.float64]) -> Vector:
    """Return the mean of each column over its measured cells; NaN where a column has none."""
    counts = (~np.isnan(matrix)).sum(axis=0)
    sums = np.nansum(matrix, axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _with_rows(
    table: NDArray[np.float64], other: NDArray[np.float64], rows: list[int]
) -> NDArray[np.float64]:
    """Return a table (n_llms, n_steps, width) with some LLMs' rows taken from another."""
    steps = max(table.shape[1], other.shape[1])
    found = np.full((len(other), steps, other.shape[2]), np.nan)
    found[: len(table), : table.shape[1]] = table
    found[rows] = np.nan
    found[rows, : other.shape[1]] = other[rows]
    return found


def _filled(values: Vector, default: float) -> Vector:
    known = ~np.isnan(values)
    return np.where(known, values, values[known].mean() if known.any() else default)


def _tokens_per_character(data: RoutingData, characters: Vector) -> Vector:
    measured = ~np.isnan(data.input_tokens)
    tokens = np.nansum(data.input_tokens, axis=0)
    lengths = (measured * characters[:, None]).sum(axis=0)
    ratio = np.where(lengths > 0, tokens / np.maximum(lengths, 1), np.nan)
    return _filled(ratio, DEFAULT_TOKENS_PER_CHARACTER)


def _prefer(
    values: NDArray[np.floating[Any]] | None, fallback: Vector, shape: tuple[int, int]
) -> Vector:
    if values is None:
        return np.broadcast_to(fallback, shape)
    return np.where(np.isnan(values), fallback, values)
