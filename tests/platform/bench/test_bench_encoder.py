"""The encoder bench: neighbours, splits and the shape of its result, on hand-made data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from waypost.bench import encoder
from waypost.bench.harness import Tell
from waypost.contracts.records import LLMInfo
from waypost.contracts.routing_data import RoutingData, write_routing_data


def make_data(n: int = 120) -> RoutingData:
    """Sums, which only `maths` answers, and towns, which only `facts` answers."""
    sums = np.arange(n) % 2 == 0
    empty = np.full((n, 2), np.nan)
    quality = np.stack([sums, ~sums], axis=1).astype(float)
    quality[5] = np.nan, 1.0
    return RoutingData(
        query_ids=tuple(map(str, range(n))),
        queries=tuple(
            f"compute {i} + {i + 3}" if i % 2 == 0 else f"who founded the town number {i}"
            for i in range(n)
        ),
        task_names=tuple("sums" if i % 2 == 0 else "towns" for i in range(n)),
        llms=(LLMInfo(name="maths"), LLMInfo(name="facts")),
        quality=quality,
        input_tokens=empty,
        output_tokens=empty,
        cost_usd=empty,
        latency_s=empty,
    )


def test_nearest_gives_rows_by_falling_cosine():
    known = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    found = encoder.nearest(known, np.array([[0.1, 0.99]], np.float32), 3)
    assert found.tolist() == [[2, 1, 0]]


def test_split_is_by_task_and_repeats_with_its_seed():
    data = make_data()
    learn, score = encoder._split(data, 100)
    assert len(score) == 24
    assert sorted([*learn, *score]) == list(range(120))
    assert sum(data.task_names[i] == "sums" for i in score) == 12
    np.testing.assert_array_equal(score, encoder._split(data, 100)[1])
    assert not np.array_equal(score, encoder._split(data, 101)[1])


def test_unmeasured_scores_are_left_out_of_the_neighbours_mean():
    # nearest: row 0 (model b never measured) and row 1; b's mean is 0.8, a's 0.5
    known = np.array([[1, 0], [0.99, 0.14]], np.float32)
    scores = np.array([[0.0, np.nan], [1.0, 0.8]])
    earned = encoder._earned(known, scores, np.array([[1, 0]], np.float32), np.array([[0.1, 0.9]]))
    assert earned[5].tolist() == [0.9]


def test_bench_finds_that_the_words_tell_which_model_is_right(tmp_path):
    write_routing_data(tmp_path / "data", make_data())
    options = encoder.Options(
        data=tmp_path / "data", encoder=("hashing",), repeats=2, timed_queries=20
    )
    result = encoder.run(options, Tell())
    found = json.loads(json.dumps(result.figures))
    plain, structured = found["rows"]
    assert plain["quality"]["mean"] == pytest.approx(1.0)
    assert found["best_single"] == pytest.approx(0.5, abs=0.05)
    assert found["oracle"] == pytest.approx(1.0)
    assert structured["structure_weight"] == 0.5
    assert 0 < plain["timing"]["p50_ms"] <= plain["timing"]["p99_ms"]
    (table,) = result.tables
    assert "hashing+d512+t512+s1w0.5" in table.rows[1]


def test_the_vectors_of_two_encoders_are_compared():
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    (pair,) = encoder._shared({"a": vectors, "b": vectors})
    assert pair == {"pair": ["a", "b"], "share": 1.0}
