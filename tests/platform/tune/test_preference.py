"""The metric ``preference``: users' choices that a router foresees."""

from __future__ import annotations

import numpy as np
import pytest

from support.fans import with_fans, write_fans
from waypost.config import parse
from waypost.contracts.errors import SchemaError
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.registry import make_router
from waypost.testing.synthetic import planted
from waypost.tune.config import Metric
from waypost.tune.folds import MetricEvaluator
from waypost.tune.preference import foreseen

PREFERENCE = parse(Metric, {"name": "preference"})


@pytest.fixture(scope="module")
def halves():
    data = with_fans(12, 16)
    rows = np.arange(len(data))
    return data.select(rows[rows % 4 > 0]), data.select(rows[rows % 4 == 0])


@pytest.fixture(scope="module")
def shares(halves):
    """Share foreseen by the parameter half."""
    found = {}
    for half in (1.0, 1e6):
        router = make_router("gmtrouter", {"steps": 40, "width": 16, "half": half})
        found[half] = np.nanmean(foreseen(router.fit(halves[0]), *halves))
    return found


def test_it_sees_how_much_a_users_own_score_weighs(shares):
    assert shares[1.0] > 0.8
    assert shares[1e6] < shares[1.0] - 0.1


def test_a_question_without_a_choice_is_not_measured(halves):
    training, held_out = halves
    router = make_router("knnrouter").fit(training)
    found = foreseen(router, training, held_out)
    events = held_out.events
    chosen = np.unique(events.query[(events.other >= 0) & (events.value != 0.5)])
    assert found.shape == (len(held_out),)
    assert np.flatnonzero(~np.isnan(found)).tolist() == chosen.tolist()
    one = int(chosen[0])
    mine = (events.query == one) & (events.other >= 0) & (events.value != 0.5)
    quality = router.predict_quality(held_out.batch())[one]
    gain = quality[events.llm[mine]] - quality[events.other[mine]]
    right = np.where(gain == 0, 0.5, (gain > 0) == (events.value[mine] > 0.5))
    assert found[one] == pytest.approx(right.mean())


def test_data_without_feedback_are_refused():
    with pytest.raises(SchemaError, match="metric preference: the training split has no feedback"):
        MetricEvaluator.of(planted(20), PREFERENCE, 0)


def test_a_folder_with_feedback_has_the_metric(tmp_path):
    write_routing_data(tmp_path, planted(30))
    write_fans(tmp_path, planted(30))
    data = read_routing_data(tmp_path, "train")
    assert len(data.events) == 48
    assert MetricEvaluator.of(data, PREFERENCE, 0).lambdas == (0.0,)
    assert (PREFERENCE.mode, PREFERENCE.needs_cost) == ("max", False)
