import json
from dataclasses import replace

import numpy as np
import pytest

from waypost import load_router
from waypost.contracts.errors import ConfigError, RegistryError
from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.encoders import make_encoder
from waypost.loading import save_router
from waypost.registry import make_router
from waypost.testing.synthetic import ENCODER_ID, planted, shuffled

QUICK = ["clusterrouter", "knnrouter", "linearrouter"]


def fitted(data, **params):
    router = make_router("auto", {"members": QUICK, "folds": 3, **params})
    router.encoder = make_encoder(ENCODER_ID)
    return router.fit(data)


def batch(data):
    return QueryBatch(tuple(map(Query, data.queries)), data.embeddings)


def test_says_what_it_tried_and_why_it_chose():
    report = fitted(planted(160)).report_
    tried = [row["candidate"] for row in report["candidates"]]
    averages = ["mean of the best 3", "stack", "stack, corrected by neighbours", "mean of all"]
    assert tried == [*averages, *QUICK, "training means"]
    assert report["chosen"] in tried
    assert report["chosen"] in report["why"]
    assert report["questions"] == 160
    gains = {row["candidate"]: row["gain"] for row in report["candidates"]}
    assert gains["training means"] == 0
    assert gains[report["chosen"]] > 0.3
    assert json.loads(json.dumps(report)) == report


def test_weights_name_only_members_it_keeps():
    router = fitted(planted(160))
    assert [type(m).name for m in router.members_] == [
        row["member"] for row in router.report_["weights"]
    ]
    assert len(router.members_) >= 2
    assert all(row["contrast"] > 0 or row["level"] > 0 for row in router.report_["weights"])


def test_nothing_to_learn_leaves_the_means():
    data, other = shuffled(planted(200)), planted(50, seed=3)
    router = fitted(data)
    earned = other.quality[np.arange(50), router.predict_quality(batch(other)).argmax(axis=1)]
    single = other.quality[:, int(np.argmax(data.quality.mean(axis=0)))]
    assert earned.mean() >= single.mean() - 0.05


def test_a_corrected_stack_without_members_is_the_means(monkeypatch):
    def choose(candidates, data, *more):
        (one,) = [c for c in candidates if c.corrected]
        stack = replace(one.stack, contrast=0 * one.stack.contrast, level=0 * one.stack.level)
        return replace(one, stack=stack), {"chosen": one.name}

    monkeypatch.setattr("waypost.tune.auto.router.choose", choose)
    data = planted(80)
    router = fitted(data)
    assert (router.members_, router.correction_) == ([], None)
    found = router.predict(batch(data)).quality
    np.testing.assert_allclose(found, np.broadcast_to(data.quality.mean(axis=0), found.shape))


def test_a_member_that_cannot_be_fitted_is_left_out_with_its_reason():
    data = replace(planted(120), embeddings=None)
    router = make_router("auto", {"members": ["best_single", "cheapest_llm", "knnrouter"]})
    type(router).needs_embeddings = False
    try:
        router.fit(data)
    finally:
        type(router).needs_embeddings = True
    assert list(router.report_["left_out"]) == ["knnrouter"]
    assert "embeddings" in router.report_["left_out"]["knnrouter"]


def test_too_few_questions_fall_back():
    router = fitted(planted(12))
    assert router.report_["chosen"] == "knnrouter"
    assert "too few" in router.report_["why"]


@pytest.mark.parametrize("members", [["no_such_router"], [{"linearrouter": {"penalty": -1}}]])
def test_a_wrong_member_is_said_before_anything_is_fitted(members):
    with pytest.raises((RegistryError, ConfigError), match=r"no_such_router|penalty"):
        fitted(planted(60), members=members)


def test_a_router_without_scores_is_no_member():
    with pytest.raises(ConfigError, match="does not predict scores"):
        fitted(planted(60), members=["automix"])


@pytest.mark.parametrize("members", ["knnrouter", [], [3], {"knnrouter": 1}])
def test_members_are_a_list(members):
    with pytest.raises(ConfigError, match="members"):
        make_router("auto", {"members": members})


def test_an_artifact_holds_the_members(tmp_path):
    data, other = planted(160), planted(20, seed=5)
    router = fitted(data, members=[*QUICK, {"linearrouter": {"features": "words"}}])
    manifest = save_router(router, tmp_path / "a", data)
    assert manifest.kind == "ensemble"
    again = load_router(tmp_path / "a")
    np.testing.assert_allclose(
        again.predict_quality(batch(other)), router.predict_quality(batch(other)), atol=1e-6
    )
    assert again.report_ == router.report_


def test_costs_are_those_of_the_members():
    router = fitted(planted(160))
    other = planted(20, seed=5)
    cost = router.predict_cost(batch(other), router.predict(batch(other)))
    assert cost.argmin(axis=1).tolist() == [2] * 20
