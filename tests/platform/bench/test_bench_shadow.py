"""The bench of log and shadow: what is added, from cells to aims."""

import pytest

from waypost.bench import _cpu, shadow


def cell(server, rounds, stream=False):
    return {"server": server, "stream": stream, "concurrency": 64, "rounds_us": rounds}


def test_what_is_added_is_a_share_of_the_plain_answer_of_the_same_round():
    cells = [
        cell(shadow.PLAIN, [500.0, 1000.0, 500.0]),
        cell(shadow.LOG, [520.0, 1010.0, 510.0]),
        cell(shadow.SHADOW, [570.0, 1090.0, 560.0]),
    ]
    found = _cpu.added(cells, shadow.PAIRS, shadow.PLAIN)
    log, beside = (found[name]["whole, 64 in flight"] for name in (shadow.LOG, shadow.SHADOW))
    assert log["share"] == pytest.approx(40 / 2000)
    assert 0.01 <= log["low"] < 0.02 < log["high"] <= 0.04
    assert beside["share"] == pytest.approx(180 / 2000)
    assert [aim.reached for aim in shadow.aims(found)] == [True, False]
    (log_row, shadow_row) = shadow.table(found).rows
    assert log_row[0] == "the log adds"
    assert log_row[1].startswith("+2.0 % [+1.")
    assert shadow_row[1].startswith("+9.0 %")
