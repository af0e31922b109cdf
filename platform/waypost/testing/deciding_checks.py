"""Checks of score routers: predictions and decisions."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from waypost.contracts.errors import EmptyPoolError
from waypost.contracts.policy import PolicySettings
from waypost.contracts.records import Decision
from waypost.contracts.router import QueryBatch
from waypost.testing.fitted_routers import (
    fitted,
    models,
    new_router,
    quick_router,
    raised,
    scores,
)
from waypost.testing.synthetic import LLMS, planted

LAMBDAS = (0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 30.0, 1e6, math.inf)
HOSTILE = (
    "",
    " \n\t",
    "word " * 100_000,
    "Который город — столица? 東京はどこ 🗼 ﷽",
    "a lone \ud800 surrogate",
    "\x00\x1b[31m",
)


def check_prediction_has_the_agreed_form(name: str) -> None:
    """Shapes are (n, m), quality and confidence are in [0, 1], and costs are positive."""
    data = planted(30, seed=3)
    router = fitted(name)
    prediction = router.predict(data.batch())
    for matrix in (prediction.quality, prediction.confidence):
        if matrix is not None:
            assert matrix.shape == (30, 3)
            assert ((matrix >= 0) & (matrix <= 1)).all()
    assert router.predict_quality(data.batch()).dtype == np.float32
    cost = router.predict_cost(data.batch(), prediction)
    assert cost.shape == (30, 3)
    assert (cost > 0).all()


def check_same_alone_in_a_batch_in_any_order(name: str) -> None:
    """A question's scores and choice do not depend on the other questions of a batch."""
    data, router = planted(40, seed=3), fitted(name)
    whole = scores(router, data)
    back = np.arange(len(data))[::-1]
    np.testing.assert_allclose(scores(router, data.select(back)), whole[back], atol=1e-6)
    for i in (0, 17, 39):
        np.testing.assert_allclose(scores(router, data.select([i]))[0], whole[i], atol=1e-6)
    together = models(router.route_batch(data.queries))
    assert together == [router.route_single(text).model for text in data.queries]
    assert together == models(router.route_batch(data.queries[::-1]))[::-1]


def check_order_of_allowed_models_is_nothing(name: str) -> None:
    """The order in which a request lists its models changes neither choice nor ranking."""
    router, text = fitted(name), planted(1, seed=3).queries[0]
    one, two = (
        router.route_single({"query": text, "allowed_models": pool})
        for pool in (["cook", "tiny", "prover"], ["tiny", "prover", "cook"])
    )
    assert one == two


def check_the_choice_is_always_allowed(name: str) -> None:
    """Choice and ranking contain only allowed models; an unknown name raises EmptyPoolError."""
    router, text = fitted(name), planted(1, seed=3).queries[0]
    for pool in (["cook"], ["tiny", "cook"], ["prover", "tiny"]):
        decision = router.route_single({"query": text, "allowed_models": pool})
        assert decision.ranking[0] == decision.model
        assert sorted(decision.ranking) == sorted(pool)
    for pool in ([], ["no-such-model"]):
        query = {"query": text, "allowed_models": pool}
        raised(EmptyPoolError, partial(router.route_single, query))


def check_one_allowed_model_needs_no_router(name: str) -> None:
    """With one allowed model, the router does not predict."""
    router = fitted(name)
    type_of = type(router)

    class Sleeping(type_of):  # type: ignore[misc, valid-type]
        def _predict(self, batch: QueryBatch) -> Any:
            raise AssertionError("_predict was called")

    router.__class__ = Sleeping
    decision = router.route_single({"query": "q", "allowed_models": ["prover"]})
    assert (decision.model, decision.propensity) == ("prover", 1.0)


def check_the_rest_of_the_ranking_is_the_next_choice(name: str) -> None:
    """The ranking without its first model equals the ranking of a decision without that model."""
    router = fitted(name)
    if router.forced_exploration:
        return
    for text in planted(10, seed=3).queries:
        ranking = router.route_single(text).ranking
        without = router.route_single({"query": text, "allowed_models": ranking[1:]})
        assert without.ranking == ranking[1:]


