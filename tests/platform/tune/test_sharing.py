import numpy as np

from waypost import load_router
from waypost.contracts.records import Query, QueryBatch
from waypost.encoders import make_encoder
from waypost.loading import save_router
from waypost.registry import make_router
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost.tune.auto.members import members_of
from waypost.tune.auto.router import share_learned
from waypost.tune.auto.stacking import Stack

MEMBERS = ["knnrouter", "elorouter", "clusterrouter", "taskrouter", "linearrouter"]


def batch(data):
    return QueryBatch(tuple(map(Query, data.queries)), data.embeddings)


def test_a_batch_computes_once_for_each_owner():
    asked, owner, other = QueryBatch((Query("a"),)), object(), object()
    calls = []

    def make():
        calls.append(1)
        return len(calls)

    assert [asked.once(owner, make), asked.once(owner, make), asked.once(other, make)] == [1, 1, 2]
    assert QueryBatch(asked.queries).once(owner, make) == 3


def test_what_was_learned_alike_is_held_once_and_predicts_the_same():
    data, other = planted(160), planted(30, seed=5)
    apart = [make_router(name, {}).fit(data) for name in MEMBERS]
    together = [make_router(name, {}).fit(data) for name in MEMBERS]
    share_learned(together)
    knn, elo, cluster, task, linear = together
    assert knn.memory_ is elo.memory_
    assert cluster.tokens_ is task.tokens_ is linear.tokens_ is elo.tokens_
    assert cluster.calibration_ is not linear.calibration_
    asked = batch(other)
    for one, own in zip(together, apart, strict=True):
        found, expected = one.predict(asked), own.predict(batch(other))
        np.testing.assert_allclose(found.quality, expected.quality, atol=1e-12)
        np.testing.assert_allclose(found.output_tokens, expected.output_tokens, rtol=1e-12)


def test_a_price_changed_in_one_router_stays_its_own():
    one, other = (make_router("linearrouter", {}).fit(planted(60)) for _ in range(2))
    share_learned([one, other])
    before = other.cost_model_.prices.copy()
    one.with_prices({one.model_names[0]: (9.0, 9.0)})
    np.testing.assert_array_equal(other.cost_model_.prices, before)


def test_members_of_an_ensemble_hold_it_once_when_fitted_and_when_loaded(tmp_path):
    data = planted(120)
    router = make_router("auto", {"members": MEMBERS[:2], "folds": 2})
    router.encoder = make_encoder(ENCODER_ID)
    router.fit(data)
    both = Stack(np.ones(2), np.ones(2), router.mean_quality_)  # whatever was chosen
    router._take(members_of(MEMBERS[:2]), data, both, None)
    save_router(router, tmp_path / "a", data)
    for one in (router, load_router(tmp_path / "a")):
        knn, elo = one.members_
        assert knn.memory_ is elo.memory_
