"""The bench of feedback: events in process, and from measurements to shares."""

from __future__ import annotations

from itertools import count

import pytest

from waypost.bench import _cpu, feedback
from waypost.bench._processes import upstream
from waypost.bench._targets import ARTIFACT, Scene
from waypost.config import resolve_path


async def test_events_are_taken_one_by_one_and_in_lists():
    for size in (1, 100):
        each_cpu_second, each_second = await feedback.in_process(200, size)
        assert each_cpu_second > 0
        assert each_second > 0


@pytest.mark.parametrize("kind", [feedback.STORE, feedback.LOG])
async def test_a_record_takes_cpu(kind):
    assert 0 < await feedback.record(kind, 100) < 1e5


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_a_gateway_takes_each_event_once(tmp_path):
    keys = count()
    with upstream("--tokens", "3") as port:
        scene = Scene(port, resolve_path(ARTIFACT), tmp_path)
        with _cpu.alone(scene, changes={"feedback_dir": str(tmp_path / "f")}) as server:
            for size in (1, 100):
                assert min(feedback.over_http(server, 300, size, keys)) > 0
    assert next(keys) == 600


def test_shares_are_of_the_answer_without_records_of_the_same_round():
    rounds = {feedback.NONE: [100.0, 200.0], feedback.STORE: [110.0, 202.0]}
    rounds[feedback.LOG] = [102.0, 214.0]
    cells = [
        {"server": name, "stream": False, "concurrency": 1, "rounds_us": values}
        | {"cpu_us": feedback.spread(values)}
        for name, values in rounds.items()
    ]
    found = _cpu.added(
        cells, dict.fromkeys((feedback.STORE, feedback.LOG), feedback.NONE), feedback.NONE
    )
    kind = "whole, 1 in flight"
    assert found[feedback.STORE][kind]["share"] == pytest.approx(0.04)
    assert found[feedback.LOG][kind]["low"] == pytest.approx(0.02)
    events = [
        {"way": way, "size": 100, "each_cpu_second": feedback.spread([rate])}
        | {"each_second": feedback.spread([rate])}
        for way, rate in ((feedback.IN_PROCESS, 3_000.0), (feedback.OVER_HTTP, 1_000.0))
    ]
    micros = {name: feedback.spread([20.0]) for name in (feedback.STORE, feedback.LOG)}
    figures = {"events": events, "cells": cells, "added": found, "record_us": micros}
    assert [aim.reached for aim in feedback.aims(figures)] == [True, False, True, False]
    _, _, shares = feedback.tables(figures)
    assert [row[:2] for row in shares.rows] == [
        ("feedback_dir", "+4.0 % [+1.0 %, +10.0 %]"),
        ("decision_log", "+5.3 % [+2.0 %, +7.0 %]"),
    ]
