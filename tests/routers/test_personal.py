"""gmtrouter and personalizedrouter: what they do with feedback; without it, see test_contract."""

from dataclasses import replace

import numpy as np
import pytest

from support.fans import fitted_on_fans, with_fans
from waypost.contracts.records import Query, QueryBatch
from waypost.contracts.user_state import PersonalRouter, UserHistory, UserState
from waypost.learning.user_states import UserStates
from waypost.learning.user_turns import UserTurn
from waypost.loading import load_router, save_router
from waypost.registry import make_router
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost_routers._personal.model import NUMPY, Ops, Turns
from waypost_routers._personal.training import PersonalTraining, Seen, _Learner

ROUTERS = ("gmtrouter", "personalizedrouter")
NAMES = ("cook", "prover", "tiny")


@pytest.fixture(scope="module")
def data():
    return with_fans()


@pytest.fixture(scope="module", params=ROUTERS)
def router(request, data):
    return fitted_on_fans(request.param, data)


def fan(liked, n):
    """Return the history of a fan of one LLM: every turn prefers it to another."""
    asked = planted(n, seed=7)
    others = [name for name in NAMES if name != liked]
    return UserHistory(
        asked.embeddings, (liked,) * n, tuple(others[i % 2] for i in range(n)), np.ones(n)
    )


def choices(router, state, data):
    batch = data.batch()
    quality = router.predict_quality(
        QueryBatch(batch.queries, batch.embeddings, (state,) * len(data))
    )
    return [NAMES[j] for j in quality.argmax(axis=1)]


def test_a_new_users_events_change_the_choice_and_no_weight(router):
    assert isinstance(router, PersonalRouter)
    asked, before = planted(30, seed=4), router.get_state()[0]
    for liked in NAMES:
        state = router.user_state(fan(liked, 10))
        assert state.events == 10
        assert choices(router, state, asked).count(liked) >= 27, liked
    after = router.get_state()[0]
    for key, part in before.items():
        np.testing.assert_array_equal(part, after[key])


def test_more_events_say_more(router):
    batch = planted(30, seed=4).batch()

    def liked(n):
        state = router.user_state(fan("tiny", n))
        told = QueryBatch(batch.queries, batch.embeddings, (state,) * 30)
        return router.predict_quality(told)[:, 2].mean()

    assert liked(0) < liked(1) < liked(3) < liked(10)


def test_a_user_without_events_gets_the_score_of_an_unknown_one(router):
    batch = planted(9, seed=4).batch()
    unknown = router.predict_quality(batch)
    empty = router.user_state(fan("cook", 0))
    for users in ((empty,) * 9, (None,) * 9, (UserState(0, np.zeros(0, np.float32)),) * 9):
        told = QueryBatch(batch.queries, batch.embeddings, users)
        np.testing.assert_array_equal(router.predict_quality(told), unknown)


def test_every_query_has_its_own_user(router):
    batch = planted(3, seed=4).batch()
    states = (router.user_state(fan("tiny", 10)), None, router.user_state(fan("cook", 10)))
    mixed = router.predict_quality(QueryBatch(batch.queries, batch.embeddings, states))
    for i, state in enumerate(states):
        alone = QueryBatch(batch.queries[i : i + 1], batch.embeddings[i : i + 1], (state,))
        np.testing.assert_allclose(router.predict_quality(alone)[0], mixed[i], atol=1e-6)


def test_decisions_take_states_and_the_policy_its_lambda(router):
    asked = planted(4, seed=4)
    state = router.user_state(fan("prover", 10))
    queries = [Query(text) for text in asked.queries]
    states = [state] * 4
    assert [d.model for d in router.decide(queries, asked.embeddings, states)] == ["prover"] * 4
    dear = [replace(query, lam=100.0) for query in queries]
    assert [d.model for d in router.decide(dear, asked.embeddings, states)] == ["tiny"] * 4


def test_events_of_llms_that_left_the_pool_are_passed_over(router):
    history = fan("cook", 4)
    gone = replace(
        history, llms=("gone", "cook", "cook", "cook"), others=("tiny", "gone", None, "tiny")
    )
    kept = UserHistory(history.embeddings[2:], ("cook", "cook"), (None, "tiny"), history.values[2:])
    one, two = router.user_state(gone), router.user_state(kept)
    assert one.events == two.events == 2
    np.testing.assert_array_equal(one.vector, two.vector)


def test_an_artifact_keeps_users_apart(router, data, tmp_path):
    save_router(router, tmp_path / "artifact", data)
    loaded = load_router(tmp_path / "artifact")
    history = fan("tiny", 5)
    np.testing.assert_allclose(
        loaded.user_state(history).vector, router.user_state(history).vector, rtol=1e-6
    )


def test_a_store_makes_states_of_a_router(router, tmp_path):
    asked = planted(5, seed=4)
    with UserStates(tmp_path / "users.db", router.user_state, ENCODER_ID) as states:
        for i in range(5):
            turn = UserTurn(f"r{i}", asked.embeddings[i], "tiny", 1.0, "cook")
            states.add("ann", turn)
        assert choices(router, states.get("ann"), asked).count("tiny") >= 4


def test_the_order_of_the_pool_and_a_repeated_fit_change_nothing(router, data):
    fresh = type(router)(**router.get_params()).fit(data.select_llms(["tiny", "cook", "prover"]))
    history, batch = fan("tiny", 5), planted(9, seed=4).batch()

    def told(one):
        users = (one.user_state(history),) * 9
        return one.predict_quality(QueryBatch(batch.queries, batch.embeddings, users))

    np.testing.assert_allclose(told(fresh), told(router)[:, [2, 0, 1]], atol=1e-3)


def learner(name, data):
    import torch

    torch.set_num_threads(1)
    router = make_router(name)
    outcomes = np.random.default_rng(0).normal(size=(len(data), 3, 4))
    seen = Seen(data.events, data.embeddings, outcomes, data.names)
    how = PersonalTraining(8, 0.01, 0.0, 1.0, 10, 0)
    users = np.unique(data.events.user)
    return _Learner(seen, users, type(router)._encoder, router._shapes, how)


def test_targets_are_never_visible(data):
    one = learner("gmtrouter", data)
    for count in (None, 0, 3, 20, 100):
        visible, targets = one._parted(one._users, np.random.default_rng(1), count)
        for row, user in enumerate(one._users):
            seen, asked = (set(part[row][part[row] >= 0]) for part in (visible, targets))
            assert not seen & asked
            assert asked
            assert {int(u) for u in data.events.user[list(seen | asked)]} == {int(user)}


@pytest.mark.parametrize("name", ROUTERS)
def test_numpy_computes_what_torch_trained(name, data):
    import torch

    one = learner(name, data)
    for _ in range(10):
        one.step()
    draw = np.random.default_rng(0)
    parts = [draw.normal(size=(5, 8)), draw.normal(size=5), draw.random(5), draw.random(5) < 0.5]
    parts = [np.asarray(part, np.float32) for part in (*parts, np.ones(5))]
    with torch.no_grad():
        there = one._encoder(
            one._values, Turns(*map(torch.as_tensor, parts)), Ops(torch.sigmoid, torch.tanh)
        )
    here = one._encoder(one.model().values, Turns(*parts), NUMPY)
    np.testing.assert_allclose(here, there.numpy(), atol=1e-5)
    assert np.abs(here).max() > 0.01
