"""What tokens cost: the prices of one LLM, and the one rule from tokens to dollars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

AmountT = TypeVar("AmountT", float, NDArray[np.float64])

Price: TypeAlias = Annotated[float, Field(ge=0)]
"""USD per million tokens."""


def dollars(
    input_tokens: AmountT, output_tokens: AmountT, prices: tuple[AmountT, AmountT]
) -> AmountT:
    """Return what calls cost in USD: tokens times (input, output) price per million tokens."""
    return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6


class PriceTier(BaseModel):
    """Prices of calls whose prompt is long; they hold for all tokens of the call.

    Attributes:
        above_tokens: Prompt tokens above which these prices hold.
        input_price: USD per million prompt tokens.
        output_price: USD per million generated tokens.
        cached_input_price: USD per million prompt tokens that the upstream's cache held; null is
            ``input_price``.
        reasoning_price: USD per million tokens of reasoning; null is ``output_price``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    above_tokens: int = Field(gt=0)
    input_price: Price
    output_price: Price
    cached_input_price: Price | None = None
    reasoning_price: Price | None = None


class PriceList(BaseModel):
    """Prices of one LLM.

    Attributes:
        input_price: USD per million prompt tokens; null where unknown.
        output_price: USD per million generated tokens; null where unknown.
        cached_input_price: USD per million prompt tokens that the upstream's cache held; null is
            ``input_price``. Predictions count on a cache only where a session keeps its LLM.
        reasoning_price: USD per million tokens of reasoning; null is ``output_price``.
            Predictions count reasoning as other output.
        tiers: Other prices for calls with long prompts, ascending by ``above_tokens``; null is
            none.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    input_price: Price | None = None
    output_price: Price | None = None
    cached_input_price: Price | None = None
    reasoning_price: Price | None = None
    tiers: tuple[PriceTier, ...] | None = None

    @field_validator("tiers")
    @classmethod
    def _ascend(cls, tiers: tuple[PriceTier, ...] | None) -> tuple[PriceTier, ...] | None:
        steps = [tier.above_tokens for tier in tiers or ()]
        if steps != sorted(set(steps)):
            raise ValueError("above_tokens must ascend from tier to tier")
        return tiers or None

    @property
    def prices(self) -> tuple[float, float] | None:
        """(input, output) USD per million tokens of short prompts; None where one is unknown."""
        if self.input_price is None or self.output_price is None:
            return None
        return self.input_price, self.output_price

    def cost_usd(
        self,
        input_tokens: int,
        output_tokens: int,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> float | None:
        """Return the dollars of a call; None where a price is unknown.

        Args:
            input_tokens: All tokens of the prompt; they choose the tier.
            output_tokens: All tokens generated.
            cached_tokens: Those of the prompt that the upstream's cache held.
            reasoning_tokens: Those generated that are reasoning.
        """
        prices = self.prices
        if prices is None:
            return None
        held: PriceList | PriceTier = self
        for tier in self.tiers or ():
            if input_tokens > tier.above_tokens:
                held, prices = tier, (tier.input_price, tier.output_price)
        found = dollars(float(input_tokens), float(output_tokens), prices)
        if cached_tokens and held.cached_input_price is not None:
            found += cached_tokens * (held.cached_input_price - prices[0]) / 1e6
        if reasoning_tokens and held.reasoning_price is not None:
            found += reasoning_tokens * (held.reasoning_price - prices[1]) / 1e6
        return found


def tier_table(lists: Sequence[PriceList]) -> NDArray[np.float64]:
    """Return the tiers of several LLMs, (n_llms, most tiers, 3): above, input, output; else NaN."""
    most = max((len(one.tiers or ()) for one in lists), default=0)
    table = np.full((len(lists), most, 3), np.nan)
    for row, one in enumerate(lists):
        for step, tier in enumerate(one.tiers or ()):
            table[row, step] = tier.above_tokens, tier.input_price, tier.output_price
    return table


def cached_table(lists: Sequence[PriceList]) -> NDArray[np.float64]:
    """Return the prices of cached tokens of several LLMs, (n_llms, 1 + most tiers, 2).

    A row holds the prompt tokens above which it counts, and USD per million cached tokens (NaN:
    those of other prompt tokens). No row is there where no LLM has such a price.
    """
    steps = [
        [(0.0, one.cached_input_price)]
        + [(float(tier.above_tokens), tier.cached_input_price) for tier in one.tiers or ()]
        for one in lists
    ]
    most = max((len(held) for held in steps if any(p is not None for _, p in held)), default=0)
    table = np.full((len(lists), most, 2), np.nan)
    for row, held in enumerate(steps):
        for step, (above, price) in enumerate(held[:most]):
            table[row, step] = above, np.nan if price is None else price
    return table
