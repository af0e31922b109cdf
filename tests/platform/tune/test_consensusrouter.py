"""The consensus router: fit, decisions, steps, replay, artifact."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from support.answering import answered, without_answers
from waypost.contracts.errors import BudgetError, ConfigError, EmptyPoolError, SchemaError
from waypost.contracts.policy import PolicySettings
from waypost.contracts.records import Query
from waypost.contracts.steps import Call, CallResult, Delegate, EpisodeState, FinalAnswer
from waypost.encoders import make_encoder
from waypost.loading import load_router, save_router
from waypost.pipelines.evaluation import replay
from waypost.registry import make_router
from waypost.testing.deciding_checks import HOSTILE
from waypost.testing.synthetic import ENCODER_ID

TEXT = answered(2, seed=9).queries[1]  # algebra


def made(**params):
    router = make_router("consensusrouter", {"base": "taskrouter", "folds": 2, **params})
    router.encoder = make_encoder(ENCODER_ID)
    return router


@pytest.fixture(scope="module")
def data():
    return answered(300)


@pytest.fixture(scope="module")
def fitted(data):
    return made(max_calls=3).fit(data)


@pytest.fixture
def router(fitted):
    return copy.copy(fitted)


def said(model, text, **more):
    return CallResult(Call(model, TEXT), text, cost_usd=1e-6, **more)


def step(router, *results, **query):
    state = EpisodeState(Query(TEXT, **query))
    for result in results:
        state = state.after([result])
    return router.step(state)


def test_it_beats_the_best_single_for_less(router):
    fresh = answered(200, seed=1)
    found = replay.outcomes(router, fresh, 0.05)
    strong = fresh.quality[:, 3].mean(), fresh.cost_usd[:, 3].mean()
    assert found.quality.mean() > strong[0] + 0.02
    assert found.cost_usd.mean() < strong[1]
    assert found.calls.max() <= 3


def test_a_higher_lambda_spends_less(router):
    fresh = answered(30, seed=2)
    spent = [replay.outcomes(router, fresh, lam).cost_usd.mean() for lam in (0.0, 0.1, 1.0, 1e9)]
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] == pytest.approx(fresh.cost_usd[:, 0].mean())


def test_what_was_learned_is_reported_beside_the_rule(router):
    report = router.report_
    assert json.loads(json.dumps(report)) == report
    assert report["candidates"][0]["candidate"] == report["chosen"]
    assert report["candidates"][0]["gain"] > 0
    usd = [row["usd_per_1k"] for row in report["by_lambda"]]
    assert usd == sorted(usd, reverse=True)


def test_agreement_ends_and_disagreement_asks_further(router):
    cooking = EpisodeState(Query(answered(2, seed=9).queries[0], lam=0.2))
    agreed = router.step(cooking.after([said("cheap", "B"), said("other", "B")]))
    assert isinstance(agreed, FinalAnswer)
    assert agreed.text == "B"
    apart = step(router, said("cheap", "B"), said("other", "C"), lam=0.05)
    assert isinstance(apart, Delegate)
    assert apart.calls[0].model == "strong"


def test_twins_that_agree_are_asked_about(router):
    action = step(router, said("cheap", "B"), said("twin", "B"), lam=0.02)
    assert isinstance(action, Delegate)


def test_a_step_repeats(router):
    results = said("cheap", "B"), said("other", "C")
    assert step(router, *results) == step(router, *results)
    again = copy.copy(router)
    again._known = {}
    assert step(again, *results) == step(router, *results)


def test_a_failed_llm_is_not_asked_again(router):
    first = step(router).calls[0].model
    assert first == router.route_single(TEXT).model
    failed = CallResult(Call(first, TEXT), None, "it failed")
    second = step(router, failed).calls[0].model
    assert second != first
    rest = [CallResult(Call(name, TEXT), None, "no") for name in router.model_names]
    assert step(router, *rest) == FinalAnswer(None)


def test_an_answer_that_surely_ends_is_streamed(router):
    (call,) = step(router, lam=1e9).calls
    assert call.final
    assert call.model in ("cheap", "twin", "other")
    assert not step(router, lam=0.0).calls[0].final


def test_calls_that_surely_follow_are_made_together(router):
    router.together = 0.3
    action = step(router, lam=0.02)
    assert len(action.calls) > 1
    assert len({call.model for call in action.calls}) == len(action.calls)


def test_calls_made_together_stay_within_the_calls_left_and_the_money(router):
    router.together = 0.01
    calls = step(router, lam=0.0).calls
    assert 1 < len(calls) <= router.max_calls
    prices = router.route_single(TEXT).cost_usd
    together = sum(prices[call.model] for call in calls)
    few = step(router, lam=0.0, max_cost_usd=together * 0.999).calls
    assert sum(prices[call.model] for call in few) < together


def test_it_stops_at_its_calls(router):
    router.max_calls = 2
    done = step(router, said("cheap", "B"), said("other", "C"))
    assert isinstance(done, FinalAnswer)
    router.max_calls = 1
    assert step(router).calls[0].final


def test_answers_without_a_form_are_answers_still(router):
    done = router.fallback(EpisodeState(Query(TEXT)).after([said("cheap", "I cannot say")]))
    assert done == FinalAnswer("I cannot say", "cheap")
    router.max_calls = 2
    ended = step(router, said("cheap", "hm"), said("other", "D"))
    assert ended.text == "D"


def test_the_fallback_without_an_answer_asks_one_llm(router):
    action = router.fallback(EpisodeState(Query(TEXT)))
    assert action.calls[0].final


def test_only_allowed_llms_are_asked(router):
    allowed = ("cheap", "strong")
    action = step(router, said("cheap", "B"), lam=0.0, allowed_models=allowed)
    assert [call.model for call in action.calls] == ["strong"]
    alone = router.route_single({"query": TEXT, "allowed_models": ["twin"]})
    assert (alone.model, alone.reason) == ("twin", "the only model allowed")
    with pytest.raises(EmptyPoolError):
        router.route_single({"query": TEXT, "allowed_models": ["nobody"]})


def test_money_that_is_spent_is_not_spent_again(router):
    dear = router.route_single(TEXT).cost_usd["strong"]
    action = step(router, said("cheap", "B"), said("other", "C"), max_cost_usd=dear * 1.01)
    assert isinstance(action, FinalAnswer) or action.calls[0].model != "strong"
    with pytest.raises(BudgetError):
        router.route_single({"query": TEXT, "max_cost_usd": 1e-12})


def test_a_decision_explains_itself(router):
    router.policy = PolicySettings(lam=0.1)
    decision = router.route_single(TEXT)
    assert decision.reason.startswith("asked first: with what may follow")
    assert decision.ranking[0] == decision.model
    assert set(decision.quality) == set(router.model_names)
    assert decision.lam == 0.1
    drawn = replace(router.policy, exploration=1.0)
    router.policy = drawn
    assert router.route_single(TEXT).reason == "drawn at random (exploration)"
    assert step(router).calls[0].model == router.route_single(TEXT).model


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_decided(router, text):
    assert router.route_single(text[:20_000]).model in router.model_names
    state = EpisodeState(Query(text[:20_000])).after([CallResult(Call("cheap", text), text)])
    assert isinstance(router.step(state), Delegate | FinalAnswer)


def test_an_artifact_steps_alike(router, data, tmp_path):
    save_router(router, tmp_path / "a", data)
    again = load_router(tmp_path / "a")
    for results in ((), (said("cheap", "B"),), (said("cheap", "B"), said("other", "C"))):
        assert step(again, *results, lam=0.05) == step(router, *results, lam=0.05)
    assert again.report_ == router.report_
    assert again.plugin_names() == ("consensusrouter", "taskrouter")


def test_given_embeddings_decide_as_its_own(router, data):
    queries = [Query(text) for text in data.queries[:5]]
    alone = [router.route_single(query) for query in queries]
    router._known = {}
    given = router.decide(queries, data.embeddings[:5])
    assert [one.ranking for one in given] == [one.ranking for one in alone]
    values = [list(one.quality.values()) for one in given]
    np.testing.assert_allclose(values, [list(one.quality.values()) for one in alone], atol=1e-5)


def test_more_given_embeddings_than_are_remembered_need_no_encoder(router, data, monkeypatch):
    monkeypatch.setattr("waypost.tune.consensus.router._MOST_KNOWN", 2)
    router.encoder, router._known = None, {}
    queries = [Query(text) for text in data.queries[:5]]
    assert len(router.decide(queries, data.embeddings[:5])) == 5


def test_few_questions_are_enough():
    for rows in ([0], range(6)):
        few = made(depth=1).fit(answered(8).select(rows))
        assert few.route_single(TEXT).model in few.model_names
    one = made().fit(answered(8).select_llms(["cheap"]))
    assert one.step(EpisodeState(Query(TEXT))).calls[0].final


def test_unmeasured_cells_are_no_answers(data):
    quality = data.quality.copy()
    quality[np.random.default_rng(0).random(quality.shape) < 0.4] = np.nan
    some = made(depth=1).fit(replace(data, quality=quality))
    assert some.report_["candidates"]


def test_data_without_answers_is_refused(data):
    with pytest.raises(SchemaError, match="has none \\(column response\\)"):
        made().fit(without_answers(data))


@pytest.mark.parametrize("base", [None, [], 3, {"taskrouter": 1}, {"a": {}, "b": {}}])
def test_the_base_is_one_router(base):
    with pytest.raises(ConfigError, match="base"):
        make_router("consensusrouter", {"base": base})


def test_a_base_without_scores_is_refused(data):
    with pytest.raises(ConfigError, match="does not predict scores"):
        made(base="agreementrouter").fit(data)
