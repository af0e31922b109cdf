from __future__ import annotations

import pytest

from waypost.serve import app
from waypost.serve.config import PoolEntry


def entry(**options):
    return PoolEntry(name="a", engine="transformers", config={"model": "m"}, **options)


@pytest.mark.parametrize(("cores", "replicas", "share"), [(2, 2, "1"), (8, 3, "2"), (1, 4, "1")])
def test_the_threads_of_all_replicas_sum_to_the_cores(monkeypatch, cores, replicas, share):
    monkeypatch.setattr(app.os, "cpu_count", lambda: cores)
    assert app.thread_variables(entry(), replicas)["OMP_NUM_THREADS"] == share


def test_an_entry_with_whole_cpus_is_left_to_ray():
    found = app.thread_variables(entry(ray_actor_options={"num_cpus": 4}), 2)
    assert "OMP_NUM_THREADS" not in found
    assert found["OMP_WAIT_POLICY"] == "passive"
