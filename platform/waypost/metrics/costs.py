"""The cost of each call, from recorded dollars or list prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.routing_data import RoutingData

RECORDED = "recorded dollars"
BOTH_TOKENS = "list prices x prompt and generated tokens"
PROMPT_ONLY = "list prices x prompt tokens (generated tokens were not counted)"
GENERATED_ONLY = "list prices x generated tokens (prompt tokens were not counted)"
CALLS = "share of calls of each LLM (no cost, or no prices with token counts, in the data)"


@dataclass(frozen=True, eq=False)
class Costs:
    """Dollars of each call.

    Attributes:
        basis: Description of their source.
        usd: Shape (n_queries, n_llms), NaN where unknown; all NaN without costs or prices.
    """

    basis: str
    usd: NDArray[np.float64]

    @property
    def whole(self) -> bool:
        """Whether they are the full cost of a call, not a part of it."""
        return self.basis not in (PROMPT_ONLY, GENERATED_ONLY, CALLS)

    @property
    def known(self) -> bool:
        """Whether any call has a cost."""
        return not bool(np.isnan(self.usd).all())


def costs_of(data: RoutingData) -> Costs:
    """Return recorded dollars, or without any list prices times counted tokens.

    If only some calls have recorded dollars, the others are priced from their tokens, provided
    prompt and generated tokens were both counted. Unknown costs are NaN, never 0.
    """
    recorded = data.cost_usd
    basis, priced = _priced(data)
    if np.isnan(recorded).all():
        return Costs(basis, priced)
    missing = np.isnan(recorded) & ~np.isnan(priced)
    if basis != BOTH_TOKENS or not missing.any():
        return Costs(RECORDED, recorded)
    both = f"{RECORDED}; where none were recorded, {BOTH_TOKENS}"
    return Costs(both, np.where(missing, priced, recorded))


def _priced(data: RoutingData) -> tuple[str, NDArray[np.float64]]:
    prompt = data.input_tokens * data.prices[:, 0] / 1e6
    generated = data.output_tokens * data.prices[:, 1] / 1e6
    counted = (not np.isnan(prompt).all(), not np.isnan(generated).all())
    if counted == (True, True):
        return BOTH_TOKENS, prompt + generated
    if counted == (True, False):
        return PROMPT_ONLY, prompt
    if counted == (False, True):
        return GENERATED_ONLY, generated
    return CALLS, np.full(data.quality.shape, np.nan)


def cost_error(predicted: NDArray[np.float64], usd: NDArray[np.float64]) -> tuple[float, float]:
    """Return the error of predicted dollars: (median relative error, share that is too low).

    The median of |predicted - spent| / spent, and the share of predicted < spent, over the calls
    with both known and a cost above 0; (NaN, NaN) without such calls.
    """
    both = ~np.isnan(predicted) & (np.nan_to_num(usd) > 0)
    if not both.any():
        return np.nan, np.nan
    p, c = predicted[both], usd[both]
    return float(np.median(np.abs(p - c) / c)), float((p < c * (1 - 1e-9)).mean())


def list_prices(data: RoutingData) -> NDArray[np.float64]:
    """Return USD per million tokens of each LLM, (n_llms,), NaN if unknown.

    The price is of three prompt tokens for one generated token.
    """
    prices = [llm.blended_price for llm in data.llms]
    return np.array([np.nan if price is None else price for price in prices], dtype=np.float64)
