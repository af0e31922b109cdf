"""knnrouter with an index: agreement with exact search, the contract, state, and ties."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from waypost.contracts.errors import ArtifactDigestError, MissingExtraError
from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.encoders import make_encoder
from waypost.loading import load_router, save_router
from waypost.testing.fitted_routers import fitted
from waypost.testing.router_contract import all_checks
from waypost.testing.synthetic import ENCODER_ID, planted
from waypost_routers._neighbors.index import LISTS_READ, Index
from waypost_routers._neighbors.memory import nearest
from waypost_routers.knnrouter import KNNRouter

pytest.importorskip("faiss", reason="faiss-cpu is in the extra train")


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(n, d=24, seed=0):
    """Return rows around 40 centres, which are the same for every seed."""
    centres = np.random.default_rng(99).normal(size=(40, d))
    draw = np.random.default_rng(seed)
    return unit(centres[draw.integers(40, size=n)] + 0.6 * draw.normal(size=(n, d)))


@pytest.fixture(scope="module")
def memory():
    return clustered(6000)


@pytest.fixture(scope="module")
def index(memory):
    return Index.build(memory)


def rows_found(found):
    return [set(i[s > 0].tolist()) for i, s in zip(found.index, found.share, strict=True)]


def test_most_neighbours_are_those_of_an_exact_search(index, memory):
    assert index.lists.nlist > LISTS_READ  # not all of them are read
    queries = clustered(200, seed=1)
    exact, found = nearest(memory, queries, 20), index.nearest(memory, queries, 20)
    pairs = zip(rows_found(exact), rows_found(found), strict=True)
    assert np.mean([len(a & b) / len(a) for a, b in pairs]) > 0.98


def test_what_is_found_has_the_similarity_and_share_of_an_exact_search(index, memory):
    queries = clustered(50, seed=2)
    exact, found = nearest(memory, queries, 20), index.nearest(memory, queries, 20)
    same = [a == b for a, b in zip(rows_found(exact), rows_found(found), strict=True)]
    assert sum(same) > 30
    np.testing.assert_allclose(found.similarity[same], exact.similarity[same], atol=1e-12)
    np.testing.assert_array_equal(found.share[same], exact.share[same])


def test_a_query_finds_the_same_alone_and_in_any_batch(index, memory):
    queries = clustered(64, seed=3)
    whole = index.nearest(memory, queries, 20)
    for row in range(0, 64, 9):
        alone = index.nearest(memory, queries[row : row + 1], 20)
        n = alone.index.shape[1]
        np.testing.assert_array_equal(whole.index[row, :n], alone.index[0])
        np.testing.assert_allclose(whole.share[row, :n], alone.share[0], atol=1e-12)


def test_more_copies_than_candidates_share_the_last_place():
    memory = np.concatenate([clustered(3000), clustered(1, seed=5).repeat(200, axis=0)])
    query = clustered(1, seed=5)
    assert len(np.unique(memory, axis=0)) == 3001
    found = Index.build(memory).nearest(memory, np.concatenate([query, clustered(3)]), 10)
    assert found.index[0][found.share[0] > 0].tolist() == list(range(3000, 3200))
    assert found.share[0][:200] == pytest.approx(np.full(200, 10 / 200))
    assert found.share.sum(axis=1) == pytest.approx(np.full(4, 10.0))


def test_a_k_that_the_lists_cannot_fill_is_searched_exactly(index, memory):
    queries = clustered(4, seed=6)
    exact, found = nearest(memory, queries, 3000), index.nearest(memory, queries, 3000)
    np.testing.assert_array_equal(found.index, exact.index)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rows(n):
    memory = clustered(n)
    assert Index.build(memory).nearest(memory, memory, 9).share.sum(axis=1).tolist() == [n] * n


def test_the_same_rows_give_the_same_lists(index, memory):
    again = Index.build(memory).to_arrays()["lists"]
    np.testing.assert_array_equal(again, index.to_arrays()["lists"])


def test_state_goes_to_arrays_and_back(index, memory):
    queries = clustered(20, seed=7)
    back = Index.from_arrays(index.to_arrays())
    one, two = index.nearest(memory, queries, 7), back.nearest(memory, queries, 7)
    np.testing.assert_array_equal(one.index, two.index)


# -- in the router --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_index():
    """Build the contract checks' knnrouters with an index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KNNRouter, "trial_parameters", {"index": "ivf"})
        assert fitted("knnrouter").index_ is not None
        yield


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.__name__)
def test_contract_with_an_index(check, with_index):
    check("knnrouter")


def test_automatic_is_exact_on_little_data():
    assert KNNRouter(k=5).fit(planted(60)).index_ is None


def test_automatic_builds_one_above_a_number_of_questions(monkeypatch):
    monkeypatch.setattr("waypost_routers._neighbors.regression.INDEX_ABOVE", 50)
    assert KNNRouter(k=5).fit(planted(60)).index_ is not None
    assert KNNRouter(k=5, index="exact").fit(planted(60)).index_ is None


def test_decisions_are_those_of_an_exact_search_on_small_data():
    data, other = planted(120), planted(40, seed=4)
    batch = QueryBatch(tuple(map(Query, other.queries)), other.embeddings)
    exact, found = (KNNRouter(index=i).fit(data).predict(batch) for i in ("exact", "ivf"))
    # similarities of an exact decision keep the rounding of float32
    np.testing.assert_allclose(found.quality, exact.quality, atol=1e-6)
    np.testing.assert_allclose(found.confidence, exact.confidence, atol=1e-6)


def test_an_artifact_holds_it(tmp_path):
    data = planted(120)
    router = KNNRouter(index="ivf").fit(data)
    router.encoder = make_encoder(ENCODER_ID)
    save_router(router, tmp_path / "a", data)
    loaded = load_router(tmp_path / "a")
    assert loaded.index_ is not None
    text = planted(1, seed=8).queries[0]
    assert loaded.route_single(text).quality == router.route_single(text).quality
    weights = tmp_path / "a" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactDigestError):
        load_router(tmp_path / "a")


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"waypost\[train\]"):
        KNNRouter(index="ivf").fit(planted(20))
    KNNRouter().fit(planted(20))
