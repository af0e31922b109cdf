"""Agreement rules, and the router that takes the best one."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from support.answering import answered, without_answers
from waypost.contracts.errors import BudgetError, SchemaError
from waypost.contracts.records import Query
from waypost.contracts.steps import Call, CallResult, Delegate, EpisodeState, FinalAnswer
from waypost.loading import load_router, save_router
from waypost.pipelines.evaluation import replay
from waypost.registry import make_router
from waypost.tune.consensus.rules import follow_rule, measure_rules

TEXT = answered(1, seed=9).queries[0]


@pytest.fixture(scope="module")
def data():
    return answered(240)


@pytest.fixture
def router(data):
    return copy.copy(make_router("agreementrouter").fit(data))


def said(model, text):
    return CallResult(Call(model, TEXT), text)


def test_rules_are_measured_by_hand():
    groups = np.array([[0, 0, 1], [0, 1, 1], [-1, -1, 0]])
    quality = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    rules = measure_rules(groups, quality)
    found = {tuple(rule): at for at, rule in enumerate(rules.llms.tolist())}
    assert len(found) == 3 + 3
    at = found[0, 1, 2]
    assert rules.quality[at] == pytest.approx(1.0)
    assert rules.differ[at] == pytest.approx(2 / 3)
    assert rules.usd(np.array([1.0, 2.0, 10.0]))[at] == pytest.approx(1 + 2 + 20 / 3)
    assert rules.quality[found[0, 0, 0]] == pytest.approx(1 / 3)
    usd = np.tile([1.0, 2.0, 10.0], (3, 1))
    score, spent = follow_rule(rules.llms[at], groups, quality, usd)
    assert score.tolist() == [1.0, 1.0, 1.0]
    assert spent.tolist() == [3.0, 13.0, 13.0]


def test_independent_llms_are_asked_and_twins_are_not(router, data):
    decision = router.route_single({"query": TEXT, "lambda": 0.05})
    assert sorted(decision.ranking[:2]) in (["cheap", "other"], ["other", "twin"])
    assert decision.ranking[2] == "strong"
    assert decision.reason.startswith(f"asked with {decision.ranking[1]}; where")
    fresh = answered(160, seed=1)
    found = replay.outcomes(router, fresh, 0.05)
    assert found.cost_usd.mean() < fresh.cost_usd[:, 3].mean()
    assert set(np.unique(found.calls)) == {2, 3}


def test_agreement_ends_and_disagreement_asks_the_third(router):
    state = EpisodeState(Query(TEXT, lam=0.05))
    first = router.step(state)
    pair = [call.model for call in first.calls]
    agreed = router.step(state.after([said(name, "B") for name in pair]))
    assert agreed.text == "B"
    apart = state.after([said(pair[0], "B"), said(pair[1], "C")])
    action = router.step(apart)
    assert (action.calls[0].model, action.calls[0].final) == ("strong", True)
    assert router.step(apart.after([said("strong", "D")])) == FinalAnswer("D", "strong")


def test_a_failed_third_leaves_the_answers_and_failed_firsts_are_replaced(router):
    state = EpisodeState(Query(TEXT, lam=0.05))
    pair = [call.model for call in router.step(state).calls]
    apart = state.after([said(pair[0], "B"), said(pair[1], "C")])
    failed = apart.after([CallResult(Call("strong", TEXT), None, "no")])
    assert router.step(failed).text in ("B", "C")
    none = state.after([CallResult(Call(name, TEXT), None, "no") for name in pair])
    assert isinstance(router.step(none), Delegate)
    every = none.after([CallResult(Call(n, TEXT), None, "no") for n in router.model_names])
    assert router.step(every) == FinalAnswer(None)


def test_a_single_llm_is_a_rule_too(router):
    (call,) = router.step(EpisodeState(Query(TEXT, lam=1e9))).calls
    assert call.final
    alone = EpisodeState(Query(TEXT, allowed_models=("strong",)))
    assert router.step(alone).calls[0].model == "strong"


def test_the_dearest_way_of_a_rule_is_within_the_budget(router):
    dear = router.predict_cost(answered(1, seed=9).batch())[0]
    decision = router.route_single({"query": TEXT, "max_cost_usd": float(dear[3]) * 1.01})
    assert decision.cost_usd[decision.model] <= dear[3] * 1.01
    with pytest.raises(BudgetError):
        router.route_single({"query": TEXT, "max_cost_usd": 1e-12})


def test_an_artifact_decides_alike(router, data, tmp_path):
    save_router(router, tmp_path / "a", data)
    again = load_router(tmp_path / "a")
    asked = {"query": TEXT, "lambda": 0.05}
    assert again.route_single(asked).ranking == router.route_single(asked).ranking


def test_data_without_answers_is_refused(data):
    with pytest.raises(SchemaError, match="agreementrouter compares answers"):
        make_router("agreementrouter").fit(without_answers(data))
