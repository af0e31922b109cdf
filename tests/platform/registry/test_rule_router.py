"""Routers that learn nothing: asked, checked, kept to what a request may use, saved and loaded."""

import math
from dataclasses import replace

import numpy as np
import pytest

from waypost import Decision, MetaRouter
from waypost.contracts.errors import (
    ArtifactError,
    BudgetError,
    EmptyPoolError,
    NotFittedError,
    PluginError,
    SchemaError,
)
from waypost.contracts.policy import PolicySettings
from waypost.contracts.records import Query
from waypost.contracts.step_router import Call, Delegate, EpisodeState, StepRouter
from waypost.registry import make_router
from waypost.registry.rule_router import PlainRouter, PlainStepRouter, no_outcomes, trainable
from waypost.testing.synthetic import LLMS, planted


class Fixed(MetaRouter):
    """Answers every query with one decision, and notes what it was asked."""

    name = "fixed"

    def __init__(self, answer=None):
        self.answer = answer
        self.seen = []

    def route_single(self, query):
        self.seen.append(query)
        return self.answer


def ready(answer, **policy):
    router = trainable(Fixed(answer), {}).fit(planted(20))
    router.policy = PolicySettings(**policy)
    return router


PROVER = Decision("prover", ("prover", "tiny"), {"prover": 0.9}, reason="it is a proof")


def test_the_decision_is_the_routers_own_with_what_it_lacks_filled_in():
    router = ready(PROVER)
    router.version = "v1"
    found = router.route_single("q")
    assert (found.model, found.ranking) == ("prover", ("prover", "tiny", "cook"))
    assert found.quality == {"prover": 0.9}
    assert (found.lam, found.propensity, found.confidence) == (0.0, 1.0, None)
    assert (found.router, found.router_version) == ("fixed", "v1")
    assert found.reason == "it is a proof"
    # 1 character x 20 tokens / 39.45 characters a query, and 60 generated tokens at $1 and $4
    lengths = np.mean([len(text) for text in planted(20).queries])
    assert found.cost_usd["prover"] == pytest.approx((20 / lengths * 1.0 + 60 * 4.0) / 1e6)


def test_the_router_sees_each_query_as_it_was_given():
    router = ready(PROVER)
    mapping = {"query": "q", "lambda": 0.5, "my own key": 1}
    router.route_batch(["text", mapping])
    router.decide([Query("plain"), Query("q", user_id="u", lam=0.5)])
    assert router.plugin.seen == [
        "text",
        mapping,
        "plain",
        {"query": "q", "user_id": "u", "lambda": 0.5},
    ]
    assert router.plugin.seen[1] is mapping


def test_the_candidates_are_told_before_the_first_query():
    router = trainable(Fixed(PROVER))
    with pytest.raises(NotFittedError):
        router.route_single("q")
    router.fit(no_outcomes(LLMS))
    assert router.route_single("q").ranking == ("prover", "tiny", "cook")
    assert router.plugin.candidates == LLMS
    router.policy = PolicySettings(allowed_models=("tiny", "cook"))
    router.route_single("q")
    assert [llm.name for llm in router.plugin.candidates] == ["cook", "tiny"]
    assert router.route_batch([]) == []
    with pytest.raises(SchemaError, match="holds no LLM"):
        router.fit(no_outcomes([]))


def test_without_outcomes_the_list_prices_say_what_calls_cost():
    router = trainable(Fixed(PROVER)).fit(no_outcomes(LLMS))
    # 10 characters x 0.3 tokens at $1, and the default 200 generated tokens at $4
    assert router.route_single("x" * 10).cost_usd["prover"] == pytest.approx((3 + 800) / 1e6)


# -- what a request may use -----------------------------------------------------------------


def test_the_next_allowed_of_its_ranking_is_taken_then_the_others_by_name():
    found = ready(PROVER).route_single({"query": "q", "allowed_models": ["cook", "tiny"]})
    assert found.ranking == ("tiny", "cook")
    assert found.quality == {}
    assert "fixed chose prover, which may not be used" in found.reason