def check_lambda_never_raises_the_cost(name: str) -> None:
    """A larger lambda never gives a more expensive choice; an infinite one gives the cheapest."""
    router = fitted(name)
    if router.forced_exploration:
        return
    for text in planted(20, seed=3).queries:
        chosen = [router.route_single({"query": text, "lambda": lam}) for lam in LAMBDAS]
        costs = [decision.cost_usd[decision.model] for decision in chosen]
        assert costs == sorted(costs, reverse=True), costs
        assert costs[-1] == min(chosen[-1].cost_usd.values())


def check_lambda_zero_ignores_prices(name: str) -> None:
    """At lambda 0 the choice has the highest predicted quality at any prices."""
    router = fitted(name)
    if router.forced_exploration:
        return
    for prices in ({}, {"prover": (0.0, 0.0), "tiny": (900.0, 900.0)}):
        router.with_prices(prices)
        for decision in router.route_batch(planted(20, seed=3).queries):
            assert decision.quality[decision.model] >= max(decision.quality.values()) - 1e-6


def check_changed_prices_need_no_fit(name: str) -> None:
    """A new price takes effect in the next decision without a fit."""
    router = fitted(name)
    text = planted(1, seed=3).queries[0]
    router.with_prices({"prover": (0.0, 0.0)})
    decision = router.route_single({"query": text, "lambda": math.inf})
    assert decision.cost_usd["prover"] == 0
    assert router.forced_exploration or decision.model == "prover"
    assert fitted(name).route_single(text).cost_usd["prover"] > 0


def check_propensity(name: str) -> None:
    """Propensities are in (0, 1]; without exploration they are 1."""
    router = fitted(name)
    for rate in (0.0, 0.3, 1.0):
        router.policy = PolicySettings(exploration=rate, seed=4)
        values = [d.propensity for d in router.route_batch(planted(40, seed=3).queries)]
        assert all(0 < value <= 1 for value in values)
        if rate == 0 and not router.forced_exploration:
            assert set(values) == {1.0}


def check_hostile_texts_get_a_choice(name: str) -> None:
    """Empty, huge, non-Latin and malformed texts, unknown users and unknown tasks are routed."""
    router = fitted(name)
    queries = [
        {"query": text, "user_id": "never seen", "task_name": "never seen", "session_id": "s"}
        for text in HOSTILE
    ]
    for decision in (*router.route_batch(queries), *map(router.route_single, HOSTILE)):
        assert decision.model in router.model_names
        assert all(math.isfinite(value) for value in decision.quality.values())


def check_decisions_are_plain_data(name: str) -> None:
    """A decision survives a round trip as plain data and has LLMRouter's key ``model_name``."""
    decision = fitted(name).route_single("a question")
    assert Decision.from_dict(decision.to_dict()) == decision
    assert decision["model_name"] == decision.model
    assert decision.router == name


def check_no_user_text_in_logs(name: str) -> None:
    """No log record, error or reason contains the text of a query."""
    canary = "canary-4711-zebra"
    data = planted(20)
    data = replace(data, queries=tuple(f"{text} {canary}" for text in data.queries))
    records: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        router = quick_router(name).fit(data)
        decision = router.route_single(canary)
        query = {"query": canary, "allowed_models": ["no-such-model"]}
        records.append(str(raised(EmptyPoolError, partial(router.route_single, query))))
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert not [text for text in (*records, decision.reason) if canary in text]


def check_state_survives(name: str) -> None:
    """A router restored from a state gives the same scores; a state is arrays and plain data."""
    router, data = fitted(name), planted(20, seed=3)
    arrays, values = router.get_state()
    assert all(isinstance(array, np.ndarray) and array.ndim > 0 for array in arrays.values())
    restored = new_router(name, **router.get_params())
    restored.set_state(LLMS, arrays, json.loads(json.dumps(values)))
    np.testing.assert_array_equal(scores(restored, data), scores(router, data))
    assert restored.route_single("a question") == router.route_single("a question")
