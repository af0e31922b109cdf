"""From tokens to dollars: cached, reasoning and tiered prices."""

import numpy as np
import pytest
from pydantic import ValidationError

from waypost.contracts.cost import CostModel
from waypost.contracts.pricing import PriceList
from waypost.testing.tables import outcomes

LONG = {"above_tokens": 1000, "input_price": 4.0, "output_price": 20.0}
LONGER = {"above_tokens": 2000, "input_price": 8.0, "output_price": 40.0}
BASE = {"input_price": 2.0, "output_price": 10.0}


@pytest.mark.parametrize(
    ("prompt", "usd"),
    [
        (1000, (1000 * 2 + 100 * 10) / 1e6),  # above, not at
        (1001, (1001 * 4 + 100 * 20) / 1e6),  # all tokens of the call
        (2001, (2001 * 8 + 100 * 40) / 1e6),
    ],
)
def test_a_tier_holds_for_all_tokens_of_a_call(prompt, usd):
    assert PriceList(**BASE, tiers=[LONG, LONGER]).cost_usd(prompt, 100) == pytest.approx(usd)


def test_cached_and_reasoning_tokens_have_prices_of_their_own():
    prices = PriceList(**BASE, cached_input_price=0.5, reasoning_price=4.0)
    # 600 of 1000 from the cache, 30 of 100 are reasoning
    usd = (400 * 2 + 600 * 0.5 + 70 * 10 + 30 * 4) / 1e6
    assert prices.cost_usd(1000, 100, 600, 30) == pytest.approx(usd)
    assert PriceList(**BASE).cost_usd(1000, 100, 600, 30) == pytest.approx(0.003)


def test_a_tier_has_its_own_prices_of_both():
    tier = LONG | {"cached_input_price": 1.0, "reasoning_price": 8.0}
    prices = PriceList(**BASE, cached_input_price=0.5, tiers=[tier])
    usd = (1400 * 4 + 600 * 1 + 70 * 20 + 30 * 8) / 1e6
    assert prices.cost_usd(2000, 100, 600, 30) == pytest.approx(usd)
    # a tier that gives none has its own price of prompt tokens, not the cache's of short prompts
    bare = PriceList(**BASE, cached_input_price=0.5, tiers=[LONG])
    assert bare.cost_usd(2000, 0, 600) == pytest.approx(2000 * 4 / 1e6)


def test_an_unknown_price_is_no_dollars():
    assert PriceList(output_price=1.0).cost_usd(1, 1) is None


@pytest.mark.parametrize("tiers", [[LONGER, LONG], [LONG, LONG]])
def test_tiers_ascend(tiers):
    with pytest.raises(ValidationError, match="ascend"):
        PriceList(**BASE, tiers=tiers)


def predicted(model, tokens):
    return model.predict(np.array([1.0]), input_tokens=np.array([tokens]))[0].tolist()


def test_predictions_take_the_tier_of_the_prompt():
    facts = {"a": BASE | {"tiers": [LONG, LONGER]}, "b": BASE}
    data = outcomes({"a": [1.0], "b": [1.0]}, facts=facts, output_tokens={"a": [100], "b": [100]})
    model = CostModel.fit(data)
    assert predicted(model, 1000.0) == pytest.approx([0.003, 0.003])
    assert predicted(model, 1001.0) == pytest.approx([0.006004, 0.003002])
    again = CostModel.from_arrays(model.to_arrays())
    assert predicted(again, 2001.0) == pytest.approx([0.020008, 0.005002])


def test_new_prices_replace_the_tiers():
    data = outcomes({"a": [1.0], "b": [1.0]}, output_tokens={"a": [100], "b": [100]})
    model = CostModel.fit(data)
    tiered = model.with_prices({"b": PriceList(**BASE, tiers=[LONG])}, ("a", "b"))
    assert predicted(tiered, 2000.0)[1] == pytest.approx(0.01)
    assert predicted(tiered.with_prices({"b": (2.0, 10.0)}, ("a", "b")), 2000.0)[1] == (
        pytest.approx(0.005)
    )
    assert predicted(tiered.with_prices({"a": (2.0, 10.0)}, ("a", "b")), 2000.0) == (
        pytest.approx([0.005, 0.01])
    )