def test_the_policys_allowed_models_count_too():
    router = ready(PROVER, allowed_models=("cook", "tiny"))
    assert router.route_single("q").ranking == ("tiny", "cook")
    with pytest.raises(EmptyPoolError):
        router.route_single({"query": "q", "allowed_models": ["prover"]})
    with pytest.raises(EmptyPoolError, match="does not know ghost"):
        router.route_single({"query": "q", "allowed_models": ["ghost"]})


def test_where_one_model_is_allowed_the_router_is_not_asked():
    router = ready(None)
    found = router.route_batch([{"query": "q", "allowed_models": ["cook"]}])
    assert (found[0].ranking, found[0].reason) == (("cook",), "the only model allowed")
    assert router.plugin.seen == []


def test_a_budget_holds_by_predicted_cost_or_by_what_the_router_says_of_it():
    router = ready(PROVER)
    assert router.route_single({"query": "q", "max_cost_usd": 1e-5}).ranking == ("tiny",)
    router.plugin.answer = replace(PROVER, cost_usd={"prover": 1e-6})
    found = router.route_single({"query": "q", "max_cost_usd": 1e-5})
    assert (found.ranking, found.cost_usd["prover"]) == (("prover", "tiny"), 1e-6)
    with pytest.raises(BudgetError):
        router.route_single({"query": "q", "max_cost_usd": 0})


def test_changed_prices_are_in_the_next_decision():
    router = ready(PROVER)
    router.with_prices({"prover": (0.0, 0.0)})
    assert router.route_single("q").cost_usd["prover"] == 0


# -- lambda and propensity ------------------------------------------------------------------


def test_lambda_is_what_the_router_says_it_applied_not_what_was_asked():
    asked = {"query": "q", "lambda": 2.0}
    assert ready(PROVER, lam=3.0).route_single(asked).lam == 0.0
    assert ready(replace(PROVER, lam=2.0)).route_single(asked).lam == 2.0
    assert ready(replace(PROVER, lam=math.inf)).route_single("q").lam == math.inf


def test_the_propensity_is_the_routers_own_times_the_policys():
    chance = replace(PROVER, propensity=0.5)
    assert ready(chance).route_single("q").propensity == 0.5
    router = ready(chance, exploration=0.3, seed=1)
    found = router.route_batch([f"q{i}" for i in range(200)])
    kept = {round(d.propensity, 9) for d in found if d.model == "prover"}
    drawn = {round(d.propensity, 9) for d in found if d.model != "prover"}
    assert kept == {0.45}  # 0.7 x 0.5 for its own choice, and 0.3 / 3 for the uniform draw
    assert drawn == {0.1}
    assert any(d.reason == "drawn at random (exploration)" for d in found)


def test_confidence_is_of_the_routers_choice_alone():
    router = ready(replace(PROVER, confidence=0.8))
    assert router.route_single("q").confidence == 0.8
    without = {"query": "q", "allowed_models": ["cook", "tiny"]}
    assert router.route_single(without).confidence is None


# -- what is no sound decision --------------------------------------------------------------

