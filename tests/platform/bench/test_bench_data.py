"""The bench of the data pipeline: its figures by hand, its endpoint, its plain ways of asking."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from waypost.bench import _processes as processes
from waypost.bench import data
from waypost.bench._asking import ANSWER, ask
from waypost.bench.data import aims, growth, ratios, take, traffic
from waypost.bench.harness import BenchError
from waypost.cli import command


def way(per_s: float, steady: float = 600.0) -> dict[str, object]:
    return {
        "calls": 6400, "per_s": per_s, "of_ideal": per_s / 640, "steady_per_s": steady,
        "steady_of_ideal": steady / 640, "most_at_once": 64, "mean_at_once": 60.5,
        "cpu_s_per_1k": 1.25, "cpu_s": 20.0, "wall_s": 18.0, "timeline": [1, 2],
    }  # fmt: skip


def memory(cells: int, askers: float, driver: float) -> dict[str, float]:
    return {
        "cells": cells, "askers_mb": askers, "driver_mb": driver, "store_mb": 3.0,
        "tree_mb": 900.0, "per_s": 500.0, "wall_s": 30.0,
    }  # fmt: skip


WAYS = {data.PIPELINE: way(544.0), data.POOL: way(600.0), data.SEQUENTIAL: way(9.7)}
ROWS = [memory(100_000, 240, 300), memory(1000, 200, 200)]


def test_traffic_by_hand():
    # one call of 1 s, and in its second half another of 0.25 s; a third without an answer
    seen = traffic([10.0, 10.5, 10.8], [10.75, 11.0])
    assert (seen["calls"], seen["answered"], seen["most_at_once"]) == (3, 2, 2)
    assert (seen["begin"], seen["end"], seen["per_s"]) == (10.0, 11.0, 2.0)
    assert seen["mean_at_once"] == pytest.approx(1.0 + 0.25 + 0.2)
    assert seen["timeline"] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1]


def test_the_steady_rate_leaves_a_slow_start_and_a_slow_end_out():
    ends = [0.0, *(5 + n / 10 for n in range(18)), 50.0]
    seen = traffic([0.0] * 20, ends)
    assert seen["per_s"] == pytest.approx(20 / 50)
    assert seen["steady_per_s"] == pytest.approx(10)
    with pytest.raises(ValueError, match="no call was answered"):
        traffic([1.0], [])


def test_aims_and_ratios_by_hand():
    found = {aim.aim.partition(":")[0]: (aim.value, aim.reached) for aim in aims(WAYS, ROWS)}
    assert found["waypost data responses, share of the ideal rate"] == (0.85, False)
    assert found["waypost data responses, the same of the middle 80 %"][1]
    assert ratios(WAYS)[data.SEQUENTIAL] == pytest.approx(56.08, abs=0.01)
    assert found["askers, times that memory grows"] == (1.2, True)
    assert found["driver, times that memory grows"] == (1.5, False)
    assert growth([memory(1000, 1, 1)], "askers_mb") is None
    assert aims(WAYS, [])[-1].reached is None


def test_the_tables_name_every_way_and_every_row():
    found = data.result(WAYS, ROWS, data.Options())
    ways, rows = found.tables
    assert ways.rows[0] == [
        "waypost data responses", "6,400", "544.0", "85.0 %", "600.0", "93.8 %", "1.00", "60.5",
        "64", "1.25", "20.0", "18.0",
    ]  # fmt: skip
    assert ways.rows[2][0] == "one after another"
    assert rows.rows[0] == ["100,000", "240", "300", "3", "900", "500", "30"]
    assert "make 640 calls/s at best" in found.facts


def test_the_endpoint_holds_answers_back_and_forgets_what_it_has_told():
    with processes.upstream("--text", ANSWER, "--latency", "0.05") as port:
        assert ask(port, 24, 8) == 24 * len(ANSWER)
        pool = take(port)
        assert (pool["calls"], pool["answered"]) == (24, 24)
        assert 1 < pool["most_at_once"] <= 8
        assert pool["end"] - pool["begin"] >= 3 * 0.05  # three rounds of eight
        assert sum(pool["timeline"]) == 24
        ask(port, 3, 1)
        alone = take(port)
        assert (alone["calls"], alone["most_at_once"]) == (3, 1)
        assert alone["begin"] > pool["end"]


def test_a_watched_command_is_counted_with_its_children(tmp_path, monkeypatch):
    child = "import time; t = time.process_time()\nwhile time.process_time() - t < 0.3: pass"
    (tmp_path / "busy.py").write_text(
        "import subprocess, sys\n"
        "if len(sys.argv) > 1: sys.exit('wrong argument')\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])\n"
        "held = bytearray(60_000_000)\n"
        "import time; time.sleep(0.5)\n"
        "print('a warning'); print('{\"a\": 1}')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = processes.watched("busy", [], 0.02)
    assert seen.said == {"a": 1}
    assert seen.cpu_s[-1] >= 0.25
    assert seen.driver_mb > 60
    assert seen.wall_s >= 0.5
    middle = (seen.times[0] + seen.times[-1]) / 2
    halves = seen.cpu_between(seen.times[0], middle), seen.cpu_between(middle, seen.times[-1])
    assert sum(halves) == pytest.approx(seen.cpu_s[-1])
    with pytest.raises(BenchError, match=r"(?s)busy ended with 1.*wrong argument"):
        processes.watched("busy", ["x"], 0.02)


def test_cells_that_are_no_numbers_are_refused():
    done = CliRunner().invoke(command, ["bench", "data", "--cells", "1000,x"])
    assert done.exit_code == 2
    assert "cells: expected whole numbers from 1 and commas, got '1000,x'" in done.output


@pytest.mark.ray
@pytest.mark.long
def test_the_command_measures_tells_and_inserts(tmp_path):
    readme, out = tmp_path / "r.md", tmp_path / "out.json"
    readme.write_text("before\n<!-- asking begin -->\nold\n<!-- asking end -->\nafter\n")
    few = ["--quick", "--calls", "48", "--in-flight", "8", "--latency", "0.02"]
    where = ["--insert", f"{readme}:asking", "--out", str(out)]
    done = CliRunner().invoke(command, ["bench", "data", *few, *where])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert list(found["ways"]) == [data.PIPELINE, data.POOL, data.SEQUENTIAL]
    for name, one in found["ways"].items():
        assert sum(one["timeline"]) == one["calls"] == (10 if name == data.SEQUENTIAL else 48)
        assert 0 < one["of_ideal"] <= 1
        assert 0 < one["cpu_s_per_1k"] / 1000 * one["calls"] <= one["cpu_s"]
        assert one["most_at_once"] in ([1] if name == data.SEQUENTIAL else range(2, 9))
    assert found["ratios"][data.SEQUENTIAL] > 1
    text = readme.read_text()
    assert text.startswith("before\n<!-- asking begin -->\n")
    assert "old" not in text
    assert "waypost bench data --calls 48 --in-flight 8 --latency 0.02 --quick\n" in text
    assert "steady" in done.output
