"""The bench of routing that compares answers: splits, cost weights, figures."""

from __future__ import annotations

import numpy as np
import pytest

from support.answering import answered
from waypost.bench.consensus import OURS, SINGLE, Options, play, weight_for, without_tasks
from waypost.contracts.errors import SchemaError
from waypost.testing.synthetic import ENCODER_ID

CURVE = [
    {"lambda": 0.0, "usd_per_1k": 4.0},
    {"lambda": 0.1, "usd_per_1k": 2.0},
    {"lambda": 1.0, "usd_per_1k": 1.0},
]


@pytest.mark.parametrize(
    ("usd", "lam"), [(9.0, 0.0), (4.0, 0.0), (3.0, 0.05), (2.0, 0.1), (1.5, 0.55), (0.1, 1.0)]
)
def test_a_cost_weight_is_read_off_the_curve(usd, lam):
    assert weight_for(CURVE, usd) == pytest.approx(lam)


def test_tasks_that_are_asked_are_not_trained_on():
    data = answered(60)
    train, test = without_tasks(data, 1, 0)
    tasks = np.array(data.task_names)
    assert set(tasks[train]).isdisjoint(tasks[test])
    assert len(train) + len(test) == 60
    with pytest.raises(SchemaError, match="cannot be left out"):
        without_tasks(data, 2, 0)


def test_every_policy_is_played_on_the_same_questions(tmp_path):
    options = Options(data=tmp_path, base="taskrouter", encoder=ENCODER_ID, least=8)
    data = answered(160)
    found = play(options, data, np.arange(120), np.arange(120, 160), 0)
    assert all(len(one.quality) == 40 for one in found.played.values())
    best = data.quality[120:, int(data.quality[:120].mean(axis=0).argmax())]
    np.testing.assert_array_equal(found.played[SINGLE].quality, best)
    assert found.played[OURS].calls.min() >= 1
    assert found.played[OURS].calls.max() <= 4
    with pytest.raises(SchemaError, match="training questions"):
        play(options, data, np.arange(4), np.arange(120, 160), 0)
