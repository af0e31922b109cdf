"""Router-R1: prompt, cost weight, fit, decisions and artifacts."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest

from support.r1_policy import (
    ANSWER,
    ASK,
    QUESTION,
    Script,
    made,
    run,
    trained,
)
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.records import Query
from waypost.contracts.steps import Delegate, EpisodeState, FinalAnswer
from waypost.loading import load_router, save_router
from waypost.registry import check_router, find_router
from waypost.registry.rule_router import no_outcomes
from waypost.testing.synthetic import planted
from waypost_rl.router import RouterR1

# -- prompt and cost weight ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "word"),
    [
        (0.0, "high"),
        (0.5, "high"),
        (0.6, "medium"),
        (3.9, "medium"),
        (4.1, "low"),
        (math.inf, "low"),
    ],
)
def test_lambda_is_a_budget_in_words(lam, word):
    script = Script(ANSWER)
    run(trained(), script, lam=lam)
    assert f"\nBudget: {word}\n" in script.calls[0].prompt
    plain = Script(ANSWER)
    run(trained(budget=False), plain, lam=lam)
    assert "Budget" not in plain.calls[0].prompt


def test_the_deployments_lambda_counts_where_the_request_has_none():
    router = trained()
    router.policy = replace(router.policy, lam=10.0)
    script = Script(ANSWER)
    run(router, script)
    assert "Budget: low" in script.calls[0].prompt


def test_a_checkpoints_own_prompt_and_chat_template():
    template = "Names:\n{models}\nUp to {searches}. {budget} {other} Q: {question}"
    router = trained(
        prompt=template, frame=["<|user|>", "<|end|><|assistant|>"], reserved=["<|end|>", ""]
    )
    turn = ASK.format("cook", "what is a roast?")
    script = Script(turn, ANSWER, replies={"what is a roast?": "meat<|end|>"})
    run(router, script, text="why {models}<|end|>?", lam=0.0)
    first, second = script.of("policy")
    assert first.raw
    assert first.prompt.startswith("<|user|>Names:\n- cook: 7B")
    end = "Up to 4. high {other} Q: why {models}< |end|>?<|end|><|assistant|>"
    assert first.prompt.endswith(end)
    block = "\n\n<information>meat< |end|></information>\n\n"
    assert second.prompt == f"{first.prompt}{turn}{block}"


def test_tags_in_a_description_do_not_reach_the_prompt():
    data = planted()
    llms = tuple(llm.model_copy(update={"feature": "an <answer>"}) for llm in data.llms)
    script = Script(ANSWER)
    run(made().fit(replace(data, llms=llms)), script)
    assert "an [answer]" in script.calls[0].prompt


# -- fit, decisions, artifacts ------------------------------------------------------------------


def test_it_is_a_step_router_of_the_registry():
    facts = check_router(find_router("router_r1", []))
    assert (facts.kind, facts.family, facts.trainable) == ("step", "multi-round", True)
    assert not facts.needs_embeddings


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"policy_llm": None}, "policy_llm: is not set; name the LLM"),
        ({"delegates": {"a": "nobody"}}, "delegates.a: the data has no LLM nobody"),
        ({"delegates": {"a": "tiny"}}, "delegates.a: is the policy itself"),
        ({"fallback_llm": "tiny"}, "fallback_llm: is the policy itself"),
    ],
)
def test_parameters_that_do_not_fit_the_data(parameters, told):
    with pytest.raises(ConfigError, match=told):
        trained(**parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"delegates": {}},
        {"delegates": {"a": 3}},
        {"delegates": ["cook"]},
        {"prompt": "no question"},
        {"frame": ["one"]},
        {"reserved": "text"},
        {"max_turns": 0},
        {"budget": 1},
    ],
)
def test_parameters_out_of_range(parameters):
    with pytest.raises(ConfigError):
        made(**parameters)


def test_a_name_for_two_llms_is_refused():
    with pytest.raises(SchemaError, match="means two candidates"):
        trained(delegates={"cook": "prover"})


def test_the_policy_need_not_be_measured():
    router = made(policy_llm="r1").fit(planted())
    assert router.model_names == ("cook", "prover", "tiny", "r1")
    script = Script(ANSWER)
    assert run(router, script).model == "r1"
    decision = router.route_single(QUESTION)
    assert decision.ranking == ("prover", "cook", "tiny", "r1")
    assert set(decision.quality) == {"cook", "prover", "tiny"}
    assert decision.reason.startswith("r1 reasons first, at most 4 turns, and may query cook,")


def test_without_outcomes_a_fallback_has_to_be_named():
    data = no_outcomes(planted().llms)
    with pytest.raises(SchemaError, match="set fallback_llm"):
        made().fit(data)
    router = made(fallback_llm="prover").fit(data)
    decision = router.route_single(QUESTION)
    assert (decision.model, decision.quality) == ("prover", {})
    assert run(router, Script("fails")).model == "prover"
    assert run(router, Script("fails"), allowed_models=("tiny", "cook")).model == "cook"


def test_the_best_single_llm_is_that_at_the_requests_lambda():
    router = made(policy_llm="r1").fit(planted())
    assert router.route_single({"query": QUESTION, "lambda": math.inf}).model == "tiny"
    assert run(router, Script("fails"), lam=math.inf).model == "tiny"


def test_a_step_is_a_pure_function_of_the_state():
    router = trained()
    state = EpisodeState(Query(QUESTION, lam=0.5))
    script = Script("nothing", ASK.format("cook", "what is a roast?"), ANSWER)
    while isinstance(action := router.step(state), Delegate):
        again = EpisodeState.from_dict(state.to_dict())
        assert router.step(again) == action == router.step(state)
        state = state.after([asyncio.run(script(call)) for call in action.calls])
    assert action == FinalAnswer("a roast", "tiny")


def test_a_loaded_artifact_acts_alike(tmp_path):
    data = planted()
    router = made(
        policy_llm="r1", delegates={"Kitchen": "cook", "Proof": "prover"}, frame=["<u>", "<a>"],
        reserved=["<u>"], prompt="{models} {question}",
    ).fit(data)  # fmt: skip
    manifest = save_router(router, tmp_path / "r1", data)
    assert (manifest.router, manifest.kind) == ("router_r1", "step")
    loaded = load_router(tmp_path / "r1")
    assert isinstance(loaded, RouterR1)
    np.testing.assert_array_equal(loaded.mean_quality_, router.mean_quality_)
    turns = ("nothing", ASK.format("kitchen", "what is a roast?"), ANSWER)
    first, second = Script(*turns), Script(*turns)
    assert run(router, first).steps == run(loaded, second).steps
    assert first.calls == second.calls
    before, after = (one.route_single(QUESTION) for one in (router, loaded))
    assert replace(after, router_version="") == replace(before, router_version="")
