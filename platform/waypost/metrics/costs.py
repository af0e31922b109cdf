"""What each call cost, as far as the data can say it."""

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
        basis: In words, where they come from.
        usd: Shape (n_queries, n_llms), NaN where unknown; all NaN where only the share of calls
            can be told.
    """

    basis: str
    usd: NDArray[np.float64]

    @property
    def known(self) -> bool:
        """Some call has a cost."""
        return not bool(np.isnan(self.usd).all())


def costs_of(data: RoutingData) -> Costs:
    """Take recorded dollars; without any, list prices times counted tokens; else nothing.

    A call that was not recorded beside others that were is priced from its tokens, where prompt
    and generated tokens were both counted; otherwise it stays unknown. Nothing unknown is 0.
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


def list_prices(data: RoutingData) -> NDArray[np.float64]:
    """USD per million tokens of each LLM, three prompt tokens for one generated; NaN unknown."""
    prices = [llm.blended_price for llm in data.llms]
    return np.array([np.nan if price is None else price for price in prices], dtype=np.float64)
