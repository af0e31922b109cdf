import numpy as np
import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Decision, Query
from waypost.contracts.router import Prediction, ScoreRouter
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.step_router import (
    Call,
    Delegate,
    FinalAnswer,
    StepRouter,
    TrainableStepRouter,
)
from waypost.metrics.comparison import COST_ALONE, lambda_grid, look_up, look_up_names
from waypost.pipelines.evaluation.lambda_curve import decides_alone, sweep
from waypost.registry import make_trainable
from waypost.registry.rule_router import trainable
from waypost.testing.fitted_routers import fitted
from waypost.testing.synthetic import planted
from waypost.testing.tables import outcomes


def names(data: RoutingData, columns) -> list[str]:
    return [data.names[j] for j in columns]


def test_outcomes_are_looked_up_and_what_is_not_there_is_not_measured():
    data = outcomes({"a": [1, 0], "b": [None, 0.5]}, cost_usd={"a": [0.1, 0.2]})
    found = look_up(data, np.array([1, 0]))
    assert np.isnan(found.quality[0])
    assert (found.quality[1], found.cost_usd[1]) == (0, 0.2)
    named = look_up_names(data, ["nobody", "b"])
    assert named.model.tolist() == [-1, 1]
    assert np.isnan(named.quality[0])
    assert named.quality[1] == 0.5


@pytest.mark.parametrize("name", ["knnrouter", "best_single", "randomrouter", "cheapest_llm"])
def test_a_sweep_chooses_what_the_router_decides(name):
    router, data = fitted(name), planted(30, seed=9)
    lambdas = (0.0, 0.3, 2.0, COST_ALONE)
    found = sweep(router, data, lambdas)
    for lam, one in zip(lambdas, found.outcomes, strict=True):
        decided = router.decide([Query(t, lam=lam) for t in data.queries], data.embeddings)
        assert names(data, one.model) == [decision.model for decision in decided]
        assert one.quality.tolist() == look_up_names(data, names(data, one.model)).quality.tolist()


def test_predicted_scores_stand_in_the_datas_columns():
    router = fitted("best_single")
    data = planted(6, seed=9).select_llms(["tiny", "cook"])
    found = sweep(router, data, (0.0,))
    means = dict(zip(router.model_names, router.mean_quality_, strict=True))
    assert found.predicted[0] == pytest.approx([means["tiny"], means["cook"]])
    # The best single LLM is one that this data lacks.
    assert set(found.outcomes[0].model.tolist()) <= {-1, 1}


def test_cost_alone_ends_at_the_cheapest():
    router, data = fitted("knnrouter"), planted(20, seed=9)
    found = sweep(router, data, (0.0, COST_ALONE))
    assert set(names(data, found.outcomes[-1].model)) == {"tiny"}
    assert found.expected_usd[0] > found.expected_usd[-1]


def test_a_router_without_scores_is_asked_at_a_few_weights(tmp_path, monkeypatch):
    folder = tmp_path / "thrifty"
    folder.mkdir()
    (folder / "router.py").write_text(
        "from waypost import Decision, MetaRouter\n\n\nclass Thrifty(MetaRouter):\n"
        "    def route_single(self, query):\n"
        "        name = 'tiny' if query['lambda'] > 1 else 'cook'\n"
        "        return Decision(name, (name,))\n"
    )
    router = make_trainable("thrifty", plugin_paths=[tmp_path]).fit(planted(10))
    lambdas = lambda_grid(np.array([1.0, 0.01]))
    found = sweep(router, planted(5, seed=9), lambdas)
    assert found.predicted is None
    assert 3 <= len(found.lambdas) < len(lambdas)
    assert (found.lambdas[0], found.lambdas[-1]) == (0.0, COST_ALONE)
    data = planted(5, seed=9)
    assert names(data, found.outcomes[0].model) == ["cook"] * 5
    assert names(data, found.outcomes[-1].model) == ["tiny"] * 5


def test_the_grid_reaches_the_step_from_the_cheapest_to_the_next():
    grid = lambda_grid(np.array([6.0, 0.1, 0.15, np.nan]))
    assert grid[0] == 0
    assert grid[-1] == COST_ALONE
    assert grid[-2] == pytest.approx(2 * 6.0 / 0.05)
    assert list(grid) == sorted(grid)
    assert lambda_grid(np.array([np.nan, np.nan]))[-2] == 10
    assert lambda_grid(np.array([1.0]))[-2] == 10


class CheapFirst(StepRouter):
    """Asks the cheap LLM, and the dear one, too, where cost weighs little."""

    name = "cheap_first"

    def route_single(self, query):
        return Decision("tiny", ("tiny",))

    def step(self, state):
        answers = [result for step in state.steps for result in step]
        wanted = ["tiny", "cook"] if state.query.lam < 1 else ["tiny"]
        if len(answers) < len(wanted):
            return Delegate((Call(wanted[len(answers)], state.query.text),))
        return FinalAnswer(answers[-1].text, answers[-1].call.model)


def test_a_step_router_is_replayed_and_pays_for_every_call():
    data = planted(5, seed=9)
    router = trainable(CheapFirst()).fit(planted(10))
    found = sweep(router, data, (0.0, 2.0))
    both, one = found.outcomes
    assert names(data, both.model) == ["cook"] * 5
    assert names(data, one.model) == ["tiny"] * 5
    cook, tiny = (data.names.index(name) for name in ("cook", "tiny"))
    assert both.quality.tolist() == data.quality[:, cook].tolist()
    assert both.cost_usd == pytest.approx(data.cost_usd[:, cook] + data.cost_usd[:, tiny])
    assert one.cost_usd == pytest.approx(data.cost_usd[:, tiny])
    assert found.predicted is None


class Splits(TrainableStepRouter, ScoreRouter):
    """Scores LLMs by their training means, and answers in rounds that no data holds."""

    name = "splits"
    needs_embeddings = False

    def _fit(self, data):
        pass

    def _predict(self, batch):
        return Prediction(np.tile(self.mean_quality_, (len(batch), 1)))

    def step(self, state):
        return Delegate((Call("tiny", f"Split: {state.query.text}", purpose="plan"),))


def test_of_a_score_router_in_rounds_the_single_round_choice_is_swept():
    data = planted(6, seed=9)
    router = Splits().fit(planted(10))
    assert decides_alone(router)
    found = sweep(router, data, (0.0, COST_ALONE))
    best = router.model_names[int(np.argmax(router.mean_quality_))]
    assert names(data, found.outcomes[0].model) == [best] * 6
    assert set(names(data, found.outcomes[-1].model)) == {"tiny"}


def test_of_a_replayable_score_router_the_episodes_are_swept(monkeypatch):
    monkeypatch.setattr(Splits, "replayable", True)
    router = Splits().fit(planted(10))
    assert not decides_alone(router)
    with pytest.raises(SchemaError, match="purpose 'plan'"):
        sweep(router, planted(3, seed=9), (0.0,))
