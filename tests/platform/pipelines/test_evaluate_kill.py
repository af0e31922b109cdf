"""An evaluation that is killed: the next run makes no call again that had ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support.counting_upstream import counting_upstream
from support.live_rounds import write_plugin, write_pool, write_sums
from waypost.testing.synthetic import ENCODER_ID

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

N, IN_FLIGHT = 40, 4
CALLS = 4 * N

LATE_S = 2.0
"""Between the last byte of an answer and its line in the log, on a machine that is busy."""


def start(folder: Path, pool: Path) -> subprocess.Popen[bytes]:
    places = ["--data", str(folder / "data"), "--out", str(folder / "R"), "--pool", str(pool)]
    arguments = ["rounds", *places, "--encoder", ENCODER_ID]
    with (folder / "log").open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "waypost.cli", "evaluate", *arguments],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "WAYPOST_PLUGINS": str(folder / "plugins")},
        )


def test_a_killed_evaluation_goes_on_and_makes_no_ended_call_again(tmp_path):
    write_plugin(tmp_path)
    write_sums(tmp_path / "data", N)
    with counting_upstream(delay_s=0.2) as upstream:
        pool = write_pool(tmp_path / "pool.yaml", upstream.url, concurrency=IN_FLIGHT)
        run = start(tmp_path, pool)
        deadline = time.monotonic() + 180
        while len(upstream.calls) < N + N // 2:  # the plans, and a part of the steps
            assert run.poll() is None, (tmp_path / "log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed = time.monotonic()
        run.send_signal(signal.SIGKILL)
        run.wait()
        time.sleep(1.0)  # workers have noticed
        assert not (tmp_path / "R" / "report.json").exists()
        again = start(tmp_path, pool)
        assert again.wait(timeout=300) == 0, (tmp_path / "log").read_text()[-3000:]
        made = Counter((call.model, call.text) for call in upstream.calls)
        assert len(made) == CALLS
        assert len(upstream.calls) - CALLS <= 2 * IN_FLIGHT
        ends: dict[tuple[str, str], float] = {}
        for call in upstream.calls:
            ends.setdefault((call.model, call.text), call.end)
        for key, count in made.items():
            assert count == 1 or ends[key] > killed - LATE_S, key
    report = json.loads((tmp_path / "R" / "report.json").read_text())
    assert report["live"]["rounds"]["calls"] == CALLS
    assert report["routers"]["rounds"]["quality"] == pytest.approx(1 / N)
