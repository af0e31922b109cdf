"""A planner that assigns an LLM to each step; LLMs are scripted functions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from support.rounds import (
    ALGEBRA,
    BAD,
    COOKING,
    PRICE,
    TWO,
    Script,
    first,
    new,
    plan_of,
    run,
    shape,
    step,
    trained,
)
from waypost.contracts.records import LLMInfo
from waypost.testing.synthetic import planted
from waypost_routers.llmmultiroundrouter import LLMMultiRoundRouter


@pytest.fixture
def llm() -> LLMMultiRoundRouter:
    return trained("llmmultiroundrouter")


def test_the_planner_assigns_llms(llm):
    script = Script(plan_of((COOKING, []), (ALGEBRA, []), model="tiny"))
    assert shape(run(llm, script)) == [("plan", 1), ("step", 2), ("merge", 1)]
    assert [call.model for call in script.of("step")] == ["tiny", "tiny"]


@pytest.mark.parametrize("wrong", ["gpt-9", "llmmultiroundrouter", None, "prover"])
def test_an_unknown_llm_is_asked_for_once_more(llm, wrong):
    bad = plan_of((COOKING, []), step(2, ALGEBRA, model="tiny"), model=wrong)
    script = Script(bad, plan_of((COOKING, []), (ALGEBRA, []), model="tiny"))
    result = run(llm, script, allowed_models=("cook", "tiny"))
    assert shape(result) == [("plan", 1), ("repair", 1), ("step", 2), ("merge", 1)]
    assert {call.model for call in script.of("step")} == {"tiny"}
    (repair,) = script.of("repair")
    assert "step 1: model: expected one of cook, tiny" in repair.prompt
    assert repair.model == script.calls[0].model


def test_an_llm_that_stays_unknown_is_the_best_single_for_that_step_only(llm):
    bad = plan_of((COOKING, []), step(2, ALGEBRA, model="tiny"), model="gpt-9")
    script = Script(bad, bad)
    run(llm, script)
    best = llm.route_single(COOKING).model
    assert [call.model for call in script.of("step")] == [best, "tiny"]
    script = Script(bad, bad)
    run(llm, script, lam=math.inf)
    assert [call.model for call in script.of("step")] == ["tiny", "tiny"]


def test_a_repair_that_is_no_plan_leaves_the_first_one(llm):
    bad = plan_of((COOKING, []), (ALGEBRA, []), model="gpt-9")
    script = Script(bad, "sorry")
    assert shape(run(llm, script)) == [("plan", 1), ("repair", 1), ("step", 2), ("merge", 1)]


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_plan_is_repaired_once(llm, case):
    script = Script(BAD[case][0], TWO)
    assert shape(run(llm, script))[:3] == [("plan", 1), ("repair", 1), ("step", 2)]
    script = Script(BAD[case][0], BAD[case][0])
    assert shape(run(llm, script)) == [("plan", 1), ("repair", 1), ("answer", 1)]


def test_a_plan_that_does_not_split_needs_no_repair(llm):
    script = Script(plan_of((COOKING, []), model="gpt-9"))
    assert shape(run(llm, script)) == [("plan", 1), ("answer", 1)]


def test_candidates_are_described_and_their_order_is_drawn(llm):
    prompt = first(llm).prompt
    for part in ("- cook: 7B; price tier 2 of 3", "strong at cooking (1.00)", "at algebra (1.00)"):
        assert part in prompt
    orders = {tuple(sorted(PRICE, key=first(llm, f"question {i}").prompt.index)) for i in range(40)}
    assert len(orders) == 6
    again = trained("llmmultiroundrouter", seed=1)
    texts = [f"question {i}" for i in range(10)]
    assert [first(llm, t).prompt for t in texts] != [first(again, t).prompt for t in texts]
    assert [first(llm, t).prompt for t in texts] == [first(llm, t).prompt for t in texts]
    assert "- prover" not in first(llm, allowed_models=("cook", "tiny")).prompt


def test_cost_weight_and_llms_without_facts_are_described():
    data = planted()
    bare = replace(
        data, llms=tuple(LLMInfo(name=one.name) for one in data.llms), task_names=("",) * 200
    )
    router = new("llmmultiroundrouter").fit(replace(bare, cost_usd=data.cost_usd * math.nan))
    advice = {lam: first(router, lam=lam).prompt for lam in (0.0, 0.2, 1.0, math.inf)}
    assert len(set(advice.values())) == 4
    assert "- tiny: mean score" in advice[0.0]
