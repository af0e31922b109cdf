"""What several gateways of a machine count, those that ended included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waypost.telemetry.counters import Counters
from waypost.telemetry.machine import Machine

ANSWERS, GATEWAYS, BUDGET = (
    ("waypost_answers_total", ("cook",)),
    ("waypost_gateways", ()),
    ("waypost_budget_usd_per_day", ()),
)


def counted(folder: Path, name: str, answers: int) -> Counters:
    made = Counters(folder, name)
    made.add(*ANSWERS, answers)
    made.observe("waypost_decision_seconds", (), 0.002)
    made.set(*GATEWAYS, 1)
    made.set(*BUDGET, 20)
    return made


def told(folder: Path) -> tuple[float, float, float]:
    """Return answers, gateways, and decisions."""
    found = Machine(folder).numbers()
    decisions = sum(found["waypost_decision_seconds", ()][:-1])
    return found[ANSWERS][0], found.get(GATEWAYS, [0.0])[0], decisions


def test_two_gateways_are_added_up_and_a_setting_is_not(tmp_path):
    both = counted(tmp_path, "1", 3), counted(tmp_path, "2", 4)
    assert told(tmp_path) == (7, 2, 2)
    assert Machine(tmp_path).numbers()[BUDGET] == [20]
    both[0].add(*ANSWERS)
    assert told(tmp_path) == (8, 2, 2), "counted since"
    for each in both:
        each.close()


def test_of_a_gateway_that_ended_the_counts_stay_and_the_gauges_go(tmp_path):
    first, second = counted(tmp_path, "1", 3), counted(tmp_path, "2", 4)
    first.close()
    assert told(tmp_path) == (7, 1, 2)
    for _ in range(2):
        Machine(tmp_path).fold()
        assert told(tmp_path) == (7, 1, 2)
    assert not list(tmp_path.glob("1.*")), "its files are gone"
    second.close()
    Machine(tmp_path).fold()
    assert told(tmp_path) == (7, 0, 2)


def test_a_killed_gateway_loses_no_count(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from waypost.telemetry.counters import Counters;"
        "c = Counters(Path(sys.argv[1]), 'killed');"
        "[c.add('waypost_answers_total', ('cook',)) for _ in range(1000)];"
        "print('counted', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"counted\n"
        alive = counted(tmp_path, "1", 1)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    Machine(tmp_path).fold()
    assert told(tmp_path)[:2] == (1001, 1)
    alive.close()


def test_a_crash_while_files_are_removed_counts_nothing_twice(tmp_path, monkeypatch):
    counted(tmp_path, "1", 3).close()

    def crash(self, missing_ok=False):
        if self.suffix != ".partial":
            raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(OSError, match="power"):
            Machine(tmp_path).fold()
    assert list(tmp_path.glob("1.*")), "the files are still there"
    assert told(tmp_path) == (3, 0, 1)
    Machine(tmp_path).fold()
    assert told(tmp_path) == (3, 0, 1)


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    alive = counted(tmp_path, "1", 3)
    with (tmp_path / "1.names").open("a") as file:
        file.write('["waypost_answers_to')
    assert told(tmp_path) == (3, 1, 1)
    alive.close()


def test_metrics_of_another_version_are_left_out(tmp_path):
    alive = counted(tmp_path, "1", 3)
    with (tmp_path / "1.names").open("a") as file:
        file.write(
            '["waypost_of_tomorrow_total", [], 0, 1]\n["waypost_answers_total", ["x"], 99999, 1]\n'
        )
    assert told(tmp_path) == (3, 1, 1)
    assert all(name != "waypost_of_tomorrow_total" for name, _ in Machine(tmp_path).numbers())
    alive.close()
