"""AutoMix: fit, decisions, steps, replay and live runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from support.cascade import PRICES, recorded
from support.skipping_loop import SkippingLoop
from waypost.cli import command as waypost
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ConfigError, EmptyPoolError, EngineServerError, SchemaError
from waypost.contracts.generation import GenerateRequest
from waypost.contracts.policy import PolicySettings
from waypost.contracts.records import Query
from waypost.contracts.routing_data import RoutingData, write_routing_data
from waypost.contracts.step_router import Call, CallResult, Delegate, EpisodeState
from waypost.contracts.verdicts import VERIFY, verdict_call
from waypost.engines import make_engine
from waypost.engines.base import collect
from waypost.episode import EpisodeResult, run_episode
from waypost.loading import load_router, save_router
from waypost.pipelines.evaluation import replay
from waypost.pipelines.evaluation.run import EvaluateConfig, evaluate
from waypost.report.markdown import render
from waypost.report.numbers import plain
from waypost.testing.deciding_checks import HOSTILE
from waypost_routers.automix import AutoMix


@pytest.fixture(scope="module")
def data() -> RoutingData:
    return recorded()


@pytest.fixture(scope="module")
def router(data: RoutingData) -> AutoMix:
    return AutoMix().fit(data)


def plan_at(router: AutoMix, lam: float) -> dict[str, object]:
    return router.plans_[int(np.searchsorted(router.lambdas_, lam, side="right")) - 1]


# Fit


def test_informed_verdicts_make_a_chain_better_than_the_best_single(data, router):
    plan = plan_at(router, 0.3)
    assert [tier["model"] for tier in plan["tiers"]] == ["small", "large"]
    assert plan["tiers"][0]["ask_next"][0] == 1
    assert plan["tiers"][0]["ask_next"][4] == 0
    fresh = recorded(150, seed=1)
    found = replay.outcomes(router, fresh, 0.3)
    large = fresh.quality[:, 1].mean(), fresh.cost_usd[:, 1].mean()
    assert found.quality.mean() > large[0] - 0.05
    assert found.cost_usd.mean() < 0.75 * large[1]


def test_what_is_chosen_has_a_positive_lift_and_what_has_none_is_the_best_single():
    for seed in range(3):
        router = AutoMix(seed=seed).fit(recorded(120, informed=False, seed=seed))
        for plan in router.plans_:
            assert plan["family"] is None or plan["lift"] > plan["lift_se"] >= 0
            if plan["family"] is None:
                assert len(plan["tiers"]) == 1
        assert plan_at(router, 0.0)["tiers"][0]["model"] == "large"
        assert plan_at(router, float("inf"))["tiers"][0]["model"] == "small"


def test_one_fit_serves_every_lambda_and_more_weight_spends_less(data, router):
    some = data.select(range(40))
    spent = [replay.outcomes(router, some, lam).cost_usd.mean() for lam in (0.0, 0.3, 2.0, 1e9)]
    assert spent == sorted(spent, reverse=True)
    assert spent[-1] == pytest.approx(data.cost_usd[0, 0])


def test_the_same_seed_learns_the_same_and_the_order_of_the_llms_does_not_matter(data, router):
    again = AutoMix().fit(data)
    turned = AutoMix().fit(data.select_llms(["large", "small"]))
    assert again.get_state()[1] == router.get_state()[1]
    assert [p["tiers"] for p in turned.plans_] == [p["tiers"] for p in router.plans_]


def test_without_verdicts_the_fit_says_how_to_record_them(data):
    bare = replace(data, verdicts=None, verify_input_tokens=None, verify_output_tokens=None)
    with pytest.raises(SchemaError, match="answers and verdicts with"):
        AutoMix().fit(bare)
    with pytest.raises(SchemaError, match="verdicts is 8, but the data holds at most 4"):
        AutoMix(verdicts=8).fit(data)


def test_parameters_are_checked(data):
    for wrong in ({"family": "sharp"}, {"tiers": ["small", "small"]}, {"verdicts": 0}):
        with pytest.raises(ConfigError):
            AutoMix(**wrong).fit(data)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no LLM tiny"):
        AutoMix(tiers=["small", "tiny"]).fit(data)


def test_fewer_verdicts_and_fewer_tiers_can_be_asked_for():
    data = recorded(llms=("small", "middle", "large"))
    router = AutoMix(verdicts=2, family="threshold", tiers=["small", "large"]).fit(data)
    names = {tier["model"] for plan in router.plans_ for tier in plan["tiers"]}
    assert names == {"small", "large"}
    asked = {len(t["ask_next"]) for p in router.plans_ for t in p["tiers"] if t["ask_next"]}
    assert asked == {3}


def test_what_was_not_measured_is_no_zero(data, router):
    holes = data.quality.copy()
    holes[::10, 0] = np.nan
    verdicts = data.verdicts.copy()
    verdicts[5::10, 0] = np.nan
    found = AutoMix().fit(replace(data, quality=holes, verdicts=verdicts))
    assert plan_at(found, 0.3)["tiers"] == plan_at(router, 0.3)["tiers"]


def test_one_llm_and_one_question_are_enough():
    one = AutoMix().fit(recorded(20).select_llms(["small"]))
    assert one.route_single("anything").ranking == ("small",)
    single = AutoMix().fit(recorded(20).select([0]))
    assert len(single.route_single("anything").ranking) == 2


# Decisions


def test_a_decision_names_the_first_tier_and_the_dollars_of_the_episode(data, router):
    decision = router.route_single({"query": data.queries[0], "lambda": 0.3})
    assert decision.ranking == ("small", "large")
    assert "decide whether to call large" in decision.reason
    assert 0 < decision.confidence <= 1
    alone = router.route_single({"query": data.queries[0], "lambda": 1e9}).cost_usd["small"]
    chain = replay.outcomes(router, data, 0.3).cost_usd.mean() / data.cost_usd[0, 0]
    assert decision.cost_usd["small"] == pytest.approx(chain * alone, rel=0.01)


def test_only_allowed_models_are_asked(router):
    large = {"query": "?", "lambda": 0.3, "allowed_models": ["large"]}
    assert router.route_single(large).ranking == ("large",)
    small = Query("?", lam=0.3, allowed_models=("small",))
    assert router.step(EpisodeState(small)).calls[0].model == "small"
    answered = EpisodeState(small).after([CallResult(Call("small", "?"), "a")])
    assert router.step(answered).text == "a"  # there is no next tier: no verdicts
    with pytest.raises(EmptyPoolError):
        router.route_single({"query": "?", "allowed_models": ["tiny"]})


def test_exploration_draws_an_llm_and_accepts_its_answer(data):
    router = AutoMix().fit(data)
    router.policy = PolicySettings(lam=0.3, exploration=1.0)
    decisions = router.route_batch(list(data.queries[:40]))
    assert {decision.model for decision in decisions} == {"small", "large"}
    assert all(decision.propensity == 0.5 for decision in decisions)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_routed_and_asked(router, text):
    query = Query(text, lam=0.3)
    state = EpisodeState(query)
    first = router.step(state)
    assert isinstance(first, Delegate)
    state = state.after([CallResult(first.calls[0], text)])
    assert len(router.step(state).calls) == 4


# Episodes

Answer = Callable[[Call], CallResult]


def live(router: AutoMix, answer: Answer, lam: float = 0.3) -> EpisodeResult:
    async def call(one: Call) -> CallResult:
        return answer(one)

    return asyncio.run(run_episode(router, Query("q?", lam=lam), call))


def says(*verdicts: str, broken: tuple[str, ...] = ()) -> Answer:
    left = list(verdicts)

    def answer(call: Call) -> CallResult:
        if call.model in broken or (call.purpose == VERIFY and not left):
            raise EngineServerError(f"{call.model} is down")
        text = left.pop(0) if call.purpose == VERIFY else f"answer of {call.model}"
        return CallResult(call, text, None, 10, 1, 0.001)

    return answer


def asked(result: EpisodeResult) -> list[str]:
    return [f"{step[0].call.model} {step[0].call.purpose}" for step in result.steps]


def test_a_supported_answer_is_accepted(router):
    result = live(router, says("Yes", "Yes", "Yes", "Yes"))
    assert (result.text, result.model) == ("answer of small", "small")
    assert asked(result) == ["small answer", "small verify"]
    assert result.cost_usd == pytest.approx(0.005)


def test_an_answer_that_is_not_supported_is_passed_on(router):
    result = live(router, says("No", "no.", "I", "No"))
    assert (result.text, result.model) == ("answer of large", "large")
    assert asked(result) == ["small answer", "small verify", "large answer"]


def test_verdicts_end_when_the_action_is_settled(router):
    table = plan_at(router, 0.3)["tiers"][0]["ask_next"]
    needed = table.index(0)  # the number of supporting verdicts that accepts
    ended = []

    async def call(one: Call) -> CallResult:
        if one.purpose != VERIFY:
            return CallResult(one, "answer")
        number = sum(
            one.seed == verdict_call("small", "q?", "answer", i).seed for i in range(needed)
        )
        if number:
            return CallResult(one, "Yes")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(one.seed)
        raise AssertionError

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        result = runner.run(run_episode(router, Query("q?", lam=0.3), call))
    assert (result.text, result.model) == ("answer", "small")
    assert len(ended) == 4 - needed > 0
    assert result.wall_s < 10


def test_a_tier_that_is_down_is_passed_over(router):
    result = live(router, says(broken=("small",)))
    assert (result.text, result.model) == ("answer of large", "large")
    result = live(router, says("No", "No", "No", "No", broken=("large",)))
    assert (result.text, result.model) == ("answer of small", "small")  # better than none
    result = live(router, says(broken=("small", "large")))
    assert (result.text, result.ended_by) == (None, "answer")
    assert result.error == "EngineServerError: large is down"


def test_where_all_verdicts_fail_the_tier_is_blind(router):
    blind = plan_at(router, 0.3)["tiers"][0]["blind"]
    assert live(router, says()).model == ("large" if blind else "small")


def test_replay_and_a_live_run_with_engines_agree(router, tmp_path):
    data = recorded(30, seed=5)
    all_or_none = data.verdicts[:, :, :1]  # the engine is deterministic
    data = replace(data, verdicts=np.where(np.isnan(data.verdicts), np.nan, all_or_none))
    engines = {}
    for j, name in enumerate(data.names):
        lines = []
        for i, text in enumerate(data.queries):
            answer = f"{name} says {i}"
            verdict = "Yes" if data.verdicts[i, j, 0] == 1 else "No"
            lines.append(
                {"query": text, "response": answer, "input_tokens": 100, "output_tokens": 100}
            )
            prompt = verdict_call(name, text, answer, 0).prompt
            lines.append(
                {"query": prompt, "response": verdict, "input_tokens": 100, "output_tokens": 1}
            )
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        engines[name] = make_engine("replay", {"data": str(tmp_path / f"{name}.jsonl")})

    async def call(one: Call) -> CallResult:
        messages = [{"role": "user", "content": one.prompt}]
        made = await collect(engines[one.model], GenerateRequest(f"{one.seed}", messages=messages))
        used = made.usage
        dollars = PRICES[one.model] * (used.input_tokens + used.output_tokens) / 1e6
        return CallResult(one, made.text, None, used.input_tokens, used.output_tokens, dollars)

    async def run_all() -> list[EpisodeResult]:
        for engine in engines.values():
            await engine.start()
        done = [await run_episode(router, Query(t, lam=0.3), call) for t in data.queries]
        for engine in engines.values():
            await engine.close()
        return done

    results = asyncio.run(run_all())
    offline = replay.outcomes(router, data, 0.3)
    assert [data.names.index(str(result.model)) for result in results] == offline.model.tolist()
    assert 0 < offline.model.mean() < 1
    # A settled vote ends the live verdicts early; the recorded ones are all paid for.
    spent = np.array([result.cost_usd for result in results])
    assert (spent <= offline.cost_usd + 1e-12).all()
    texts = [f"{result.model} says {i}" for i, result in enumerate(results)]
    assert [result.text for result in results] == texts


def test_replay_says_what_the_data_lacks(data, router):
    bare = replace(data, verdicts=None, verify_input_tokens=None, verify_output_tokens=None)
    with pytest.raises(SchemaError, match="has no verdicts"):
        replay.outcomes(router, bare, 0.3)
    unpriced = data.cost_usd.copy()
    unpriced[0] = np.nan
    found = replay.outcomes(router, replace(data, cost_usd=unpriced).select(range(20)), 0.3)
    assert np.isnan(found.cost_usd[0])
    assert not np.isnan(found.cost_usd[1:]).any()


# Artifacts


def test_an_artifact_decides_the_same_in_a_fresh_process(data, router, tmp_path):
    save_router(router, tmp_path / "a", data)
    loaded = load_router(tmp_path / "a")
    assert loaded.get_state()[1] == router.get_state()[1]
    program = (
        "import json, sys; from waypost.loading import load_router\n"
        "router = load_router(sys.argv[1])\n"
        "print(json.dumps(router.route_single({'query': sys.argv[2], 'lambda': 0.3}).to_dict()))"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "a"), data.queries[0]]
    told = subprocess.run(arguments, capture_output=True, text=True, check=True)
    here = loaded.route_single({"query": data.queries[0], "lambda": 0.3})
    assert json.loads(told.stdout) == here.to_dict()


def test_it_is_trained_by_the_command(data, tmp_path):
    write_routing_data(tmp_path / "data", data)
    arguments = ["train", "--router", "automix", "--data", str(tmp_path / "data")]
    done = CliRunner().invoke(waypost, [*arguments, "--out", str(tmp_path / "a"), "verdicts=2"])
    assert done.exit_code == 0, done.output
    assert load_router(tmp_path / "a").verdicts_ == 2
    validation = read_manifest(tmp_path / "a").metrics["validation"]
    assert validation["queries"] == len(data)
    assert validation["best_single"] == pytest.approx(data.quality[:, 1].mean())
    assert validation["gain"] > 0  # a cheap answer that is supported is right more often


def test_the_report_says_how_often_it_goes_on_and_how_often_wrongly(data, tmp_path):
    write_routing_data(tmp_path / "data", data)
    fresh = recorded(60, seed=1)
    texts = tuple(f"another {text}" for text in fresh.queries)
    write_routing_data(tmp_path / "data", replace(fresh, queries=texts), "test")
    config = EvaluateConfig(routers=("automix",), lambdas=(0.3, 1e9))
    done = evaluate(config, tmp_path / "data")
    alone, chain, cheapest = done.report["routers"]["automix"]["episodes"]
    assert (alone["lambda"], chain["lambda"], cheapest["lambda"]) == (0, 0.3, 1e9)
    assert (cheapest["calls"], cheapest["escalated"]) == (1, 0)
    assert chain["calls"] > 2  # an answer and verdicts
    assert 0.2 < chain["escalated"] < 0.8
    assert chain["kept_wrong"] < 0.5 > chain["left_right"]  # small alone is right on half
    assert "| automix, lambda 0.3 |" in render(plain(done.report))
