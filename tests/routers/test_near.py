import sys

import numpy as np
import pytest

from waypost.contracts.records import Query, QueryBatch
from waypost.testing.synthetic import planted
from waypost_routers._neighbors import memory as _near
from waypost_routers._neighbors.memory import nearest, neighbours
from waypost_routers.elorouter import EloRouter
from waypost_routers.knnrouter import KNNRouter


def rows(n, d=384, seed=0):
    drawn = np.random.default_rng(seed).normal(size=(n, d))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def batch(vectors):
    return QueryBatch(tuple(Query("?") for _ in vectors), vectors)


def by_row(found, query):
    used = found.share[query] > 0
    facts = zip(found.similarity[query][used], found.share[query][used], strict=True)
    return dict(zip(found.index[query][used].tolist(), facts, strict=True))


@pytest.mark.parametrize("k", [1, 7, 80, 650])
def test_finds_what_an_exact_search_finds(k):
    memory = np.concatenate([rows(500), rows(150)])  # 150 rows stand twice: ties at many places
    asked = np.concatenate([rows(20, seed=3), memory[:10]])
    exact, found = nearest(memory, asked, k), neighbours(batch(asked), memory, k)
    for query in range(len(asked)):
        here, there = by_row(found, query), by_row(exact, query)
        assert here.keys() == there.keys()
        for row, facts in there.items():
            assert here[row] == pytest.approx(facts, abs=1e-6)


def test_rows_that_float32_cannot_tell_apart_are_told_apart():
    # 40 rows whose cosines to the query differ by less than float32 resolves
    step = 1e-4 + 1e-9 * np.arange(40)
    memory = rows(40, 64)
    memory[:, 0] = 0
    memory *= (np.sqrt(1 - step**2) / np.linalg.norm(memory, axis=1))[:, None]
    memory[:, 0] = step
    asked = np.zeros((1, 64), np.float32)
    asked[0, 0], asked[0, 1] = 0.6, 0.8
    exact = nearest(memory, asked, 11)
    assert by_row(neighbours(batch(asked), memory, 11), 0).keys() == by_row(exact, 0).keys()


def test_the_same_alone_in_one_block_and_in_several(monkeypatch):
    memory = np.concatenate([rows(300), rows(50)])
    asked = np.concatenate([rows(30, seed=2), memory[:10]])
    whole = neighbours(batch(asked), memory, 12)
    monkeypatch.setattr(_near, "block_size", lambda memory: 7)
    blocks = neighbours(batch(asked), memory, 12)
    for query in range(len(asked)):
        alone = by_row(neighbours(batch(asked[query : query + 1]), memory, 12), 0)
        for found in (by_row(whole, query), by_row(blocks, query)):
            assert found.keys() == alone.keys()
            for row, facts in alone.items():
                assert found[row] == pytest.approx(facts, abs=1e-6)


@pytest.mark.parametrize("make", [KNNRouter, EloRouter])
def test_routers_predict_as_with_an_exact_search(make, monkeypatch):
    data, other = planted(160), planted(30, seed=5)
    router = make().fit(data)
    asked = batch(other.embeddings)
    found = router.predict(asked)

    def exactly(batch, memory, k):
        return nearest(memory, batch.embeddings, k)

    modules = [sys.modules[cls.__module__] for cls in type(router).__mro__]
    uses = next(module for module in modules if hasattr(module, "neighbours"))
    monkeypatch.setattr(uses, "neighbours", exactly)
    exact = router.predict(asked)
    np.testing.assert_allclose(found.quality, exact.quality, atol=1e-6)
    np.testing.assert_allclose(found.confidence, exact.confidence, atol=1e-6)


def test_products_are_taken_once_for_all_who_hold_the_memory():
    memory, vectors = rows(50, 16), rows(3, 16, seed=1)
    asked = batch(vectors)
    neighbours(asked, memory, 5)
    kept = asked.once(memory, lambda: pytest.fail("the products were not kept"))
    np.testing.assert_allclose(kept, vectors @ memory.T, atol=1e-6)
    assert neighbours(asked, memory, 9).share.sum(axis=1) == pytest.approx([9, 9, 9])