SECRET = "the user's secret"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "expected a Decision .*; got None"),
        ("prover", "expected a Decision .*; got a value of type str"),
        ({"model_name": "prover"}, "got a value of type dict"),
        (Decision("ghost", ("ghost",)), "chose 'ghost'; the models are cook, prover, tiny"),
        (Decision(SECRET, (SECRET,)), "chose a value of type str; the models are"),
        (Decision(7, (7,)), "chose a value of type int; the models are"),
        (replace(PROVER, ranking=("prover", SECRET)), "ranking: no model is named a value of type"),
        (replace(PROVER, ranking=("prover", "ghost")), "ranking: no model is named 'ghost'"),
        (replace(PROVER, ranking="prover"), "ranking: expected the names of models"),
        (replace(PROVER, quality=[0.9]), "quality: expected a mapping"),
        (replace(PROVER, quality={"prover": math.nan}), "quality: expected a finite number"),
        (replace(PROVER, quality={"prover": SECRET}), "got a value of type str"),
        (replace(PROVER, cost_usd={"prover": -1}), "cost_usd: expected .* at least 0 .*got -1"),
        (replace(PROVER, confidence=1.5), "confidence: expected a number from 0 to 1.*got 1.5"),
        (replace(PROVER, propensity=0), "propensity: expected a number above 0"),
        (replace(PROVER, lam=math.nan), "lam: expected a number of at least 0; got nan"),
        (replace(PROVER, reason=None), "reason: expected a text; got None"),
    ],
)
def test_what_is_no_sound_decision_is_the_routers_error(answer, problem):
    with pytest.raises(PluginError, match=rf"^router fixed: .*{problem}") as caught:
        ready(answer).route_single(SECRET)
    assert SECRET not in str(caught.value)


class Batches(Fixed):
    """Has a route_batch of its own, which answers whatever it was given."""

    def route_batch(self, queries):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (None, "expected a list of 2 Decision; got None"),
        ([PROVER], "expected a list of 2 Decision; got 1 of them"),
        ([PROVER, 7], "expected a Decision"),
        ((PROVER for _ in range(2)), "got a value of type generator"),
    ],
)
def test_a_batch_that_is_none_is_the_routers_error(answer, problem):
    router = trainable(Batches(answer)).fit(planted(20))
    with pytest.raises(PluginError, match=problem):
        router.route_batch(["a", "b"])


def test_what_the_router_raises_is_named_with_its_place_and_without_its_message():
    class Broken(Fixed):
        def route_single(self, query):
            raise KeyError(query)

    with pytest.raises(PluginError) as caught:
        trainable(Broken()).fit(planted(20)).route_single(SECRET)
    assert "router fixed: failed on a query: KeyError at registry/test_rule_router.py, line" in str(
        caught.value
    )
    assert SECRET not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(BudgetError("no money"), BudgetError), (ArtifactError("no file"), PluginError)],
)
def test_a_refusal_passes_and_any_other_error_is_the_routers(raised, expected):
    class Refusing(Fixed):
        def route_single(self, query):
            raise raised

    with pytest.raises(expected, match=str(raised)):
        trainable(Refusing()).fit(planted(20)).route_single("q")


def test_a_query_that_is_none_never_reaches_the_router():
    router = ready(PROVER)
    with pytest.raises(SchemaError):
        router.route_batch(["fine", 7])
    assert router.plugin.seen == []


# -- what stands for what -------------------------------------------------------------------


def test_a_router_that_learns_stands_for_itself():
    knn = make_router("knnrouter")
    assert trainable(knn) is knn


def test_the_kind_follows_the_class():
    assert trainable(Fixed()).kind == "meta"
    assert make_router("knnrouter").kind == "score"


def test_the_state_goes_to_arrays_and_back():
    router = ready(PROVER)
    arrays, values = router.get_state()
    again = PlainRouter(Fixed(PROVER))
    again.set_state(LLMS, arrays, values)
    assert again.route_single("q") == router.route_single("q")
    assert again.plugin.candidates == LLMS


def test_a_step_router_that_learns_nothing_still_steps():
    class Asking(StepRouter):
        name = "asking"
        replayable = True

        def route_single(self, query):
            return PROVER

        def step(self, state):
            return Delegate((Call(self.candidates[0].name, state.query.text),))

    router = trainable(Asking()).fit(planted(20))
    assert isinstance(router, PlainStepRouter)
    assert isinstance(router, StepRouter)
    assert (router.kind, router.replayable) == ("step", True)
    state = EpisodeState(Query("q"))
    assert router.step(state).calls[0].model == "cook"
    assert router.fallback(state).calls[0].model == "prover"
