from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.records import Query
from waypost.contracts.router import QueryBatch
from waypost.testing.synthetic import SPECIALIST, planted
from waypost_routers.taskrouter import TaskRouter, _weights


def batch(data):
    return QueryBatch(tuple(map(Query, data.queries)), data.embeddings)


def test_means_of_the_tasks_by_hand():
    router = TaskRouter(kappa=2)
    router.mean_quality_ = np.array([0.5, 0.25])
    member = np.array([[1.0, 0], [1, 0], [0, 1]])
    quality = np.array([[1.0, 0], [1, np.nan], [0, 1]])
    found = router._means(member, quality)
    assert found[0] == pytest.approx([(2 + 1.0) / 4, (0 + 0.5) / 3])
    assert found[1] == pytest.approx([(0 + 1.0) / 3, (1 + 0.5) / 3])


def test_weights_sharpen_to_the_likeliest_task():
    scores = np.array([[0.6, 0.3]])
    assert _weights(scores, 1.0)[0] == pytest.approx([2 / 3, 1 / 3])
    assert _weights(scores, 2.0)[0] == pytest.approx([0.8, 0.2])
    assert _weights(np.array([[-0.5, 0.5]]), 1.0)[0, 0] < 0.01


def test_recognises_the_task_and_goes_by_its_specialist():
    router = TaskRouter(within="none").fit(planted(160))
    other = planted(60, seed=7)
    chosen = [router.model_names[j] for j in router.predict_quality(batch(other)).argmax(axis=1)]
    assert chosen == [SPECIALIST[task] for task in other.task_names]


def test_data_without_tasks_leaves_the_linear_correction():
    data = replace(planted(160), task_names=("",) * 160)
    router, other = TaskRouter().fit(data), planted(60, seed=7)
    assert router.recogniser_ is None
    right = router.predict_quality(batch(other)).argmax(axis=1) == other.quality.argmax(axis=1)
    assert right.mean() > 0.95


def test_the_correction_within_a_task_follows_the_query():
    # one task in name, two in truth: the means alone cannot tell them apart
    data = replace(planted(160), task_names=("mixed", "other") * 80)
    mixed = replace(data, task_names=tuple(["mixed"] * 80 + ["other"] * 80))
    other = planted(60, seed=7)
    for within, least, most in (("none", 0.0, 0.7), ("linear", 0.9, 1.0)):
        router = TaskRouter(within=within).fit(mixed)
        right = router.predict_quality(batch(other)).argmax(axis=1) == other.quality.argmax(axis=1)
        assert least <= right.mean() <= most
