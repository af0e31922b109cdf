import math

import pytest

from waypost.testing.tables import outcomes
from waypost_routers.best_single import BestSingle

SCORES = {"a": [1.0, 0.0, None], "b": [1.0, 0.5, 0.3], "c": [None, 0.7, 0.9]}


def test_ranking_is_by_mean_over_measured_cells():
    # a: 1/2 = 0.5; b: 1.8/3 = 0.6; c: 1.6/2 = 0.8
    decision = BestSingle().fit(outcomes(SCORES)).route_single("anything")
    assert decision.ranking == ("c", "b", "a")
    assert decision.quality == pytest.approx({"a": 0.5, "b": 0.6, "c": 0.8})
    assert decision.confidence is None


def test_lambda_weighs_the_means_against_cost():
    # cost_ref = 0.01 (c). At lambda 0.5: a = 0.5 - 0.05, b = 0.6 - 0.1, c = 0.8 - 0.5.
    cost = {"a": [0.001] * 3, "b": [0.002] * 3, "c": [0.01] * 3}
    router = BestSingle().fit(outcomes(SCORES, cost_usd=cost))
    assert router.route_single({"query": "q", "lambda": 0.5}).ranking == ("b", "a", "c")
    assert router.route_single({"query": "q", "lambda": math.inf}).model == "a"
