import numpy as np
import pytest

from waypost.contracts.cost import CostModel, column_mean
from waypost.testing.tables import outcomes

PRICES = {"a": {"input_price": 10.0, "output_price": 100.0}}
CHARACTERS = np.array([10.0])


def fit(**more):
    return CostModel.fit(outcomes({"a": [1.0, 1.0], "b": [1.0, 1.0]}, **more))


def test_prices_times_tokens():
    model = fit(facts=PRICES, output_tokens={"a": [40, 60]})
    # 10 characters = 3 tokens: (3 * 10 + 50 * 100) / 1e6
    assert model.predict(CHARACTERS)[0, 0] == pytest.approx(0.00503)


def test_counted_and_predicted_tokens_win_over_the_means():
    model = fit(facts=PRICES, output_tokens={"a": [40, 60]})
    cost = model.predict(
        np.array([10.0, 10.0]),
        input_tokens=np.array([np.nan, 100.0]),
        output_tokens=np.array([[20.0, 1.0], [np.nan, 1.0]]),
    )
    assert cost[:, 0] == pytest.approx([0.00203, (1000 + 5000) / 1e6])


def test_without_prices_recorded_dollars():
    model = fit(cost_usd={"a": [0.001, 0.003]})
    assert model.predict(CHARACTERS)[0, 0] == pytest.approx(0.002)
    assert np.isnan(model.predict(CHARACTERS)[0, 1])
    near = model.predict(CHARACTERS, recorded_usd=np.array([[0.007, np.nan]]))
    assert near[0, 0] == pytest.approx(0.007)


def test_reference_is_the_dearest_mean_call():
    assert fit(cost_usd={"a": [0.001, 0.003], "b": [0.01, None]}).cost_ref == pytest.approx(0.01)
    assert np.isnan(fit().cost_ref)


def test_a_model_without_recorded_tokens_takes_the_mean_of_the_others():
    assert fit(output_tokens={"a": [40, 60]}).output_tokens.tolist() == [50, 50]


def test_new_prices():
    model = fit(facts=PRICES).with_prices({"b": (1.0, 1.0)}, ("a", "b"))
    assert model.prices.tolist() == [[10, 100], [1, 1]]


def test_state_survives():
    model = fit(facts=PRICES, cost_usd={"b": [0.01, None]})
    again = CostModel.from_arrays(model.to_arrays())
    np.testing.assert_array_equal(again.predict(CHARACTERS), model.predict(CHARACTERS))
    assert again.cost_ref == model.cost_ref


def test_column_mean_skips_missing_cells():
    mean = column_mean(np.array([[1.0, np.nan], [0.0, np.nan]]))
    assert mean[0] == 0.5
    assert np.isnan(mean[1])
