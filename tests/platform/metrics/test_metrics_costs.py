import numpy as np
import pytest

from waypost.metrics.costs import (
    BOTH_TOKENS,
    CALLS,
    PROMPT_ONLY,
    RECORDED,
    Costs,
    cost_error,
    costs_of,
    list_prices,
)
from waypost.testing.tables import outcomes

SCORES = {"a": [1, 0], "b": [0, 1]}
PRICES = {"a": {"input_price": 1, "output_price": 5}, "b": {"input_price": 2, "output_price": 2}}


def with_prompts(data, tokens):
    from dataclasses import replace

    return replace(data, input_tokens=np.array(tokens, float))


def test_recorded_dollars_come_first():
    data = outcomes(SCORES, facts=PRICES, cost_usd={"a": [0.1, 0.2], "b": [0.3, None]})
    found = costs_of(with_prompts(data, [[10, 10], [10, 10]]))
    assert found.basis == RECORDED
    assert found.usd[0].tolist() == [0.1, 0.3]
    assert np.isnan(found.usd[1, 1])  # generated tokens were not counted: not comparable


def test_what_was_not_recorded_is_priced_where_both_tokens_were_counted():
    data = outcomes(
        SCORES,
        facts=PRICES,
        cost_usd={"a": [0.1, None], "b": [0.3, 0.4]},
        output_tokens={"a": [3, 4], "b": [5, 6]},
    )
    found = costs_of(with_prompts(data, [[10, 10], [10, 10]]))
    assert found.basis == f"{RECORDED}; where none were recorded, {BOTH_TOKENS}"
    assert np.allclose(found.usd, [[0.1, 0.3], [(10 + 4 * 5) / 1e6, 0.4]])


def test_list_prices_times_tokens():
    data = outcomes(SCORES, facts=PRICES, output_tokens={"a": [3, 4], "b": [5, None]})
    found = costs_of(with_prompts(data, [[10, 10], [20, 20]]))
    assert found.basis == BOTH_TOKENS
    assert np.allclose(found.usd[:, 0], [25e-6, 40e-6])
    assert np.allclose(found.usd[0, 1], 30e-6)
    assert np.isnan(found.usd[1, 1])


def test_prompt_tokens_alone():
    found = costs_of(with_prompts(outcomes(SCORES, facts=PRICES), [[10, 10], [20, 20]]))
    assert found.basis == PROMPT_ONLY
    assert np.allclose(found.usd, [[10e-6, 20e-6], [20e-6, 40e-6]])


def test_nothing_known_is_unknown_and_not_zero():
    for data in (
        outcomes(SCORES),
        outcomes(SCORES, facts=PRICES),
        with_prompts(outcomes(SCORES), [[1, 1], [1, 1]]),
    ):
        found = costs_of(data)
        assert found.basis == CALLS
        assert np.isnan(found.usd).all()
        assert not found.known


def test_blended_list_prices():
    found = list_prices(outcomes(SCORES, facts={"a": PRICES["a"]}))
    assert found[0] == 2.0
    assert np.isnan(found[1])


def test_the_error_of_predicted_dollars_by_hand():
    usd = np.array([1.0, 2.0, 4.0, 0.0, np.nan, 5.0])
    predicted = np.array([0.5, 2.0, 5.0, 1.0, 1.0, np.nan])
    # Off by .5, 0 and .25; one of three is too low. What cost nothing has no share.
    assert cost_error(predicted, usd) == pytest.approx((0.25, 1 / 3))
    assert np.isnan(cost_error(predicted, np.zeros(6))).all()


def test_part_of_a_call_is_not_the_whole():
    bases = (RECORDED, BOTH_TOKENS, PROMPT_ONLY, CALLS)
    assert [Costs(basis, np.ones((1, 1))).whole for basis in bases] == [True, True, False, False]
