"""Numbers in memory and in files are the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from waypost.telemetry.counters import CELLS, Counters
from waypost.telemetry.table import BY_NAME

SPENT = "waypost_cost_usd_total"
TIME = "waypost_decision_seconds"


@pytest.fixture(params=["memory", "files"])
def counters(request, tmp_path: Path):
    made = Counters(tmp_path / "machine" if request.param == "files" else None, "1")
    yield made
    made.close()


def test_counts_are_kept_by_labels(counters):
    for _ in range(3):
        counters.add(SPENT, ("knn", "cook"), 0.25)
    counters.add(SPENT, ("knn", "tiny"), 2)
    assert counters.numbers() == {
        (SPENT, ("knn", "cook")): [0.75],
        (SPENT, ("knn", "tiny")): [2.0],
    }


def test_an_observation_is_in_the_bucket_whose_bound_it_does_not_exceed(counters):
    bounds = BY_NAME[TIME].buckets
    for value in (bounds[0], 0.0004, 0.0005, 7.0):
        counters.observe(TIME, (), value)
    *counts, total = counters.numbers()[TIME, ()]
    expected = [0.0] * (len(bounds) + 1)
    expected[0], expected[2], expected[-1] = 1.0, 2.0, 1.0
    assert counts == expected
    assert total == pytest.approx(bounds[0] + 0.0004 + 0.0005 + 7.0)


def test_what_is_not_in_a_closed_set_is_counted_together(counters):
    for purpose in ("verify", "a plug-in's own", "another"):
        counters.add("waypost_episode_calls_total", ("cook", purpose))
    assert counters.numbers() == {
        ("waypost_episode_calls_total", ("cook", "verify")): [1.0],
        ("waypost_episode_calls_total", ("cook", "other")): [2.0],
    }


def test_more_series_than_there_was_room_for_lose_nothing(counters):
    names = [f"llm-{number}" for number in range(CELLS + 10)]
    for name in names:
        counters.add("waypost_answers_total", (name,))
    counters.add("waypost_answers_total", (names[0],))
    found = counters.numbers()
    assert len(found) == len(names)
    assert found["waypost_answers_total", (names[0],)] == [2.0]
    assert sum(value for (value,) in found.values()) == len(names) + 1


def test_a_wrong_number_of_labels_is_an_error(counters):
    with pytest.raises(ValueError, match="1 values of labels"):
        counters.add(SPENT, ("cook",))
