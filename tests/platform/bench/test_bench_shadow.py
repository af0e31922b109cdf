"""The bench of log and shadow: what is added, from cells to aims."""

import pytest

from waypost.bench import _cpu, shadow


def cell(server, rounds, stream=False):
    return {"server": server, "stream": stream, "concurrency": 64, "rounds_us": rounds}


def test_what_is_added_is_a_share_of_the_plain_answer_of_the_same_round():
    cells = [
        cell(shadow.PLAIN, [500.0, 1000.0, 500.0]),
        cell(shadow.LOG, [520.0, 1010.0, 510.0]),
        cell(shadow.SHADOW, [570.0, 1040.0, 560.0]),
    ]
    found = _cpu.added(cells, shadow.PAIRS, shadow.PLAIN)
    log, beside = (found[name]["whole, 64 in flight"] for name in (shadow.LOG, shadow.SHADOW))
    assert (log["median"], log["least"], log["most"]) == pytest.approx((0.02, 0.01, 0.04))
    assert (beside["median"], beside["most"]) == pytest.approx((0.1, 0.1))
    assert [aim.reached for aim in shadow.aims(found)] == [True, False]
    (log_row, shadow_row) = shadow.table(found).rows
    assert log_row == ["the log adds", "+2.0 % [+1.0 %, +4.0 %]"]
    assert shadow_row[1].startswith("+10.0 %")
