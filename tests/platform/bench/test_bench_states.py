"""The bench of the store of users' states: a small run."""

from __future__ import annotations

from waypost.bench import states
from waypost.bench.harness import Tell
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import planted


def test_a_small_run_times_every_call_and_leaves_nothing(tmp_path):
    for split, n in (("train", 80), ("test", 40)):
        write_routing_data(tmp_path / "data", planted(n, seed=n), split)
    (tmp_path / "disk").mkdir()
    options = states.Options(
        data=tmp_path / "data", users=60, turns=2, hot=10, asked=5, steps=4,
        encoder="hashing+d64+t512", folder=tmp_path / "disk",
    )  # fmt: skip
    result = states.run(options, Tell())
    calls = [row[0] for row in result.tables[0].rows]
    assert len(calls) == len(set(calls)) == len(result.figures["wall_ms"]) == 8
    assert all(found["p50"] > 0 for found in result.figures["wall_ms"].values())
    assert result.figures["bytes_a_turn"] > 4 * 64
    assert [aim.reached is not None for aim in result.aims] == [True] * 3
    assert list((tmp_path / "disk").iterdir()) == []
